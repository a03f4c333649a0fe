"""Run every benchmark and write docs/benchmarks.md. Each prints, as its last line, one JSON object."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
SCRIPTS = (
    *("collapsed_tokens.py", "batched_experts.py", "encode_once.py", "million_rows.py", "gradient_consistency.py"),
    "ehr_scale.py",
)


def main() -> None:
    rows = []
    for script in SCRIPTS:
        done = subprocess.run([sys.executable, HERE / script], check=True, capture_output=True, text=True)
        result = json.loads(done.stdout.strip().splitlines()[-1])
        print(result["claim"], result["ratio"])
        met = "yes" if result["ratio"] >= result["target"] else "**no**"
        rows.append(
            f"| {result['claim']} | {result['reference']} | {result['ratio']:.2f} | {result['target']} | {met} |"
        )
    text = "\n".join(
        [
            "# Benchmarks",
            "",
            f"Ratios of medians, interleaved repeats in one process; larger is better. Made by `make bench` with torch "
            f"{torch.__version__} on {torch.get_num_threads()} threads, {platform.machine()}.",
            "",
            "| claim | against | ratio | target | met |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
    (HERE.parent / "docs" / "benchmarks.md").write_text(text)


if __name__ == "__main__":
    main()
