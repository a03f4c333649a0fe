"""Users' words where they are read."""

import unicodedata

STEERING = ("Cc", "Cf", "Zl", "Zp")  # control and format characters, ends of lines and paragraphs


def shown(text: str, *, but: str = "") -> str:
    """A user's word on a page: what would steer the text rather than be read is written as its code."""
    return "".join(
        f"\\u{ord(c):04x}" if unicodedata.category(c) in STEERING and c not in but else c for c in text
    )  # fmt: skip
