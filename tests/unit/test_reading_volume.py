"""Volumes against torch's own interpolation of all their values."""

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from filemaking import moving, write_nifti, write_video
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from remind.reading import Unreadable, Window
from remind.reading import video as video_module
from remind.reading.volume import read_volume

ANY_PATH = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
CODECS = {
    "mp4": ("libx264", "yuv420p"),
    "mov": ("mpeg4", "yuv420p"),
    "avi": ("mjpeg", "yuvj420p"),
    "mkv": ("ffv1", "bgr0"),
    "webm": ("libvpx-vp9", "yuv420p"),
}


def trilinear(values, frames, size):
    """Values in [0, 1]: ``[t h w]`` or ``[t h w c]``, all of them interpolated."""
    volume = torch.from_numpy(np.asarray(values, dtype=np.float32))
    volume = volume[None] if volume.ndim == 3 else volume.movedim(-1, 0)
    return F.interpolate(volume[None], (frames, size, size), mode="trilinear", align_corners=False)[0]


def check(path, expected, frames=3, size=5, **options):
    """``expected`` as for ``trilinear``."""
    found = read_volume(path, frames=frames, size=size, **options)
    assert found.shape == (3, frames, size, size)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, trilinear(expected, frames, size).expand(found.shape), atol=2e-6, rtol=0)


def refused(path, reason):
    with pytest.raises(Unreadable, match=reason):
        read_volume(path, frames=3, size=5)


def save(path, values):
    np.save(path, values)
    return path


def ends(values):
    values = values.astype(float)
    return (values - values.min()) / np.ptp(values)


# NPY


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    frames=st.integers(1, 12),
    size=st.integers(1, 12),
    seed=st.integers(0, 99),
)
@ANY_PATH
def test_any_volume_is_interpolated_as_torch_does(tmp_path, shape, frames, size, seed):
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    check(save(tmp_path / "a.npy", values), values / 255, frames, size)


@pytest.mark.parametrize("dtype", ["<i2", ">u2", "<f4", ">f8", "<i8", "f2"])
def test_other_numbers_reach_from_least_to_greatest(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 2000, (6, 7, 8)).astype(dtype)
    check(save(tmp_path / "a.npy", values), ends(values))
    check(tmp_path / "a.npy", ((values.astype(float) - 500) / 1000).clip(0, 1), window=Window(1000, 1000))
    check(save(tmp_path / "b.npy", np.full((2, 2, 2), 7, dtype)), np.zeros((2, 2, 2)))


def test_a_mask_is_0_and_1(tmp_path):
    check(save(tmp_path / "a.npy", np.ones((2, 3, 4), dtype=bool)), np.ones((2, 3, 4)))


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_lie_last_or_first_and_last_wins(tmp_path, channels):
    values = np.random.default_rng(0).integers(0, 256, (6, 7, 8, channels), dtype=np.uint8)
    check(save(tmp_path / "a.npy", values), values / 255)
    check(save(tmp_path / "b.npy", np.moveaxis(values, -1, 0)), values / 255)
    check(save(tmp_path / "c.npy", np.asfortranarray(values)), values / 255)
    both = np.random.default_rng(0).integers(0, 256, (3, 7, 8, channels), dtype=np.uint8)
    check(save(tmp_path / "d.npy", both), both / 255)


@pytest.mark.parametrize("shape", [(4,), (4, 4), (4, 4, 4, 2), (1, 4, 4, 4, 3)])
def test_other_shapes_are_refused(tmp_path, shape):
    refused(save(tmp_path / "a.npy", np.zeros(shape)), "a volume has 3 dimensions")


def test_other_contents_are_refused(tmp_path):
    refused(save(tmp_path / "a.npy", np.zeros((2, 0, 2))), "0 pixels")
    refused(save(tmp_path / "a.npy", np.zeros((2, 2, 2), dtype=complex)), "no plain numbers")
    refused(save(tmp_path / "a.npy", np.full((2, 2, 2), np.nan)), "not finite")
    refused(save(tmp_path / "a.npy", np.array([[[1e308, -1e308]]])), "not finite")
    refused(tmp_path / "b.npy", "^is not there$")


