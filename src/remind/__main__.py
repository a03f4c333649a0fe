"""``python -m remind``."""

from remind.cli import main

main()
