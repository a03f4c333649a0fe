"""Where weights come from, and what is said where they cannot be had.

Nothing that is loaded here can run code: safetensors, or ``torch.load(weights_only=True)``; never remote code.
"""

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from remind.errors import RemindError

# Hugging Face's libraries read these when they are first imported, which happens below, where they are needed.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

RANDOM = "random"  # no weights: the architecture as it was initialised
PATIENCE = 15.0  # seconds without a byte after which a download is given up

TORCHVISION = {  # the names of weights that each architecture of torchvision has
    "vit_b_16": {"imagenet": "ViT_B_16_Weights.IMAGENET1K_V1"},
    "resnet50": {"imagenet": "ResNet50_Weights.IMAGENET1K_V2"},
    "r3d_18": {"kinetics": "R3D_18_Weights.KINETICS400_V1"},
}
SUFFIXES = (".safetensors", ".pth", ".pt")
HEADS = ("heads.", "fc.")  # torchvision's class heads

T5_KINDS = ("t5", "mt5")  # ``model_type``; FLAN-T5 and ByT5 call themselves t5
T5_RANDOM = {  # ByT5's vocabulary (bytes + 3, end 1, padding 0) and gated GELU, small enough to train from nothing
    "vocab_size": 384,
    "d_model": 128,
    "d_kv": 32,
    "d_ff": 512,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.1,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "initializer_factor": 1.0,
}
T5_FIELDS = tuple(T5_RANDOM)  # all that an encoder's architecture depends on
T5_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "spiece.model", "model*.safetensors*"]
T5_NEEDED = "config.json, tokenizer.json (or spiece.model; ByT5: tokenizer_config.json) and model.safetensors"


def load_torchvision(module: nn.Module, weights: str, architecture: str, kind: str) -> None:
    """Put pretrained weights into a backbone; a class head that the file holds is left out.

    Args:
        module: torchvision's network, without its head. On the meta device nothing is loaded.
        weights: ``imagenet`` or ``kinetics``, downloaded by torchvision; ``random`` for none; or a local file.
        architecture: its name in torchvision, a key of ``TORCHVISION``.
        kind: whose encoder it is, for errors.

    Raises:
        RemindError: if there are no such weights, they cannot be had, or do not fit; says what can be done.
    """
    known = TORCHVISION[architecture]
    if weights not in known and weights != RANDOM and not weights.endswith(SUFFIXES):
        raise RemindError(
            f"encoders.{kind}.weights: {architecture} has no weights {weights!r}; there are {', '.join(known)}, "
            f"{RANDOM} and files of {', '.join(SUFFIXES)}."
        )
    if weights == RANDOM or next(module.parameters()).is_meta:
        return
    if weights in known:
        source, state = _download(known[weights], kind)
    else:
        source = Path(weights).expanduser()
        state = _read(source, kind)
    _fit(module, state, architecture, source, kind)


def _download(name: str, kind: str) -> tuple[Path, Any]:
    """What the file of the weights that torchvision calls by this name holds, and where it is kept."""
    from torchvision.models import get_weight

    weights = get_weight(name)
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name
    otherwise = f"Or set encoders.{kind}.weights to the path of such a file, or to {RANDOM}."
    try:
        with _patience(), redirect_stdout(sys.stderr):
            shown = sys.stderr.isatty()
            state = weights.get_state_dict(progress=shown, check_hash=True, weights_only=True, map_location="cpu")
    except Exception as error:  # a network fails in many ways, a damaged pickle in any
        if path.exists():
            raise RemindError(f"{path}: is damaged ({_reason(error)}); delete it and try again. {otherwise}") from None
        raise RemindError(
            f"{weights.url} cannot be downloaded ({_reason(error)}); where there is a network, fetch it, and put it at "
            f"{path}. {otherwise}"
        ) from None
    return path, state


