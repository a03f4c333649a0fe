"""Leave out cells of so few people that somebody could be known again, and whatever would give those away."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from remind.errors import RemindError
from remind.report.content import Content

COUNTS = ("trained", "n", "subjects")
KINDS = ("unseen", "tail", "head")  # one that is too small goes with the next
SCORES = ("accuracy", "macro_f1", "macro_auroc")


def suppress(content: Content, least: int) -> Content:
    """The content without cells of one to ``least - 1`` people, and without what their complements would tell.

    Combinations too small in any count stand together in a line of their kind, with the smallest of the others until
    that line is large enough, and how many they are is not said; a kind too small goes with the next, and neither has
    a total. So whatever can be derived from lines and totals is of ``least`` or more. Classes are treated alike.
    Counts that overlap (of bins, and of those who have a modality) are not shown at all. Scores are shown where counts
    are.

    Raises:
        RemindError: if all test samples together are too few.
    """
    if least <= 1:
        return content
    if content.parts["overall"]["subjects"] < least:
        raise RemindError(f"{content.place}: its test split has fewer than {least} people; there is nothing to report.")
    joined = join_kinds(content.combinations, least)
    lines = [
        line
        for kind in reversed(KINDS)
        for line in merge([one for one in content.combinations if joined[one["kind"]] == kind], least)
    ]
    kept = {line["name"] for line in lines if line["name"]}
    shown = {kind for kind in KINDS if list(joined.values()).count(joined[kind]) == 1} | {"overall"}
    return replace(
        content,
        combinations=[_quiet(line) | {"calibration": _without_sizes(line["calibration"], least)} for line in lines],
        parts={name: _quiet(scores) for name, scores in content.parts.items() if name in shown},
        worst=_quiet(content.worst) if content.worst and content.worst["combination"] in kept else None,
        calibration={
            **content.calibration,
            "test": {
                name: _without_sizes(line, least) for name, line in content.calibration["test"].items() if name in shown
            },
        },
        class_counts=merge_classes(content.class_counts, least),
        comparison=_comparison(content.comparison, kept | shown),
        findings={name: _finding(found, kept | {"overall"}) for name, found in content.findings.items()},
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
        nothing = dict.fromkeys((*SCORES, "name", "held", "calibration"))
        own = {"label": "rarer combinations together", "kind": small[0]["kind"], "few": True, "intervals": {}}
        yield {**nothing, **_sum(small), **own, "share": sum(line["share"] for line in small)}


def merge_classes(counts: Mapping[str, int], least: int) -> dict[str, int]:
    """The classes that are large enough, then one of all others."""
    small = {name: n for name, n in counts.items() if 0 < n < least}
    for name in sorted(counts.keys() - small.keys(), key=lambda name: counts[name]):
        if 0 < sum(small.values()) < least:
            small[name] = counts[name]
    kept = {name: n for name, n in counts.items() if name not in small}
    return kept | ({f"{len(small)} classes together": sum(small.values())} if small else {})


def _sum(lines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {key: sum(line[key] for line in lines) for key in COUNTS}


def _small(line: Mapping[str, Any], least: int) -> bool:
    return any(0 < line[key] < least for key in COUNTS)


def _quiet(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The scores; a reason why there is no interval that counts a class no longer counts."""
    quiet = {
        name: {"reason": "a class has too few subjects"} if said.get("reason", "").startswith("a class has") else said
        for name, said in scores["intervals"].items()
    }
    return {**scores, "intervals": quiet}


def _without_sizes(line: dict[str, Any] | None, least: int) -> dict[str, Any] | None:
    """Calibration without small bins, and without the sizes of the others."""
    if line is None or "reason" in line:
        return line
    bare = {}
    for how in ("raw", "calibrated"):
        bins = [one for one in line[how]["bins"] if one["n"] >= least]
        bare[how] = {**line[how], "bins": [{key: value for key, value in one.items() if key != "n"} for one in bins]}
    return line | bare


def _comparison(comparison: dict[str, Any] | None, kept: set[str]) -> dict[str, Any] | None:
    if comparison is None:
        return None
    return {**comparison, "rows": [row for row in comparison["rows"] if row["row"] in kept]}


def _finding(found: Mapping[str, Any], kept: set[str]) -> dict[str, Any]:
    """Lines of what is shown, without counts; no sentences, which are of everything."""
    return {
        "says": [],
        **{
            part: [
                {key: value for key, value in row.items() if key not in ("n", "subjects")}
                for row in found[part]
                if row["combination"] in kept
            ]
            for part in ("rows", "next")
        },
    }


def _weights(line: dict[str, Any], groups: Sequence[str], kept: set[str]) -> dict[str, Any]:
    """Group weights of what is shown."""
    if line["group_weights"] is None:
        return line
    weights = [weight for weight, name in zip(line["group_weights"], groups, strict=True) if name in kept]
    return {**line, "group_weights": weights}
