"""Encoders against torchvision and transformers on the same weights, and where those weights come from."""

import json
import pickle
import socket
from pathlib import Path
from urllib.error import URLError

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, processors
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.trainers import UnigramTrainer
from torch import nn
from torch.nn import functional as F
from torchvision import models
from torchvision.models import video

from remind import pretrained
from remind.encoders import ENCODERS, features
from remind.encoders.pooling import adaptive_mean, even_grid
from remind.errors import RemindError
from remind.modalities.embedding import EmbeddingShape
from remind.modalities.sequence import SequenceInput, SequenceShape
from remind.modalities.text import TextInput, TextShape, TextTransform
from remind.modalities.volume import VolumeShape
from remind.nn.tokens import lengths_of
from remind.pretrained import T5_RANDOM, load_torchvision, t5_config, t5_tokenizer
from remind.types import Ragged

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
CONFIG = {**T5_RANDOM, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_heads": 4}
TEXTS = ["fever and a dry cough", "no fever", "a cough since three days, and a fever of 39.5 °C", "pain"]


def build(kind, shape, dim=16, **settings):
    return ENCODERS.build(kind, shape, dim, **settings)


def small_vit():
    return models.VisionTransformer(image_size=224, patch_size=16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16)


def small_resnet(zero_init_residual=False):
    return models.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1])


def small_r3d():
    parts = video.resnet
    return parts.VideoResNet(parts.BasicBlock, [parts.Conv3DSimple] * 4, [1, 1, 1, 1], parts.BasicStem)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(models, "vit_b_16", small_vit)
    monkeypatch.setattr(models, "resnet50", small_resnet)
    monkeypatch.setattr(video, "r3d_18", small_r3d)


def lived(network):
    """A network whose batch norms have seen something, in evaluation mode."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
    return network.eval()


# ---------------------------------------------------------------------------------------------------------- parity


def hooked(network, layer, images):
    """What a layer of torchvision's own forward pass gives."""
    seen = []
    with layer.register_forward_hook(lambda module, inputs, output: seen.append(output)), torch.no_grad():
        network(images)
    return seen[0]


def test_vit_gives_torchvisions_tokens_before_the_head_and_their_means():
    torch.manual_seed(0)
    encoder = build("image", 224, 768, weights="random").eval()
    assert isinstance(encoder.project, nn.Identity)
    with torch.device("meta"):
        reference = models.vit_b_16().eval()
    reference.heads = nn.Identity()
    reference.load_state_dict(encoder.backbone.vit.state_dict(), assign=True)
    images = torch.randn(2, 3, 224, 224)
    expected = hooked(reference, reference.encoder, images)
    assert expected.shape == (2, 197, 768)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images).values, expected, **CLOSE)
        encoder.backbone.pool, encoder.backbone.num_tokens = nn.AdaptiveAvgPool2d(even_grid(4, (14, 14))), 4
        quarters = expected[:, 1:].reshape(2, 2, 7, 2, 7, 768).mean((2, 4)).flatten(1, 2)
        torch.testing.assert_close(encoder(images).values, quarters, **CLOSE)


@pytest.mark.parametrize(("size", "tokens"), [(64, 1), (100, 4), (70, 6)])
def test_resnet_50_gives_torchvisions_map_pooled(size, tokens):
    torch.manual_seed(0)
    encoder = build("image", size, 512, backbone="resnet50", weights="random", tokens=tokens)
    reference = lived(models.resnet50())
    encoder.backbone.network.load_state_dict(reference.state_dict(), strict=False)
    encoder.eval()
    images = torch.randn(2, 3, size, size)
    grid = {1: (1, 1), 4: (2, 2), 6: (2, 3)}[tokens]
    with torch.no_grad():
        cells = hooked(reference, reference.layer4, images)
        expected = F.adaptive_avg_pool2d(cells, grid).flatten(2).transpose(1, 2)
        found = encoder.backbone(images)
        torch.testing.assert_close(found.values, expected, **CLOSE)
        if tokens == 1:
            torch.testing.assert_close(found.values[:, 0], hooked(reference, reference.avgpool, images).flatten(1))
        assert isinstance(encoder.project, nn.Linear)
        assert encoder.project.weight.shape == (512, 2048)
        assert torch.equal(encoder(found).values, encoder.project(found.values))
        assert encoder.project.bias.abs().max() == 0