@contextmanager
def _patience() -> Iterator[None]:
    """Give up on a silent server: torch.hub sets no timeout of its own, but the sockets it opens heed this one.

    Name resolution has the system's own timeout.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before or PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read(path: Path, kind: str) -> Any:
    """What a local file holds."""
    if not path.is_file():
        raise RemindError(f"encoders.{kind}.weights: there is no file {path}; mend the path.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way
        raise RemindError(
            f"{path}: is no weights file ({_reason(error)}); encoders.{kind}.weights needs tensors by name. A pickle "
            "that holds anything else is not run."
        ) from None


def _fit(module: nn.Module, state: Any, architecture: str, source: Path, kind: str) -> None:
    """Load what a file held: all of it, each tensor where it belongs."""
    mend = f"set encoders.{kind}.weights to a file of torchvision's {architecture}, or to {RANDOM}."
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in state.items()
    ):
        raise RemindError(f"{source}: holds other things than tensors by name; {mend}")
    given = {key: tensor for key, tensor in state.items() if not key.startswith(HEADS)}
    wanted = module.state_dict()
    findings = {
        "it lacks": [key for key in wanted if key not in given and not key.endswith("num_batches_tracked")],
        "it has unknown": [key for key in given if key not in wanted],
        "it has another shape of": [
            f"{key}, {tuple(given[key].shape)} instead of {tuple(tensor.shape)}"
            for key, tensor in wanted.items()
            if key in given and given[key].shape != tensor.shape
        ],
    }
    if any(findings.values()):
        said = "; ".join(f"{what} {_first(found)}" for what, found in findings.items() if found)
        raise RemindError(f"{source}: does not fit {architecture}: {said}; {mend}")
    module.load_state_dict(given, strict=False)


def t5_config(weights: str) -> dict[str, Any]:
    """The architecture of a T5 encoder, as plain data.

    Args:
        weights: a name on the Hugging Face hub, a local folder, or ``random`` for a small one that reads bytes.

    Raises:
        RemindError: if it cannot be had, or is no T5.
    """
    if weights == RANDOM:
        return dict(T5_RANDOM)
    path = _t5_folder(weights) / "config.json"
    document = _json(path)
    if (kind := document.get("model_type")) not in T5_KINDS:
        raise RemindError(
            f"{path}: is of a model of type {kind!r}; encoders.text.weights needs a T5, FLAN-T5, mT5 or ByT5."
        )
    from transformers import MT5Config, T5Config

    try:
        config = (T5Config if kind == "t5" else MT5Config).from_dict(document)
    except Exception as error:  # transformers' own checks
        raise RemindError(f"{path}: is no T5's ({_reason(error)}); fetch it again.") from None
    return {field: getattr(config, field) for field in T5_FIELDS}


def t5_tokenizer(weights: str) -> str | None:
    """The tokenizer of a T5, as the JSON that ``tokenizers`` reads; None where it reads bytes, as ByT5 does.

    Raises:
        RemindError: if it cannot be had, or knows more tokens than the model.
    """
    if weights == RANDOM:
        return None
    folder = _t5_folder(weights)
    fast, pieces, about = (folder / name for name in ("tokenizer.json", "spiece.model", "tokenizer_config.json"))
    if not fast.is_file() and not pieces.is_file():
        if about.is_file() and _json(about).get("tokenizer_class") == "ByT5Tokenizer":
            return None
        raise RemindError(f"{folder}: has no tokenizer.json; encoders.text.weights needs {T5_NEEDED}.")
    from tokenizers import Tokenizer
    from transformers import T5Tokenizer

    _quiet()
    try:
        if fast.is_file():
            tokenizer = Tokenizer.from_file(str(fast))
        else:
            tokenizer = T5Tokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    except Exception as error:  # tokenizers raises plain Exceptions
        hint = "" if fast.is_file() else "; spiece.model needs the packages sentencepiece and protobuf"
        raise RemindError(f"{folder}: its tokenizer cannot be read ({_reason(error)}){hint}.") from None
    if max(tokenizer.get_vocab().values()) >= (size := t5_config(weights)["vocab_size"]):
        raise RemindError(f"{folder}: its tokenizer knows more tokens than config.json's {size}; fetch both again.")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer.to_str()


def load_t5(model: nn.Module, weights: str) -> None:
    """Put pretrained weights into a ``T5EncoderModel``; a decoder that the file holds is left out.

    Args:
        model: of the architecture ``t5_config(weights)``. On the meta device nothing is loaded.
        weights: as for ``t5_config``; ``random`` loads nothing.

    Raises:
        RemindError: if they cannot be had or do not fit.
    """
    if weights == RANDOM or next(model.parameters()).is_meta:
        return
    folder = _t5_folder(weights)
    if not list(folder.glob("model*.safetensors")):
        raise RemindError(
            f"{folder}: has no model.safetensors; encoders.text.weights needs {T5_NEEDED}. Pickled weights are not "
            "read; transformers converts them: T5EncoderModel.from_pretrained(...).save_pretrained(...)."
        )
    from transformers import T5Config, T5EncoderModel

    _quiet()
    config = T5Config(**{field: getattr(model.config, field) for field in T5_FIELDS})
    try:
        loaded: Any = T5EncoderModel.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # damaged files and other shapes, each in its own way
        raise RemindError(
            f"{folder}: its model.safetensors is not that of its config.json, or damaged ({_reason(error)}); fetch "
            "both again."
        ) from None
    pretrained, found = loaded
    if missing := sorted(found["missing_keys"]):
        raise RemindError(f"{folder}: its model.safetensors is not a T5's: it lacks {_first(missing)}; fetch it again.")
    model.load_state_dict(pretrained.state_dict())


def _t5_folder(weights: str) -> Path:
    """The folder of a T5: a local one, or that of the hub's cache, filled where it is not."""
    local = Path(weights).expanduser()
    if local.is_dir():
        return local
    if weights.startswith((".", "/", "~")) or weights.count("/") > 1:
        raise RemindError(f"encoders.text.weights: there is no folder {local}; it needs {T5_NEEDED}.")
    from huggingface_hub import snapshot_download

    _quiet()
    try:
        return Path(snapshot_download(weights, allow_patterns=T5_FILES))
    except Exception as error:  # a network fails in many ways
        raise RemindError(
            f"{weights!r} cannot be had from the Hugging Face hub ({_reason(error)}); where there is a network, fetch "
            f"{T5_NEEDED} from https://huggingface.co/{weights}/tree/main into a folder, say {local.name}, and set "
            f"encoders.text.weights={local.name}. Or set it to {RANDOM}."
        ) from None


def _quiet() -> None:
    """Keep Hugging Face's libraries from printing warnings and progress bars."""
    import huggingface_hub
    import transformers

    huggingface_hub.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise RemindError(f"{path}: is missing; encoders.text.weights needs {T5_NEEDED}.") from None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise RemindError(f"{path}: is not the JSON that was expected; fetch it again.")
    return document


def _first(found: list[str], *, shown: int = 3) -> str:
    """The first few names of a list."""
    return ", ".join(found[:shown]) + (f" and {len(found) - shown} more" if len(found) > shown else "")


def _reason(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:;")
