"""``torch.compile``, where a recipe asks for it."""

import os
import shutil
from contextlib import AbstractContextManager, nullcontext

import torch

from remind.config import TrainSettings
from remind.errors import RemindError
from remind.fusions import Fusion


def compile_fusion(fusion: Fusion) -> bool:
    """Have the fusion compiled when it first runs, once for all widths of a batch. Names stay as they are.

    Returns whether there is anything to compile.

    Raises:
        RemindError: if there is no compiler for what torch writes.
    """
    if (block := fusion.compilable()) is None:
        return False
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        raise RemindError(f"train.compile: there is no C++ compiler ({compiler}) here; install one, or leave it out.")
    block.compile(dynamic=True)
    return True


def uncompiled(settings: TrainSettings) -> AbstractContextManager[None]:
    """Inside, what was compiled runs as it is written: hooks and counters see nothing of compiled code.

    Where nothing was compiled, torch's compiler is not even loaded.
    """
    return torch.compiler.set_stance("force_eager") if settings.compile else nullcontext()