@pytest.mark.parametrize(("frames", "size", "tokens"), [(8, 32, 1), (16, 48, 2), (12, 40, 6)])
def test_r3d_18_gives_torchvisions_map_pooled(frames, size, tokens):
    torch.manual_seed(0)
    encoder = build("volume", VolumeShape(frames, size), 24, weights="random", tokens=tokens)
    reference = lived(video.r3d_18())
    encoder.backbone.network.load_state_dict(reference.state_dict(), strict=False)
    encoder.eval()
    volumes = torch.randn(2, 3, frames, size, size)
    grid = {1: (1, 1, 1), 2: (1, 1, 2), 6: (1, 2, 3)}[tokens]
    with torch.no_grad():
        expected = F.adaptive_avg_pool3d(hooked(reference, reference.layer4, volumes), grid).flatten(2).transpose(1, 2)
        found = encoder.backbone(volumes)
        torch.testing.assert_close(found.values, expected, **CLOSE)
        if tokens == 1:
            torch.testing.assert_close(found.values[:, 0], hooked(reference, reference.avgpool, volumes).flatten(1))
        assert [tuple(part.weight.shape) for part in encoder.project] == [(512, 512), (24, 512)]
        assert torch.equal(encoder(found).values, encoder.project(found.values))


def texts(*lengths_):
    length = torch.tensor(lengths_)
    return TextInput(torch.randint(3, 259, (len(lengths_), max(lengths_))), length)


def alone(inputs, i):
    return inputs.ids[i : i + 1, : inputs.length[i]]


@pytest.fixture
def t5():
    """transformers' own encoder, and ours with its weights."""
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    reference = T5EncoderModel(T5Config(**CONFIG)).eval()

    def make(dim=16, **settings):
        encoder = build("text", TextShape(CONFIG, 12), dim, weights="random", **settings)
        encoder.backbone.stack.load_state_dict(reference.encoder.state_dict())
        return encoder.eval()

    return reference, make


def test_t5_gives_transformers_tokens_of_each_text_alone(t5):
    reference, make = t5
    encoder, inputs = make(), texts(9, 1, 12, 4)
    assert isinstance(encoder.project, nn.Identity)
    tokens = encoder(inputs)
    assert encoder.num_tokens == 12
    assert tokens.length.tolist() == [9, 1, 12, 4]
    for i, length in enumerate(inputs.length):
        expected = reference(input_ids=alone(inputs, i)).last_hidden_state
        torch.testing.assert_close(tokens.values[i : i + 1, :length], expected, **CLOSE)


def test_pooled_t5_is_torchs_adaptive_mean_of_each_text_alone_even_of_short_ones(t5):
    reference, make = t5
    encoder, inputs = make(tokens=5), texts(9, 1, 12, 4)
    tokens = encoder(inputs)
    assert tokens.length is None
    assert tokens.values.shape == (4, 5, 16)
    for i in range(4):
        whole = reference(input_ids=alone(inputs, i)).last_hidden_state
        expected = F.adaptive_avg_pool1d(whole.transpose(1, 2), 5).transpose(1, 2)
        torch.testing.assert_close(tokens.values[i : i + 1], expected, **CLOSE)


# ---------------------------------------------------------------------------------------------- weights of torchvision

