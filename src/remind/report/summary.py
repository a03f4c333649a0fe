"""What is known and what is not, in plain words: the sentences that stand before every table."""

from collections.abc import Iterator, Mapping, Sequence
from math import hypot
from typing import Any

from remind.evaluation.intervals import ENOUGH
from remind.report.content import Content
from remind.report.names import shown

VERDICTS = {"better": "better", "worse": "worse", "tie": "not to be told from it"}


def known(content: Content) -> list[str]:
    """What the test split shows of the run, of frequent and rare combinations, and of the methods."""
    return [*_scores(content), *_worst(content), *_calibration(content), *_methods(content), *_modalities(content)]


def unknown(content: Content) -> list[str]:
    """What it cannot show."""
    return [*_rare(content), *_unseen(content), *_intervals(content), *_design(content)]


def _scores(content: Content) -> Iterator[str]:
    overall = content.parts["overall"]
    yield (
        f"Of {people(overall)} in the test split, {_percent(overall, 'accuracy')} are classified "
        f"correctly{_auroc(overall)}."
    )
    head, tail = (content.parts.get(part) for part in ("head", "tail"))
    if not head or not tail or not head["n"] or not tail["n"]:
        return
    sentence = (
        f"With a frequent combination of modalities it is {_percent(head, 'accuracy')} of {people(head)}, with a rare "
        f"one {_percent(tail, 'accuracy')} of {people(tail)}"
    )
    yield f"{sentence}: {_apart(head, tail)}."


def _apart(head: Mapping[str, Any], tail: Mapping[str, Any]) -> str:
    """Whether the two are told apart, as far as their intervals, of different patients, say."""
    known = [part["intervals"]["accuracy"] for part in (head, tail)]
    if not all("low" in one for one in known):
        return "one of them has too few patients to compare them"
    gap = tail["accuracy"] - head["accuracy"]
    margin = hypot(*((one["high"] - one["low"]) / 2 for one in known))
    if abs(gap) <= margin:
        return f"a difference of {100 * abs(gap):.1f} points, which chance alone could make"
    return f"{100 * abs(gap):.1f} points {'better' if gap > 0 else 'worse'} on the rare, more than chance would make"


def _worst(content: Content) -> Iterator[str]:
    judged = [line for line in content.combinations if not line["few"]]
    if content.worst is None or len(judged) < 2 or content.worst["accuracy"] == 1:
        return
    name = next(line["label"] for line in content.combinations if line["name"] == content.worst["combination"])
    yield (
        f"Of the combinations with {ENOUGH} test patients or more it fares worst on “{name}”: "
        f"{_percent(content.worst, 'accuracy')} of {people(content.worst)}. The worst of several is "
        "partly bad luck, so expect it to be less far off on new patients."
    )


def _calibration(content: Content) -> Iterator[str]:
    test = content.calibration["test"]["overall"]
    if "reason" in test:
        return
    raw, after = test["raw"], test["calibrated"]
    off = "more than a well calibrated model would be by chance" if raw["beyond_chance"] else "no more than chance"
    yield (
        f"Its probabilities are off by {100 * raw['ece']:.1f} points in the mean ({off}); once scaled on the "
        f"validation split by {100 * after['ece']:.1f}."
    )
    coverage, asked = test["coverage"], content.calibration["conformal"]["coverage"]
    yield (
        f"Sets made to hold the true class in {100 * asked:.0f} % of cases hold it "
        f"in {100 * coverage['share']:.1f} % [{100 * coverage['low']:.1f}, {100 * coverage['high']:.1f}] of the test "
        f"samples, with {test['set_size']:.2f} of {len(content.classes)} classes in the mean."
    )


def _methods(content: Content) -> Iterator[str]:
    compared = content.comparison
    if compared is None or compared["reference"] is None:
        return
    for part, words in (("tail", "on rare combinations"), ("overall", "overall")):
        row = next((row for row in compared["rows"] if row["row"] == part and row["kind"] is None), None)
        if row is None:
            continue
        verdicts: dict[str, list[str]] = {"better": [], "worse": [], "tie": []}
        for method, said in row["differences"].items():
            if "macro_auroc" in said:
                verdicts[said["macro_auroc"]["verdict"]].append(shown(method))
        says = [f"{_listed(names)} {_is(names)} {VERDICTS[one]}" for one, names in verdicts.items() if names]
        if says:
            yield f"Against {shown(compared['reference'])}, by macro AUROC {words}: {'; '.join(says)}."


