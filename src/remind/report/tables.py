"""Results as tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

METRICS = ("accuracy", "macro_f1", "macro_auroc")
HEADS = ("acc.", "F1", "AUROC")
PLAIN = {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "title_justify": "left", "caption_justify": "left"}


def metrics_table(
    title: str, modalities: Sequence[str], runs: Mapping[str, Mapping[str, Any]], *, most: int = 20
) -> Table:
    """Rows: each combination with its n and share, then head, tail, unseen, worst, overall. A column for each run.

    Shows the ``most`` frequent combinations; what is not shown is counted, and is in the summary rows. Of a single run
    95 % intervals stand below the scores.
    """
    first, alone = next(iter(runs.values())), len(runs) == 1
    below = "; below scores their 95 % intervals" if alone else ""
    table = Table(title=Text(title), caption=f"* fewer than 10 patients: shown, not judged{below}", **PLAIN)
    table.add_column("combination", overflow="fold", min_width=16)
    for heading in ("n", "share", ""):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for name in runs:
        table.add_column(Text(name) + "\n" + "".join(h.ljust(10 if alone else 6) for h in HEADS), no_wrap=True)
    lines = {name: {line["combination"]: line for line in run["combinations"]} for name, run in runs.items()}
    for line in first["combinations"][:most]:
        key, few = line["combination"], "*" if line["few"] else ""
        kind = "" if line["kind"] == "head" else line["kind"]
        cells = [_cell(by_name.get(key), alone) for by_name in lines.values()]
        table.add_row(Text(brief(key, modalities)), f"{line['n']}{few}", f"{line['share']:.1%}", kind, *cells)
    if rarer := first["combinations"][most:]:
        table.add_row(f"{len(rarer)} rarer ones", str(sum(line["n"] for line in rarer)))
    table.add_section()
    for part in ("head", "tail", "unseen", "worst", "overall"):
        if first[part] and first[part]["n"]:
            size = str(first[part]["n"]) if part != "worst" else ""
            table.add_row(part, size, "", "", *[_cell(run[part], alone) for run in runs.values()])
    return table


def brief(combination: str, modalities: Sequence[str]) -> str:
    """A combination in few words: ``all``, ``all but dxa``, or what it holds, whichever is shorter."""
    held = combination.split("+")
    lacking = [name for name in modalities if name not in held]
    if not lacking:
        return "all"
    return combination if len(held) <= len(lacking) else "all but " + ", ".join(lacking)


def _cell(scores: Mapping[str, Any] | None, with_intervals: bool) -> str:
    """Three numbers of fixed width, so that they stand in columns; below them their intervals, if any has one."""
    if scores is None:
        return ""
    width = 10 if with_intervals else 6
    figures = ["    -" if scores[metric] is None else f"{scores[metric]:.3f}" for metric in METRICS]
    line = "".join(figure.ljust(width) for figure in figures).rstrip()
    if not with_intervals or not any("low" in said for said in scores["intervals"].values()):
        return line
    ranges = ["-".join(f"{said[end]:.2f}" for end in ("low", "high") if end in said) for said in
              (scores["intervals"][metric] for metric in METRICS)]  # fmt: skip
    return line + "\n" + "".join(one.ljust(width) for one in ranges).rstrip()


def atlas_table(described: Mapping[str, Any], *, most: int = 20) -> Table:
    """How often each combination occurs, whether training seldom or never shows it, and each modality's share."""
    combinations = described["combinations"]
    summary = f"{described['samples']} samples, {described['subjects']} subjects, {len(combinations)} combinations"
    title = f"{described['name']}: {summary}"
    table = Table(title=Text(title), min_width=min(len(title), 78), **PLAIN)
    table.add_column("combination", overflow="fold", min_width=16)
    table.add_column("n", justify="right")
    table.add_column("share", justify="right")
    table.add_column("")
    for line in combinations[:most]:
        name = brief(line["combination"], list(described["modalities"]))
        kind = "" if line["kind"] == "head" else line["kind"]
        table.add_row(Text(name), str(line["n"]), f"{line['share']:.1%}", kind)
    if rarer := combinations[most:]:
        rest = sum(line["n"] for line in rarer)
        table.add_row(f"{len(rarer)} rarer ones", str(rest), f"{rest / described['samples']:.1%}")
    table.add_section()
    for name, share in described["modalities"].items():
        table.add_row(Text(f"{name} available"), str(round(share * described["samples"])), f"{share:.1%}")
    return table


