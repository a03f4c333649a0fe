"""Run every benchmark, or those that are named, and write docs/benchmarks.md from the last line of each.

The lines are kept in docs/benchmarks.json, with the scale laws drawn beside it.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
LINES = DOCS / "benchmarks.json"
COMMANDS = (
    "collapsed_tokens.py",
    "collapsed_tokens.py --missing 0 --target 0.95",
    "many_modalities.py",
    "batched_experts.py",
    "batched_experts.py --dim 768",
    "batched_experts.py --dim 768 --against products",
    "group_routing.py",
    "encode_once.py",
    "training_end_to_end.py",
    "precision_and_compile.py",
    "scale_steps.py modalities",
    "scale_steps.py groups",
    "scale_samples.py",
    "million_rows.py",
    "gradient_consistency.py",
    "ehr_scale.py --rows 3000000",
)
PANELS = {  # what a scale law is drawn of: the command, its axes
    "scale_samples.py": ("samples", "epoch_seconds", "seconds an epoch"),
    "scale_steps.py modalities": ("modalities", "step_seconds", "seconds a step"),
    "scale_steps.py groups": ("groups", "step_seconds", "seconds a step"),
}


def main() -> None:
    lines = json.loads(LINES.read_text()) if LINES.exists() else {}
    for command in sys.argv[1:] or COMMANDS:
        script, *words = command.split()
        environment = os.environ | {"THP_MEM_ALLOC_ENABLE": "1"}  # as ``import remind`` sets it; torch may come first
        done = subprocess.run(
            [sys.executable, HERE / script, *words], check=True, stdout=subprocess.PIPE, text=True, env=environment
        )
        lines[command] = json.loads(done.stdout.strip().splitlines()[-1])
        print(lines[command]["claim"], lines[command]["ratio"], flush=True)
        LINES.write_text(json.dumps({key: lines[key] for key in COMMANDS if key in lines}, indent=1) + "\n")
    draw(lines)
    (DOCS / "benchmarks.md").write_text(page(lines))


def page(lines: dict[str, dict[str, Any]]) -> str:
    """The published page."""
    rows = [_row(command, lines[command]) for command in COMMANDS if command in lines]
    text = [
        "# Benchmarks",
        "",
        f"Made by `make bench` with torch {torch.__version__} on {torch.get_num_threads()} threads, "
        f"{platform.machine()}. Larger ratios are better; where two ways to do a thing are compared, they are of "
        "medians of interleaved repeats in one process. What the misses are made of, and what a GPU says: "
        "[Performance](performance.md). The raw medians: `docs/benchmarks.json`.",
        "",
        "| claim | against | ratio | target | met |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "![Cost against samples, modalities and groups](benchmarks-scale.svg)",
        "",
    ]
    if seconds := lines.get("training_end_to_end.py", {}).get("run_seconds"):
        text += [
            "## From a cohort to a finished run",
            "",
            "Seconds on NHANES (6 397 people, the demo's recipe, one thread), reading, both stages and predictions:",
            "",
            "| " + " | ".join(seconds) + " |",
            "|" + "---|" * len(seconds),
            "| " + " | ".join(f"{value:.0f}" for value in seconds.values()) + " |",
            "",
        ]
    return "\n".join(text)


def _row(command: str, line: dict[str, Any]) -> str:
    met = "yes" if line["ratio"] >= line["target"] else "**no**"
    return (
        f"| {line['claim']} (`{command}`) | {line['reference']} | {line['ratio']:.2f} | {line['target']:.2f} | {met} |"
    )


def draw(lines: dict[str, dict[str, Any]]) -> None:
    """The scale laws, on logarithmic axes, with memory below."""
    from matplotlib import pyplot as plt

    found = {command: axes for command, axes in PANELS.items() if command in lines}
    if len(found) < len(PANELS):
        return
    figure, panels = plt.subplots(2, len(found), figsize=(10, 5), layout="constrained", squeeze=False, sharex="col")
    for column, (command, (of, cost, said)) in enumerate(found.items()):
        points, slope = lines[command]["points"], lines[command]["exponent"]
        x = [point[of] for point in points]
        top, bottom = panels[:, column]
        seconds = [point[cost] for point in points]
        top.loglog(x, seconds, "o-", color="#2f6f9f")
        top.set(title=f"{said}: {of}$^{{{slope:.2f}}}$", ylabel=said, ylim=(min(seconds) / 3, max(seconds) * 3))
        mib = [point["mib"] for point in points]
        bottom.semilogx(x, mib, "s--", color="#a05a2c")
        bottom.set(xlabel=of, ylabel="MiB", ylim=(0, 1.1 * max(mib)))
        bottom.set_xticks(x, [f"{value:,}" for value in x])
        bottom.minorticks_off()
    figure.savefig(DOCS / "benchmarks-scale.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
