"""What a source found, kept and dropped, from the ``extraction.json`` beside its cohort, for a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from remind.report.tables import PLAIN


def extraction_tables(report: Mapping[str, Any]) -> Iterator[Table | Text]:
    """From records to samples; measurements dropped; codes; the paper's shares of combinations beside ours."""
    steps = Table(title=Text(f"{report['source']}: from the records to the samples"), show_header=False, **PLAIN)
    steps.add_column(justify="right")
    steps.add_column()
    for said, count in report["steps"]:
        steps.add_row(str(count), Text(said))
    yield steps
    if "measurements" in report:
        yield _measurements(report["measurements"])
    if "codes" in report:
        yield _codes(report["codes"])
    yield _shares(report["shares"], report["paper"])
    for sentence in report["warnings"]:
        yield Text(f"warning: {sentence}", style="yellow")


def _measurements(counts: Mapping[str, Mapping[str, int]]) -> Table:
    table = _table("labs and vitals in the window", "variable", "kept", "wrong unit", "implausible")
    clean = {name for name, line in counts.items() if not (line["wrong_unit"] or line["implausible"])}
    for name, line in counts.items():
        if name not in clean:
            table.add_row(name, *(str(line[key]) for key in ("kept", "wrong_unit", "implausible")))
    table.add_row(f"{len(clean)} others", str(sum(counts[name]["kept"] for name in clean)), "0", "0")
    return table


def _codes(counts: Mapping[str, Any]) -> Text:
    whose = {"earlier": "earlier admissions", "same-stay": "the same admission"}[counts["of"]]
    said = f"{counts['codes']} ICD codes of {whose}, {counts['icd10']} in ICD-10"
    lost = f"; {counts['without_icd9']} of these have no ICD-9 code" if "without_icd9" in counts else ""
    return Text(f"{said}{lost}.\n")


def _shares(ours: Mapping[str, float], paper: Mapping[str, Any]) -> Table:
    table = _table("combinations, and the paper's shares of them", "combination", "here", "paper")
    if paper["says"]:
        table.caption = Text(f"paper: {paper['says']}")
    mine, theirs = (
        {frozenset(name.split("+")): (name, share) for name, share in part.items()} for part in (ours, paper["shares"])
    )
    for combination in sorted(
        {**mine, **theirs}, key=lambda c: -max(part[c][1] for part in (mine, theirs) if c in part)
    ):
        name = mine.get(combination, theirs.get(combination, ("", 0)))[0]
        table.add_row(
            Text(name), *(f"{part[combination][1]:.1%}" if combination in part else "" for part in (mine, theirs))
        )
    return table


def _table(title: str, first: str, *numbers: str) -> Table:
    table = Table(title=title, **PLAIN)
    table.add_column(first, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table