KINDS = {
    "vit_b_16": ("image", 224, {}, small_vit, (3, 224, 224)),
    "resnet50": ("image", 40, {"backbone": "resnet50"}, small_resnet, (3, 40, 40)),
    "r3d_18": ("volume", VolumeShape(8, 32), {}, small_r3d, (3, 8, 32, 32)),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("name", KINDS)
def test_a_local_file_with_its_class_head_gives_the_same_tokens(name, suffix, small, tmp_path):
    kind, shape, settings, make, size = KINDS[name]
    reference, path = lived(make()), tmp_path / f"mine{suffix}"
    state = reference.state_dict()
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    encoder = build(kind, shape, weights=str(path), **settings).eval()
    own = next(iter(encoder.backbone.children()))
    assert own.state_dict().keys() == {key for key in state if not key.startswith(("heads.", "fc."))}
    for key, tensor in own.state_dict().items():
        assert torch.equal(tensor, state[key]), key
    inputs = torch.randn(2, *size)
    reference.heads = reference.fc = nn.Identity()
    torch.testing.assert_close(encoder.backbone(inputs).values[:, 0], reference(inputs), **CLOSE)


def refused(call, *said):
    """The sentence of a RemindError, which must hold these words."""
    with pytest.raises(RemindError) as error:
        call()
    for part in said:
        assert str(part) in str(error.value), f"{part!r} is not said in: {error.value}"
    return str(error.value)


@pytest.fixture
def image(small):
    """Build an image encoder from some weights."""
    return lambda weights: build("image", 224, weights=str(weights))


def test_files_that_do_not_fit_are_refused_with_what_is_wrong(image, tmp_path):
    state = small_vit().state_dict()

    def saved(name, changed):
        save_file(changed, tmp_path / name)
        return tmp_path / name

    lacking = saved("lacking.safetensors", {k: v for k, v in state.items() if ".ln_1." not in k})
    refused(
        lambda: image(lacking),
        *(lacking, "vit_b_16", "it lacks encoder.layers.encoder_layer_0.ln_1.weight", "and 1 more", "random"),
    )
    stray = saved("stray.safetensors", {**state, "extra.weight": torch.zeros(1)})
    refused(lambda: image(stray), stray, "unknown extra.weight", "encoders.image.weights")
    shaped = saved("shaped.safetensors", {**state, "class_token": torch.zeros(1, 1, 9)})
    refused(lambda: image(shaped), shaped, "class_token, (1, 1, 9) instead of (1, 1, 8)")
    other = saved("other.safetensors", small_resnet().state_dict())
    refused(lambda: image(other), other, "it lacks class_token", "it has unknown", "more; set")


def test_files_that_are_no_weights_are_refused(image, tmp_path):
    refused(lambda: image(tmp_path / "absent.pth"), "encoders.image.weights", tmp_path / "absent.pth")
    for name in ("noise.pth", "noise.safetensors"):
        (tmp_path / name).write_bytes(b"canary" * 20)
        refused(lambda name=name: image(tmp_path / name), tmp_path / name, "is no weights file", "tensors by name")
    (tmp_path / "empty.pt").write_bytes(b"")
    refused(lambda: image(tmp_path / "empty.pt"), "is no weights file")
    half = tmp_path / "half.pth"
    torch.save(small_vit().state_dict(), half)
    half.write_bytes(half.read_bytes()[:4000])
    refused(lambda: image(half), half, "is no weights file")
    for held in ([torch.zeros(2)], {"epoch": 3, "class_token": torch.zeros(1)}, {1: torch.zeros(1)}):
        torch.save(held, tmp_path / "held.pth")
        refused(lambda: image(tmp_path / "held.pth"), "holds other things than tensors by name")


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_with_a_payload_is_refused_and_does_not_run(image, tmp_path):
    ran = tmp_path / "ran"
    torch.save({"class_token": Payload(ran)}, tmp_path / "zipped.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"class_token": Payload(ran)}))
    for name in ("zipped.pth", "plain.pth"):
        refused(lambda name=name: image(tmp_path / name), "is no weights file", "is not run")
    assert not ran.exists()


@pytest.mark.parametrize(
    ("kind", "shape", "settings", "known"),
    [
        ("image", 224, {"weights": "kinetics"}, "imagenet, random"),
        ("image", 64, {"weights": "imagnet", "backbone": "resnet50"}, "imagenet, random"),
        ("volume", VolumeShape(8, 32), {"weights": "imagenet"}, "kinetics, random"),
    ],
)
def test_weights_of_another_kind_are_refused_with_those_there_are(kind, shape, settings, known, small):
    refused(lambda: build(kind, shape, **settings), settings["weights"], f"encoders.{kind}.weights", known, ".pth")


@pytest.fixture
def server(monkeypatch, tmp_path):
    """An empty cache, and what is done in place of a download."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    calls = []

    def answer(does):
        def download(url, path, hash_prefix=None, progress=True):
            calls.append((url, path, hash_prefix, socket.getdefaulttimeout()))
            does(Path(path))

        monkeypatch.setattr(torch.hub, "download_url_to_file", download)
        return calls

    return answer


def raising(error):
    def does(path):
        raise error

    return does


URL = "https://download.pytorch.org/models/vit_b_16-c867db91.pth"


@pytest.mark.parametrize(
    "error",
    [
        URLError("no route"),
        TimeoutError("no route"),
        OSError("no route"),
        RuntimeError("invalid hash value: no route"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_where_there_is_no_network_the_url_and_the_place_of_the_file_are_said(error, image, server, tmp_path):
    calls = server(raising(error))
    path = tmp_path / "hub" / "checkpoints" / "vit_b_16-c867db91.pth"
    refused(lambda: image("imagenet"), URL, f"put it at {path}", "no route", "encoders.image.weights", "random")
    assert calls == [(URL, str(path), "c867db91", pretrained.PATIENCE)]
    assert socket.getdefaulttimeout() is None


def test_a_damaged_file_in_the_cache_is_named(image, server, tmp_path):
    server(lambda path: path.write_bytes(b"canary"))
    path = tmp_path / "hub" / "checkpoints" / "vit_b_16-c867db91.pth"
    for _ in range(2):  # as it came, and as it lies there
        refused(lambda: image("imagenet"), path, "damaged", "delete it", "encoders.image.weights", "random")


def test_a_download_with_a_payload_does_not_run(image, server, tmp_path):
    server(lambda path: torch.save({"class_token": Payload(tmp_path / "ran")}, path))
    refused(lambda: image("imagenet"), "damaged", "delete it")
    assert not (tmp_path / "ran").exists()


def test_a_download_is_loaded_and_nothing_is_written_to_stdout(image, server, capsys):
    reference = small_vit()
    calls = server(lambda path: torch.save(reference.state_dict(), path))
    for _ in range(2):
        encoder = image("imagenet")
        assert torch.equal(encoder.backbone.vit.conv_proj.weight, reference.conv_proj.weight)
    assert len(calls) == 1
    assert capsys.readouterr().out == ""


def test_a_silent_server_is_not_waited_for(image, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setattr(pretrained, "PATIENCE", 0.1)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/vit_b_16-c867db91.pth"
        monkeypatch.setattr(models.ViT_B_16_Weights.IMAGENET1K_V1.value, "url", url)
        refused(lambda: image("imagenet"), url, "timed out")


def test_every_name_of_weights_is_one_torchvision_has():
    for architecture, known in pretrained.TORCHVISION.items():
        for name in known.values():
            assert models.get_weight(name) in models.get_model_weights(architecture)


def test_batch_norms_without_a_count_of_batches_load():
    """torchvision's older files have none."""
    state = {key: value for key, value in small_resnet().state_dict().items() if "num_batches" not in key}
    network = small_resnet()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "_read", lambda path, kind: state)
        network.fc = nn.Identity()
        load_torchvision(network, "old.pth", "resnet50", "image")
    assert torch.equal(network.conv1.weight, state["conv1.weight"])


# ------------------------------------------------------------------------------------------------------ weights of a T5


def trained_tokenizer():
    """A tokenizer as T5's: unigrams, the end mark last."""
    tokenizer = Tokenizer(Unigram())
    tokenizer.pre_tokenizer = Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 5, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


@pytest.fixture
def t5_folder(tmp_path):
    """A whole T5, decoder and all, as transformers saves it."""
    from transformers import T5Config, T5ForConditionalGeneration

    folder, tokenizer = tmp_path / "my-t5", trained_tokenizer()
    config = {**CONFIG, "vocab_size": tokenizer.get_vocab_size(), "feed_forward_proj": "relu"}
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**config, num_decoder_layers=1, decoder_start_token_id=0)).eval()
    model.save_pretrained(folder)
    whole = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.enable_truncation(3)  # files may say so; how long a text may be is ours to say
    tokenizer.enable_padding(length=90)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder, model, whole