def test_a_large_array_stays_on_disk(tmp_path):
    values = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (2**13, 2**9, 2**9))  # 2 GiB of hole
    values[7168] = 255
    found = read_volume(tmp_path / "a.npy", frames=4, size=1)
    assert found[0].ravel().tolist() == [0, 0, 0, 0.5]  # the last of four lies between planes 7167 and 7168
    np.lib.format.open_memmap(tmp_path / "b.npy", "w+", np.uint8, (2**13 + 1, 2**9, 2**9))
    refused(tmp_path / "b.npy", r"^claims 512 x 512 x 8193 voxels; at most 2\^31 are read$")


# NIfTI


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_depth_is_the_third_axis_of_a_canonical_nifti(tmp_path, suffix):
    voxels = np.random.default_rng(0).integers(-1000, 2000, (4, 5, 6), dtype=np.int16)
    check(write_nifti(tmp_path / f"a.{suffix}", voxels), ends(voxels.transpose(2, 1, 0)))
    check(write_nifti(tmp_path / f"b.{suffix}", voxels[..., None, None]), ends(voxels.transpose(2, 1, 0)))


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_however_it_is_stored_it_is_its_canonical_twin(tmp_path, axes):
    voxels = np.random.default_rng(0).integers(0, 2000, (4, 5, 6), dtype=np.int16)
    for signs in itertools.product([1, -1], repeat=3):
        affine = np.zeros((4, 4))  # from indices of the stored array to millimetres
        affine[3, 3] = 1
        stored = voxels.transpose(axes)
        for place, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
            affine[axis, place] = 2.5 * sign
            stored = np.flip(stored, place) if sign < 0 else stored
        check(write_nifti(tmp_path / "a.nii", stored, affine), ends(voxels.transpose(2, 1, 0)))


def test_a_scale_and_an_offset_make_units(tmp_path):
    image = nib.Nifti1Image(np.random.default_rng(0).integers(0, 256, (4, 5, 6), dtype=np.uint8), np.eye(4))
    stored = np.asarray(image.dataobj).transpose(2, 1, 0)
    nib.save(image, tmp_path / "a.nii")
    check(tmp_path / "a.nii", stored / 255)
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[112:120] = np.array([-2, 100], dtype="<f4").tobytes()  # scl_slope, scl_inter
    (tmp_path / "a.nii").write_bytes(content)
    check(tmp_path / "a.nii", ((stored * -2.0 + 100 + 200) / 300).clip(0, 1), window=Window(-50, 300))
    check(tmp_path / "a.nii", ends(stored * -2.0 + 100))


def test_the_second_nifti_and_the_other_byte_order(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 2000, (4, 5, 6), dtype=np.int16)
    nib.save(nib.Nifti2Image(voxels, np.eye(4)), tmp_path / "a.nii")
    check(tmp_path / "a.nii", ends(voxels.transpose(2, 1, 0)))
    header = nib.Nifti1Header(endianness=">")
    nib.save(nib.Nifti1Image(voxels.astype(">i2"), np.eye(4), header), tmp_path / "b.nii")
    assert (tmp_path / "b.nii").read_bytes()[:4] == b"\0\0\x01\x5c"
    check(tmp_path / "b.nii", ends(voxels.transpose(2, 1, 0)))


def test_a_nifti_over_time_is_refused(tmp_path):
    refused(write_nifti(tmp_path / "a.nii", np.zeros((4, 5, 6, 7), dtype=np.int16)), "^has 4 dimensions")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_nifti_of_another_length_than_it_claims_is_refused(tmp_path, zipped):
    content = write_nifti(tmp_path / "a.nii", np.zeros((4, 5, 6), dtype=np.int16)).read_bytes()
    for length, reason in ((-1, "truncated"), (1, "more than its header claims")):
        changed = content[:length] if length < 0 else content + b"\0" * 2**22
        (tmp_path / "a.nii").write_bytes(gzip.compress(changed) if zipped else changed)
        refused(tmp_path / "a.nii", reason)


# Videos


@pytest.mark.parametrize("suffix", CODECS)
def test_a_video_equals_the_interpolation_of_all_its_frames(tmp_path, suffix):
    codec, pixels = CODECS[suffix]
    frames = moving(23, 32, 48)
    path = write_video(tmp_path / f"a.{suffix}", frames, codec, pixels)
    with video_module.av.open(str(path)) as video:
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
    assert decoded.shape == frames.shape
    if codec == "ffv1":
        np.testing.assert_array_equal(decoded, frames)
    for count in (1, 4, 23, 40):
        check(path, decoded / 255, frames=count, size=16)