def _modalities(content: Content) -> Iterator[str]:
    lines = [
        row for row in content.of_run("modalities") if row["kind"] is None and not row["few"] and row["bits_low"] > 0
    ]
    if lines:
        ranked = sorted(lines, key=lambda row: -row["bits"])[:3]
        named = _listed([f"{shown(row['modality'])} ({row['bits']:+.2f} bits)" for row in ranked])
        more = ", most of all" if len(lines) > len(ranked) else ""
        yield f"What adds information on the class to those who have it{more}: {named}."


def _rare(content: Content) -> Iterator[str]:
    few = [line for line in content.combinations if line["few"] and line["n"]]
    if few:
        samples, whole = sum(line["n"] for line in few), content.parts["overall"]["n"]
        share = f"{samples:,} of {whole:,} test samples, {100 * samples / whole:.0f} %"
        tested = sum(line["n"] > 0 for line in content.combinations)
        if content.suppressed:
            yield f"The combinations that stand together make up {share}. Of each of them alone nothing is said."
        else:
            yield (
                f"{len(few)} of {tested} combinations in the test split have fewer than {ENOUGH} patients each: "
                f"{share}. Of each of these alone nothing is known; they count in the totals."
            )
    untested = sum(not line["n"] for line in content.combinations)
    if untested and not content.suppressed:
        yield f"No test patient has one of {count(untested, 'combination')} that training saw."


def _unseen(content: Content) -> Iterator[str]:
    unseen = content.parts.get("unseen")
    if unseen and unseen["n"]:
        which = "combinations" if content.suppressed else count(unseen["combinations"], "combination")
        yield (
            f"Training never saw {which}, which {people(unseen)} in the test split have. For them the model guesses "
            "from what it knows of others, and “remind predict” abstains."
        )


def _intervals(content: Content) -> Iterator[str]:
    judged = [line for line in content.combinations if not line["few"]]
    lacking = [line for line in judged if "reason" in line["intervals"]["macro_auroc"]]
    if lacking:
        yield (
            f"Macro AUROC has no interval in {len(lacking)} of {count(len(judged), 'combination')} large enough to "
            f"judge: mostly, a class has fewer than {ENOUGH} patients there; the table says. Read those as hints."
        )


def _design(content: Content) -> Iterator[str]:
    seeds = content.comparison["seeds"] if content.comparison else [content.seed]
    once = len(seeds) == 1
    seed = " under this seed" if once else ""
    yield (
        f"Intervals say what other patients of the same kind might have shown{seed}; they do not say what other "
        "hospitals would, or a later year."
    )
    if once:
        yield "One seed was trained: how much the figures move with the seed is not known."
    if content.suppressed:
        yield f"Cells of fewer than {content.suppressed} people are not shown, nor what would give them away."


def _percent(scores: Mapping[str, Any], metric: str) -> str:
    """``82.3 % [80.1, 84.3]``."""
    said = scores["intervals"].get(metric, {})
    interval = f" [{100 * said['low']:.1f}, {100 * said['high']:.1f}]" if "low" in said else ""
    return f"{100 * scores[metric]:.1f} %{interval}"


def _auroc(scores: Mapping[str, Any]) -> str:
    if scores["macro_auroc"] is None:
        return ""
    said = scores["intervals"]["macro_auroc"]
    interval = f" [{said['low']:.3f}, {said['high']:.3f}]" if "low" in said else ""
    return f"; macro AUROC {scores['macro_auroc']:.3f}{interval}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def people(scores: Mapping[str, Any]) -> str:
    """``1,279 patients``, or how many samples of how many."""
    whole = count(scores["subjects"], "patient")
    return whole if scores["n"] == scores["subjects"] else f"{count(scores['n'], 'sample')} of {whole}"


def count(number: int, what: str) -> str:
    """``1 patient``, ``1,279 patients``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
