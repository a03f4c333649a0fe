"""The tutorial does what it says: every block of it, in order, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_every_block_of_the_tutorial_runs(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "tutorial").symlink_to(TUTORIAL)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = []
    for language, title, text in BLOCK.findall((TUTORIAL / "index.md").read_text(encoding="utf-8")):
        if title:
            (tmp_path / title).write_text(text, encoding="utf-8")
        elif language in ("bash", "python"):
            command = ["bash", "-ec", text] if language == "bash" else [sys.executable, "-c", text]
            done = subprocess.run(
                command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{text}\n{done.stderr}"
            said.append(done.stdout)
    everything = "\n".join(said)
    assert "nothing is wrong" in everything
    assert "['benign', 'malignant']" in everything
    assert (tmp_path / "clinic-atlas.png").stat().st_size > 10_000
    held = re.search(r"overall +142 +([\d.]+)", everything[everything.index("runs/remind: test") :])
    assert held is not None
    assert float(held[1]) > 0.85  # the larger class alone is 0.63
    assert float(said[-2].strip()) > 0.85  # the estimator on two of the modalities