def test_a_folder_of_transformers_gives_the_same_ids_and_tokens(t5_folder, capfd):
    from transformers import PreTrainedTokenizerFast

    folder, model, whole = t5_folder
    capfd.readouterr()
    config, tokenizer = t5_config(str(folder)), t5_tokenizer(str(folder))
    assert json.loads(json.dumps(config)) == config
    assert config.keys() == T5_RANDOM.keys()
    transform = TextTransform(config, tokenizer, limit=100)
    theirs = PreTrainedTokenizerFast(tokenizer_object=whole)
    ids = [transform.ids(text) for text in TEXTS]
    assert ids == [theirs(text).input_ids for text in TEXTS]
    assert all(row[-1] == 1 for row in ids)

    encoder = build("text", transform.shape, 16, weights=str(folder)).eval()
    length = torch.tensor([len(row) for row in ids])
    padded = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in ids], batch_first=True)
    tokens = encoder(TextInput(padded, length))
    for i, row in enumerate(ids):
        expected = model.get_encoder()(input_ids=torch.tensor([row])).last_hidden_state[0]
        torch.testing.assert_close(tokens.values[i, : len(row)], expected, **CLOSE)
    assert capfd.readouterr() == ("", "")
    with torch.no_grad():
        changed = build("text", transform.shape, 16, weights="random").eval()(TextInput(padded, length))
    assert not torch.allclose(changed.values, tokens.values)


