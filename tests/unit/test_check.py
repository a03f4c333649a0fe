import polars as pl
import pytest

from remind.cohort.check import problems
from remind.cohort.cohort import load
from remind.cohort.spec import read_spec
from remind.cohort.table import read_samples
from remind.errors import RemindError

NO_SUBJECT = {"subject": None}


def found(folder):
    spec = read_spec(folder / "cohort.yaml")
    samples, place = read_samples(folder, spec)
    return problems(spec, samples, str(place))


def several(*changes):
    def change(table):
        for one in changes:
            table = one(table)
        return table

    return change


def test_a_sound_clinic_has_no_problems(clinic):
    assert found(clinic()) == []
    assert len(load(clinic("other"))) == 40


def test_every_mistake_is_refused_in_one_line_that_names_place_and_mend(mistake, tmp_path):
    folder = mistake.write(tmp_path / "clinic")
    with pytest.raises(RemindError) as caught:  # noqa: PT012 (drawn splits are looked at only when asked for)
        cohort = load(folder)
        for split in ("train", "validation", "test"):
            cohort.rows(split)
    sentence = str(caught.value)
    assert sentence.startswith(str(folder)) or "clinic:" in sentence
    assert all(word in sentence for word in mistake.said), sentence
    assert "\n" not in sentence
    assert sentence.endswith((".", ".)"))
    assert "canary" not in sentence


def test_all_problems_are_listed_at_once(clinic, at):
    folder = clinic(
        table=several(
            at(3, visit="00001 "),
            at(5, visit="00003"),
            at(7, grade="canary"),
            at(8, grade=None),
            at(10, hba1c=None, comment=None, pulse=None),
            at(12, pulse=float("inf")),
            lambda table: table.with_columns(part=pl.Series(["train"] * 31 + ["test"] * 8 + ["exam"])),
        ),
        split={"column": "part"},
    )
    listed = found(folder)
    expected = [
        ("row 3", "white space"),
        ("rows 4, 5", "more than once"),
        ("row 8", "empty"),
        ("row 7", "none of its classes"),
        ("row 12", "infinite"),
        ("row 10", "no modality"),
        ("row 40", "train, validation or test"),
        ("no sample in validation",),
        ("rows 31, 32, 39, 40", "two splits"),
    ]
    assert len(listed) == len(expected)
    for sentence, words in zip(listed, expected, strict=True):
        assert sentence.startswith(f"{folder / 'samples.parquet'}: ")
        assert all(word in sentence for word in words), sentence
    with pytest.raises(RemindError, match=rf"row 3.*\(8 more: run 'remind cohort check {folder}'\.\)"):
        load(folder)


def test_a_missing_column_does_not_hide_the_other_problems(clinic, at):
    folder = clinic(table=several(at(7, grade="canary"), lambda table: table.drop("pulse")))
    listed = found(folder)
    assert any("'pulse'" in sentence for sentence in listed)
    assert any("row 7" in sentence for sentence in listed)


def test_every_missing_column_is_listed(clinic):
    listed = found(clinic(table=lambda table: table.drop("pulse", "patient")))
    assert len(listed) == 2
    assert "subject names a column that is not there" in "".join(listed)
    assert "modality 'vitals' names a column that is not there" in "".join(listed)


def test_a_problem_of_the_id_is_told_once_where_the_id_is_the_subject(clinic, at):
    assert len(found(clinic("a", table=at(7, visit="00006 "), **NO_SUBJECT))) == 1
    assert len(found(clinic("b", table=lambda t: t.with_columns(pl.col("visit").cast(pl.Float64)), **NO_SUBJECT))) == 1


def test_rows_are_counted_from_one_in_the_order_of_the_file_and_cut_after_five(clinic):
    folder = clinic(table=lambda t: t.reverse().with_columns(pulse=pl.when(pl.col("pulse") > 0).then(float("inf"))))
    assert "rows 1, 2, 4, 5, 6 and 28 more: modality 'vitals', column 'pulse' is infinite" in found(folder)[0]


def test_a_suggestion_is_taken_from_all_columns_of_the_file(clinic):
    folder = clinic(label={"column": "gradee", "classes": ["none", "mild"]})
    assert "Did you mean 'grade'?" in found(folder)[0]


@pytest.mark.parametrize(
    "column",
    [
        pl.Series(range(40), dtype=pl.UInt64),
        pl.Series(range(40), dtype=pl.Decimal(10, 2)),
        pl.Series([n % 2 == 0 for n in range(40)]),
        pl.Series([None] * 40, dtype=pl.Null),
        pl.Series([f"k{n % 3}" for n in range(40)], dtype=pl.Categorical),
        pl.Series([f"k{n % 3}" for n in range(40)], dtype=pl.Enum(["k0", "k1", "k2"])),
    ],
    ids=lambda column: str(column.dtype),
)
def test_numbers_booleans_and_text_of_every_width_are_inputs(clinic, column):
    assert found(clinic(table=lambda table: table.with_columns(hba1c=column))) == []


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([[n] for n in range(40)]),
        pl.Series([{"a": n} for n in range(40)]),
        pl.Series([b"\xff" for _ in range(40)]),
    ],
    ids=lambda column: type(column.dtype).__name__,
)
@pytest.mark.parametrize("role", ["visit", "patient", "grade", "hba1c"])
def test_a_column_of_any_other_type_is_a_problem_and_not_a_crash(clinic, column, role):
    folder = clinic(table=lambda table: table.with_columns(column.alias(role)))
    assert any(f"'{role}'" in sentence for sentence in found(folder))


def test_null_words_in_the_table_of_labels_are_no_classes(clinic, at):
    folder = clinic(csv=True, table=at(3, grade="NA"))
    assert found(folder) == [
        f"{folder / 'samples.csv'}: row 3: label 'grade' is empty; drop those samples or label them."
    ]