def test_a_video_that_is_a_fragment_a_time_is_read(tmp_path):
    frames = moving(12, 32, 48)
    path = write_video(tmp_path / "a.mp4", frames, "libx264rgb", "rgb24", movflags="frag_keyframe+empty_moov")
    assert read_volume(path, frames=4, size=8).shape == (3, 4, 8, 8)


def test_only_frames_that_count_are_kept(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mkv", moving(60, 16, 16))
    kept = []
    monkeypatch.setattr(video_module.np, "moveaxis", lambda picture, *_: kept.append(1) or picture.transpose(2, 0, 1))
    read_volume(path, frames=5, size=8)
    assert len(kept) <= 10


@pytest.mark.parametrize("suffix", CODECS)
def test_a_video_cut_anywhere_is_refused(tmp_path, suffix):
    codec, pixels = CODECS[suffix]
    path = write_video(tmp_path / f"a.{suffix}", moving(12, 32, 48), codec, pixels)
    content = path.read_bytes()
    for length in np.linspace(1, len(content) - 1, 25).astype(int):
        path.write_bytes(content[:length])
        refused(path, ".")


def test_a_video_whose_pictures_are_cut_off_its_index_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mp4", moving(12, 32, 48), "libx264", "yuv420p", movflags="faststart")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"mdat") - 4])
    refused(path, ".")


def test_a_video_that_is_turned_stands_upright(tmp_path):
    frames = moving(4, 32, 48)
    with video_module.av.open(str(tmp_path / "a.mov"), "w") as video:
        stream = video.add_stream("png", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "rgb24"
        stream.set_display_matrix([0, 2**16, 0, -(2**16), 0, 0, 0, 0, 2**30])  # as telephones write: clockwise
        for frame in frames:
            video.mux(stream.encode(video_module.av.VideoFrame.from_ndarray(frame, format="rgb24")))
        video.mux(stream.encode())
    check(tmp_path / "a.mov", np.rot90(frames, -1, axes=(1, 2)) / 255, frames=4, size=16)


def test_sound_alone_is_no_video(tmp_path):
    with video_module.av.open(str(tmp_path / "a.mp4"), "w") as sound:
        stream = sound.add_stream("aac", rate=44100)
        frame = video_module.av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), "fltp", "mono")
        frame.rate = 44100
        sound.mux(stream.encode(frame))
        sound.mux(stream.encode())
    refused(tmp_path / "a.mp4", "^holds no pictures$")


# Folders of frames, and pages


def write_frames(folder, values, suffix="png", name="f{}"):
    folder.mkdir()
    for place, frame in enumerate(values):
        Image.fromarray(frame).save(folder / f"{name.format(place)}.{suffix}")
    (folder / ".DS_Store").write_bytes(b"canary")
    return folder


def test_frames_of_a_folder_are_in_natural_order(tmp_path):
    frames = moving(12, 6, 7)
    check(write_frames(tmp_path / "a", frames), frames / 255, frames=5)
    deep = np.random.default_rng(0).integers(0, 2**16, (12, 6, 7), dtype=np.uint16)
    check(write_frames(tmp_path / "b", deep, name="{} of 12"), ends(deep), frames=5)


def test_pages_of_a_tiff(tmp_path):
    deep = np.random.default_rng(0).integers(0, 2**16, (12, 6, 7), dtype=np.uint16)
    pages = [Image.fromarray(page) for page in deep]
    for compression in ("raw", "tiff_deflate"):
        pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:], compression=compression)
        check(tmp_path / "a.tiff", ends(deep))
        check(tmp_path / "a.tiff", ((deep - 1000.0) / 2000).clip(0, 1), window=Window(2000, 2000))


def test_folders_that_make_no_volume_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    refused(tmp_path / "a", "^is an empty folder$")
    (tmp_path / "a" / "b").mkdir()
    refused(tmp_path / "a", "folder of folders")
    mixed = write_frames(tmp_path / "c", moving(3, 6, 7))
    (mixed / "notes.txt").write_text("canary")
    refused(mixed, "something else")
    sizes = write_frames(tmp_path / "d", moving(3, 6, 7))
    Image.new("RGB", (7, 7)).save(sizes / "z.png")
    refused(sizes, "different sizes")
    refused(write_frames(tmp_path / "e", moving(3, 6, 7)) / "f1.png", "^is not an NPY")