def test_an_mt5_is_a_t5_and_others_are_not(t5_folder):
    folder, *_ = t5_folder
    path = folder / "config.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "model_type": "mt5"}))
    assert t5_config(str(folder))["d_model"] == 16
    for other in ("umt5", "bert", None):
        path.write_text(json.dumps({**document, "model_type": other}))
        refused(lambda: t5_config(str(folder)), path, repr(other), "T5, FLAN-T5, mT5 or ByT5")
    path.write_text(json.dumps({**document, "d_model": "wide"}))
    refused(lambda: t5_config(str(folder)), path, "d_model")
    for text in ("[1]", "{"):
        path.write_text(text)
        refused(lambda: t5_config(str(folder)), path, "fetch it again")
    path.unlink()
    refused(lambda: t5_config(str(folder)), path, "is missing", "model.safetensors")


def test_damaged_and_mismatched_t5_folders_are_refused(t5_folder, capfd):
    folder, *_ = t5_folder
    shape = TextShape(t5_config(str(folder)), 40)
    weights = str(folder)
    wider = TextShape({**shape.config, "d_ff": 48}, 40)
    refused(lambda: build("text", wider, weights=weights), folder, "model.safetensors", "fetch both again")
    capfd.readouterr()

    save_file({"other.weight": torch.zeros(2)}, folder / "model.safetensors")
    refused(lambda: build("text", shape, weights=weights), folder, "it lacks", "more; fetch it again")
    (folder / "model.safetensors").write_bytes(b"canary")
    refused(lambda: build("text", shape, weights=weights), folder, "damaged")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(lambda: build("text", shape, weights=weights), folder, "has no model.safetensors", "save_pretrained")
    assert capfd.readouterr() == ("", "")

    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**document, "vocab_size": 10}))
    refused(lambda: t5_tokenizer(weights), folder, "more tokens than config.json's 10")
    (folder / "tokenizer.json").write_text("{}")
    refused(lambda: t5_tokenizer(weights), folder, "tokenizer cannot be read")
    (folder / "tokenizer.json").unlink()
    refused(lambda: t5_tokenizer(weights), folder, "has no tokenizer.json", "spiece.model")
    (folder / "spiece.model").write_bytes(b"canary")
    refused(lambda: t5_tokenizer(weights), folder, "tokenizer cannot be read", "sentencepiece and protobuf")


