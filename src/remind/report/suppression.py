"""Leave out cells of so few people that somebody could be known again, and whatever would give those away."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from remind.errors import RemindError
from remind.evaluation.intervals import MACRO
from remind.evaluation.resampling import METRICS
from remind.report.content import Content

COUNTS = ("trained", "n", "subjects")
KINDS = ("unseen", "tail", "head")  # one that is too small goes with the next


def suppress(content: Content, least: int) -> Content:
    """The content without cells of one to ``least - 1`` people, and without what their complements would tell.

    Combinations too small in any count stand together in a line of their kind, with the smallest of the others until
    that line is large enough, and how many they are is not said; a kind too small goes with the next, and neither has
    a total. So whatever can be derived from lines and totals is of ``least`` or more. Classes are treated alike. Macro
    scores, from which with n the sizes of classes can be solved for, are not shown where a class is too small. Counts
    that overlap (of bins, from whose intervals they can be had, and of those who have a modality) are not shown at all.

    Raises:
        RemindError: if all test samples together are too few, or a subject has several samples: then lines and totals
            count people twice, and what can be derived from them is not what is promised here.
    """
    if least <= 1:
        return content
    if content.visits:
        raise RemindError(
            f"{content.place}: --suppress is for tables with one sample a person, and some here have several; report a "
            "run of a cohort with one row a person, or leave --suppress out."
        )
    if content.parts["overall"]["subjects"] < least:
        raise RemindError(f"{content.place}: its test split has fewer than {least} people; there is nothing to report.")
    joined = join_kinds(content.combinations, least)
    lines = [
        line
        for kind in reversed(KINDS)
        for line in merge([one for one in content.combinations if joined[one["kind"]] == kind], least)
    ]
    kept = {line["name"] for line in lines if line["name"]}
    parts = {kind for kind in KINDS if list(joined.values()).count(joined[kind]) == 1} | {"overall"}
    return replace(
        content,
        combinations=[_quiet(line, least) | {"calibration": _without_bins(line["calibration"])} for line in lines],
        parts={name: _quiet(scores, least) for name, scores in content.parts.items() if name in parts},
        worst=content.worst if content.worst and content.worst["combination"] in kept else None,
        calibration={
            **content.calibration,
            "test": {name: _without_bins(line) for name, line in content.calibration["test"].items() if name in parts},
        },
        class_counts=merge_classes(content.class_counts, least),
        comparison=_comparison(content.comparison, content.parts, parts, least),
        findings={name: _finding(found, kept) for name, found in content.findings.items()},
        history=[_weights(line, content.groups, kept) for line in content.history],
        groups=[name for name in content.groups if name in kept],
        suppressed=least,
    )


def join_kinds(lines: Sequence[Mapping[str, Any]], least: int) -> dict[str, str]:
    """With which kind each kind stands, so that none is too small."""
    joined: dict[str, str] = {kind: kind for kind in KINDS}
    for kind, following in pairwise(KINDS):
        if _small(_sum([line for line in lines if joined[line["kind"]] == kind]), least):
            joined = {one: following if with_ == kind else with_ for one, with_ in joined.items()}
    if _small(_sum([line for line in lines if joined[line["kind"]] == "head"]), least):
        return dict.fromkeys(KINDS, "head")
    return joined


def merge(lines: Sequence[dict[str, Any]], least: int) -> Iterator[dict[str, Any]]:
    """The lines that are large enough, then one of all others."""
    small = [line for line in lines if _small(line, least)]
    large = sorted((line for line in lines if not _small(line, least)), key=lambda line: line["subjects"])
    while large and _small(_sum(small), least):
        small.append(large.pop(0))
    yield from (line for line in lines if line not in small)
    if small:
        nothing = dict.fromkeys((*METRICS, "name", "held", "calibration"))
        kinds = {line["kind"] for line in small}
        own = {"label": "rarer combinations together", "kind": kinds.pop() if len(kinds) == 1 else ""}
        own |= {"few": True, "intervals": {}, "smallest": 0, "share": sum(line["share"] for line in small)}
        yield {**nothing, **_sum(small), **own}


def merge_classes(counts: Mapping[str, int], least: int) -> dict[str, int]:
    """The classes that are large enough, then one of all others, those of nobody among them."""
    small = {name: n for name, n in counts.items() if n < least}
    if not any(small.values()):
        return dict(counts)
    for name in sorted(counts.keys() - small.keys(), key=lambda name: counts[name]):
        if sum(small.values()) < least:
            small[name] = counts[name]
    return {name: n for name, n in counts.items() if name not in small} | {"other classes": sum(small.values())}


def _sum(lines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {key: sum(line[key] for line in lines) for key in COUNTS}


def _small(line: Mapping[str, Any], least: int) -> bool:
    return any(0 < line[key] < least for key in COUNTS)


def _quiet(scores: Mapping[str, Any], least: int) -> dict[str, Any]:
    """The scores, rounded; of macro scores nothing where a class is too small."""
    rounded = {name: None if scores[name] is None else round(scores[name], 3) for name in METRICS}
    intervals = {
        name: {key: round(value, 3) if isinstance(value, float) else value for key, value in said.items()}
        for name, said in scores["intervals"].items()
    }
    if 0 < scores["smallest"] < least:
        rounded |= dict.fromkeys(MACRO)
        intervals |= {name: {"reason": "too few people in a class"} for name in MACRO if name in intervals}
    quiet = {
        name: {"reason": "a class has too few subjects"} if str(said.get("reason")).startswith("a class has") else said
        for name, said in intervals.items()
    }
    return {**scores, **rounded, "intervals": quiet}


def _without_bins(line: dict[str, Any] | None) -> dict[str, Any] | None:
    """Calibration without the bins, whose sizes follow from their intervals."""
    if line is None or "reason" in line:
        return line
    return line | {how: {**line[how], "bins": []} for how in ("raw", "calibrated")}


def _comparison(
    comparison: dict[str, Any] | None, parts: Mapping[str, Mapping[str, Any]], shown: set[str], least: int
) -> dict[str, Any] | None:
    """Parts alone, without the macro scores of those in which a class is too small."""
    if comparison is None:
        return None
    rows = [row for row in comparison["rows"] if row["kind"] is None and row["row"] in shown]
    return {
        **comparison,
        "rows": [_without_macro(row) if parts[row["row"]]["smallest"] < least else row for row in rows],
    }


def _without_macro(row: Mapping[str, Any]) -> dict[str, Any]:
    nothing = {metric: {"mean": None, "std": None, "seeds": {}} for metric in MACRO}
    differences = {
        method: {metric: one for metric, one in said.items() if metric not in MACRO}
        for method, said in row["differences"].items()
    }
    return {**row, "scores": {m: scores | nothing for m, scores in row["scores"].items()}, "differences": differences}


def _finding(found: Mapping[str, Any], kept: set[str]) -> dict[str, Any]:
    """Lines of what is shown, and of all together, without counts."""
    return {
        part: [
            {key: value for key, value in row.items() if key not in ("n", "subjects")}
            for row in found[part]
            if row["combination"] in kept or row["kind"] is None
        ]
        for part in ("rows", "next")
    }


def _weights(line: dict[str, Any], groups: Sequence[str], kept: set[str]) -> dict[str, Any]:
    """Group weights of what is shown."""
    if line["group_weights"] is None:
        return line
    weights = [weight for weight, name in zip(line["group_weights"], groups, strict=True) if name in kept]
    return {**line, "group_weights": weights}
