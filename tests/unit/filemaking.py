"""Sound files of every kind that is read, made by hand."""

import struct
from pathlib import Path
from typing import Any

import av
import nibabel as nib
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid


def write_dicom(path: Path, pixels: Any, *, syntax: str = ExplicitVRLittleEndian, **tags: Any) -> Path:
    """Grey ``[h w]``, colours ``[h w 3]``, or the grey frames ``[n h w]`` of ``NumberOfFrames``; any tag may differ."""
    pixels = np.asarray(pixels)
    frames = "NumberOfFrames" in tags
    shape = pixels.shape[1:] if frames else pixels.shape
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID, data.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid(entropy_srcs=[path.name])
    data.PatientName = "canary"
    data.Rows, data.Columns = shape[:2]
    data.SamplesPerPixel = 3 if len(shape) == 3 else 1
    data.PhotometricInterpretation = "RGB" if len(shape) == 3 else "MONOCHROME2"
    if len(shape) == 3:
        data.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    stored = pixels.tobytes()
    data.PixelData = stored + b"\0" * (len(stored) % 2)
    data["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    data.save_as(path, enforce_file_format=True)
    return path


def item(**tags: Any) -> Dataset:
    """One item of a sequence."""
    made = Dataset()
    for keyword, value in tags.items():
        setattr(made, keyword, value)
    return made


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Voxels as they lie in the file, and where that is in space."""
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def write_video(path: Path, frames: np.ndarray, codec: str = "ffv1", pixels: str = "bgr0", **options: str) -> Path:
    """Colour frames ``uint8 [t h w 3]``; FFV1 loses nothing."""
    with av.open(path, "w", options=options) as video:
        stream = video.add_stream(codec, rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for frame in frames:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        video.mux(stream.encode())
    return path


def moving(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """A shade that wanders and some noise, ``uint8 [t h w 3]``."""
    ramp = np.indices((frames, height, width)).sum(0)[..., None] * [3, 2, 1]
    return ((ramp + np.random.default_rng(seed).integers(0, 16, (frames, height, width, 3))) % 256).astype(np.uint8)


def jpeg_size(content: bytes, height: int, width: int) -> bytes:
    """A JPEG that claims another size."""
    start = next(at for code in (0xC0, 0xC2) if (at := content.find(bytes([0xFF, code]))) > 0)
    return content[: start + 5] + struct.pack(">2H", height, width) + content[start + 9 :]