def test_byt5_and_the_untrained_t5_read_bytes_as_transformers_does(t5_folder):
    from transformers import ByT5Tokenizer

    folder, *_ = t5_folder
    theirs = ByT5Tokenizer()
    (folder / "tokenizer.json").unlink()
    theirs.save_pretrained(folder)
    assert not (folder / "tokenizer.json").exists()
    assert t5_tokenizer(str(folder)) is t5_tokenizer("random") is None
    transform = TextTransform(t5_config("random"), None, limit=100)
    assert transform.config["vocab_size"] == len(theirs) + theirs.offset - 3  # bytes, the special ones, 125 sentinels
    for text in (*TEXTS, "ä 漢字 \U0001f912", "a\nb\x00"):
        assert transform.ids(text) == theirs(text).input_ids


@pytest.mark.parametrize("call", [t5_config, t5_tokenizer])
def test_without_the_hub_the_files_and_their_place_are_said(call, monkeypatch):
    def offline(name, **_):
        raise huggingface_hub.errors.LocalEntryNotFoundError(f"{name}: no route\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    sentence = refused(
        lambda: call("google-t5/t5-base"),
        *("google-t5/t5-base", "no route", "config.json", "tokenizer.json", "model.safetensors"),
        *("https://huggingface.co/google-t5/t5-base", "encoders.text.weights=t5-base", "random"),
    )
    assert "\n" not in sentence
    for path in ("./absent", "/no/such/folder"):
        refused(lambda path=path: call(path), "there is no folder", Path(path), "model.safetensors")


def test_the_hub_is_asked_for_no_pickle(monkeypatch, t5_folder):
    asked = {}

    def cached(name, **settings):
        asked.update(settings, name=name)
        return str(t5_folder[0])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    shape = TextShape(t5_config("google-t5/t5-base"), 9)
    build("text", shape, weights="google-t5/t5-base")
    assert asked["name"] == "google-t5/t5-base"
    assert not any(
        name.endswith((".bin", ".py", "*")) and name != "model*.safetensors*" for name in asked["allow_patterns"]
    )


# ---------------------------------------------------------------------------------------------------------- properties

FROZEN = {
    "vit": lambda: (build("image", 224, weights="random", frozen=True), torch.randn(3, 3, 224, 224)),
    "vit pooled": lambda: (build("image", 224, weights="random", frozen=True, tokens=4), torch.randn(3, 3, 224, 224)),
    "resnet": lambda: (
        build("image", 40, backbone="resnet50", weights="random", frozen=True),
        torch.randn(3, 3, 40, 40),
    ),
    "r3d": lambda: (build("volume", VolumeShape(8, 32), weights="random", frozen=True), torch.randn(3, 3, 8, 32, 32)),
    "t5": lambda: (build("text", TextShape(CONFIG, 12), 24, weights="random", frozen=True), texts(3, 12, 7)),
    "t5 pooled": lambda: (
        build("text", TextShape(CONFIG, 12), 24, weights="random", frozen=True, tokens=4),
        texts(3, 12, 7),
    ),
}


