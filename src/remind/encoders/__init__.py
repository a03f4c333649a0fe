"""Encoders: one modality's inputs to ``num_tokens`` tokens of width ``dim``. One file each, listed here by kind."""

from remind.registry import Registry

ENCODERS = Registry(
    "encoder",
    {
        "tabular": "remind.encoders.tabular:TabularEncoder",
        "image": "remind.encoders.image:ImageEncoder",
    },
)