def mask_table(report: Mapping[str, Any]) -> Table:
    """What a mask has removed of each modality, from its ``mask.json``."""
    table = Table(**PLAIN)
    for heading in ("modality", "had it", "lost it", "share"):
        table.add_column(heading, justify="left" if heading == "modality" else "right")
    for name, part in report["removed"].items():
        table.add_row(Text(name), str(part["had"]), str(part["lost"]), f"{part['share']:.1%}")
    return table


def missingness_table(described: Mapping[str, Any], *, most: int = 3) -> Table:
    """Whether the mask tells the label, and the pairs of modalities most often missing together, by phi."""
    table = Table(title="missingness", show_header=False, **PLAIN)
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_row("mask alone", Text(mask_alone_words(described["mask_alone"])))
    held = described["combination_and_label"]
    v = held["reason"] if held["cramers_v"] is None else f"Cramer's V {held['cramers_v']:.2f}, {_p(held['p'])}"
    table.add_row("with label", v + (f"; {held['pooled']} rare combinations as one" if held["pooled"] else ""))
    pairs = [pair for pair in described["co_missing"] if pair["phi"] is not None and pair["phi"] > 0]
    for place, pair in enumerate(sorted(pairs, key=lambda pair: -pair["phi"])[:most]):
        words = f"{' and '.join(pair['modalities'])}: phi {pair['phi']:.2f}, {pair['both']:.1%} lack both"
        table.add_row("" if place else "together", Text(words))
    return table


def mask_alone_words(found: Mapping[str, Any]) -> str:
    """What the mask alone tells of the label, in a line."""
    if found["auroc"] is None:
        return f"not to be had, {found['reason']}"
    low, high = found["interval"]
    verdict = "no shortcut found"
    if found["shortcut"]:
        told = max(found["classes"], key=found["classes"].__getitem__)
        most = f", most of all {told!r} ({found['classes'][told]:.2f})" if len(found["classes"]) > 2 else ""
        verdict = f"a shortcut: who was measured tells who is ill{most}"
    return f"AUROC {found['auroc']:.2f} ({low:.2f} to {high:.2f}), {_p(found['p'])}; {verdict}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def split_table(described: Mapping[str, Any]) -> Table:
    """Samples, subjects and classes of each split."""
    splits = described["splits"]
    table = Table(title="splits", **PLAIN)
    for heading in ("split", "samples", "subjects", *next(iter(splits.values()))["classes"]):
        table.add_column(Text(heading), justify="left" if heading == "split" else "right")
    for name, split in splits.items():
        counts = [str(count) for count in split["classes"].values()]
        table.add_row(name, str(split["samples"]), str(split["subjects"]), *counts)
    return table


def predictions_table(title: str, modalities: Sequence[str], found: Mapping[str, Any], *, most: int = 20) -> Table:
    """How many samples of each combination were predicted, and what the model's worth on it rests on."""
    abstained = "; ".join(f"{n} {reason}" for reason, n in found["abstained"].items() if n)
    caption = f"{found['samples']} samples; abstained from: {abstained or 'none'}"
    table = Table(title=Text(title), caption=caption, **PLAIN)
    table.add_column("combination", overflow="fold", min_width=16)
    for heading in ("n", "trained on", "tested on", "abstain"):
        table.add_column(heading, justify="left" if heading == "abstain" else "right")
    for line in found["combinations"][:most]:
        counts = [str(line[key]) for key in ("n", "trained_on", "tested_on")]
        table.add_row(Text(brief(line["combination"], modalities)), *counts, line["reason"] or "")
    if rarer := found["combinations"][most:]:
        table.add_row(f"{len(rarer)} rarer ones", str(sum(line["n"] for line in rarer)))
    return table


def methods_table(methods: Mapping[str, Sequence[str]]) -> Table:
    """What each method is made of."""
    table = Table(**PLAIN)
    for heading in ("method", "fusion", "objective", "stages", "in a sentence"):
        table.add_column(heading, no_wrap=heading == "method")
    for name, cells in methods.items():
        table.add_row(name, *cells)
    return table