def take(inputs, chosen):
    return type(inputs)(*(part[chosen] for part in inputs)) if isinstance(inputs, tuple) else inputs[chosen]


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_backbone_never_changes_and_gives_the_same_bits_in_any_batch(name, small):
    encoder, inputs = FROZEN[name]()
    encoder.learn(True)
    encoder.prepare()
    before = {key: value.clone() for key, value in encoder.backbone.state_dict().items()}
    together = encoder(inputs)
    together.values.square().sum().backward()
    assert all(parameter.grad is None for parameter in encoder.backbone.parameters())
    assert all(parameter.grad is not None for parameter in encoder.project.parameters())
    for key, value in encoder.backbone.state_dict().items():
        assert torch.equal(value, before[key]), key

    kept = features(encoder.backbone, inputs)
    for chosen in ([0], [1], [2], [2, 0], [0, 2, 1]):
        some = features(encoder.backbone, take(inputs, chosen))
        for place, row in enumerate(chosen):
            length = lengths_of(kept)[row]
            assert lengths_of(some)[place] == length
            assert torch.equal(some.values[place, :length], kept.values[row, :length])
    encoder.backbone.train(False)
    assert torch.equal(features(encoder.backbone, inputs).values, kept.values)


def test_a_backbone_that_learns_trains_with_one_sample_however_small(small):
    for kind, shape, settings, size in (
        ("image", 33, {"backbone": "resnet50"}, (3, 33, 33)),
        ("volume", VolumeShape(4, 17), {}, (3, 4, 17, 17)),
        ("volume", VolumeShape(9, 8), {}, (3, 9, 8, 8)),
    ):
        encoder = build(kind, shape, weights="random", **settings)
        encoder(torch.randn(1, *size)).values.sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("kind", "shape", "settings", "said"),
    [
        ("image", 256, {}, ("224", "256", "resnet50")),
        ("image", 64, {"backbone": "resnet50", "tokens": 3}, ("2 x 2 cells", "3 tokens")),
        ("image", 224, {"tokens": 17}, ("14 x 14 cells", "17 tokens")),
        ("volume", VolumeShape(16, 32), {"tokens": 16}, ("2 x 2 x 2 cells", "16 tokens")),
    ],
)
def test_sizes_that_cannot_be_are_refused_with_a_sentence(kind, shape, settings, said, small):
    refused(lambda: build(kind, shape, weights="random", **settings), kind, *said)


def test_an_even_grid_is_as_even_as_the_map_allows():
    assert even_grid(4, (14, 14)) == (2, 2)
    assert even_grid(6, (14, 14)) == (2, 3)
    assert even_grid(13, (14, 14)) == (1, 13)
    assert even_grid(196, (14, 14)) == (14, 14)
    assert even_grid(8, (2, 14, 14)) == (2, 2, 2)
    assert even_grid(27, (2, 14, 14)) == (1, 3, 9)
    assert even_grid(4, (2, 14, 14)) == (1, 2, 2)


def test_an_adaptive_mean_is_blind_to_padding():
    values = torch.randn(3, 9, 4)
    length = torch.tensor([9, 2, 5])
    kept = adaptive_mean(Ragged(values, length), 3)
    noise = torch.where((torch.arange(9) < length[:, None])[..., None], values, torch.randn(3, 9, 4))
    torch.testing.assert_close(adaptive_mean(Ragged(noise, length), 3), kept)
    whole = F.adaptive_avg_pool1d(values.transpose(1, 2), 3).transpose(1, 2)
    torch.testing.assert_close(adaptive_mean(Ragged(values), 3), whole)


@pytest.mark.parametrize("settings", [{}, {"tokens": 3}], ids=["whole", "pooled"])
def test_padding_never_matters_to_a_text(t5, settings):
    _, make = t5
    encoder, inputs = make(**settings), texts(5, 9, 2)
    kept = encoder(inputs)
    wider = TextInput(F.pad(inputs.ids, (0, 3), value=7), inputs.length)
    assert torch.equal(encoder(wider).values, kept.values)
    real = torch.arange(9) < inputs.length[:, None]
    noise = TextInput(torch.where(real, inputs.ids, 200), inputs.length)
    again = encoder(noise)
    for i, length in enumerate(lengths_of(kept).tolist()):
        torch.testing.assert_close(again.values[i, :length], kept.values[i, :length])


def events(*lengths_, variables=6):
    size = (len(lengths_), max(lengths_))
    time = torch.rand(size).sort(1).values
    return SequenceInput(time, torch.randint(variables, size), torch.randn(size), torch.tensor(lengths_))


@pytest.fixture
def sequence():
    torch.manual_seed(0)
    return build("sequence", SequenceShape(6), 16).eval()


def test_padding_never_matters_to_a_sequence(sequence):
    inputs = events(5, 8, 1)
    kept = sequence(inputs)
    assert kept.length is None
    assert kept.values.shape == (3, 4, 16)
    time, variable, value, length = inputs
    wider = SequenceInput(*(F.pad(part, (0, 1), value=3) for part in (time, variable, value)), length)
    assert torch.equal(sequence(wider).values, kept.values)
    padding = torch.arange(8) >= length[:, None]
    noise = inputs._replace(time=time.masked_fill(padding, 9.0), value=value.masked_fill(padding, -9.0))
    torch.testing.assert_close(sequence(noise).values, kept.values, **CLOSE)


def test_events_are_a_set_and_every_part_of_one_matters(sequence):
    inputs = events(8, 8)
    kept = sequence(inputs).values
    order = torch.randperm(8)
    shuffled = SequenceInput(*(part[:, order] for part in inputs[:3]), inputs.length)
    torch.testing.assert_close(sequence(shuffled).values, kept, **CLOSE)
    for part in ("time", "variable", "value"):
        changed = getattr(inputs, part).clone()
        changed[0, 3] = (changed[0, 3] + 1) % 6
        found = sequence(inputs._replace(**{part: changed})).values
        assert not torch.allclose(found[0], kept[0], atol=1e-4), part
        torch.testing.assert_close(found[1], kept[1], **CLOSE)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("longest", [0, 4])
def test_a_sequence_of_padding_only_is_finite_and_harms_no_other(sequence, longest, grad):
    inputs = events(4, 4)._replace(length=torch.tensor([0, longest]))
    with torch.set_grad_enabled(grad):
        values = sequence(inputs).values
    assert values.isfinite().all()
    if grad:
        values.sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in sequence.parameters())
    if longest:
        only = sequence(SequenceInput(*(part[1:] for part in inputs))).values[0]
        torch.testing.assert_close(values[1], only, **CLOSE)


def test_layers_of_a_sequence_do_not_start_alike(sequence):
    one, two = (layer.linear1.weight for layer in sequence.backbone.layers)
    assert not torch.equal(one, two)
    refused(lambda: build("sequence", SequenceShape(6), width=64, heads=7), "width (64)", "heads (7)")


def test_embeddings_of_the_right_width_pass_as_they_are_and_others_are_projected():
    inputs = Ragged(torch.randn(2, 3, 16), torch.tensor([3, 1]))
    encoder = build("embedding", EmbeddingShape(3, 16), 16)
    assert not list(encoder.parameters())
    assert encoder.num_tokens == 3
    tokens = encoder(inputs)
    assert torch.equal(tokens.values, inputs.values)
    assert torch.equal(tokens.length, inputs.length)

    encoder = build("embedding", EmbeddingShape(3, 16), 8)
    norm, linear = encoder.project
    expected = F.linear(F.layer_norm(inputs.values, (16,)), linear.weight, linear.bias)
    torch.testing.assert_close(encoder(inputs).values, expected)
    torch.testing.assert_close(encoder(inputs._replace(values=inputs.values * 100)).values, expected, **CLOSE)
    assert isinstance(norm, nn.LayerNorm)
    dropped = build("embedding", EmbeddingShape(3, 16), 16, dropout=0.5)(inputs).values
    assert (dropped == 0).any()
