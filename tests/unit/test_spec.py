import copy

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from remind.cohort.spec import CohortSpec, SplitColumn, SplitShares, read_spec
from remind.errors import RemindError
from remind.modalities.spec import TabularModality

DOCUMENT = {
    "name": "clinic",
    "id": "visit",
    "subject": "patient",
    "label": {"column": "grade", "classes": ["none", "mild"]},
    "modalities": {
        "labs": {"kind": "tabular", "columns": ["hba1c", "sex"], "categorical": ["sex"]},
        "vitals": {"kind": "tabular", "columns": ["pulse"]},
    },
}


def read(tmp_path, text):
    path = tmp_path / "cohort.yaml"
    path.write_text(text, encoding="utf-8")
    return read_spec(path)


def changed(**keys):
    """The document with other values at dotted keys, ``label__column="y"``."""
    document = copy.deepcopy(DOCUMENT)
    for key, value in keys.items():
        *parents, last = key.split("__")
        place = document
        for parent in parents:
            place = place[parent]
        place[last] = value
    return document


def test_a_spec_is_read_as_it_is_written(tmp_path):
    spec = read(tmp_path, yaml.safe_dump(DOCUMENT, sort_keys=False))
    assert (spec.name, spec.id, spec.subject_column, spec.label.column) == ("clinic", "visit", "patient", "grade")
    assert list(spec.modalities) == ["labs", "vitals"]
    assert spec.modalities["labs"] == TabularModality(kind="tabular", columns=["hba1c", "sex"], categorical=["sex"])
    assert spec.split == SplitShares(train=0.7, validation=0.1, test=0.2, seed=0)
    assert spec.tail_below == 0.15


def test_the_subject_is_the_id_where_none_is_named(tmp_path):
    document = {key: value for key, value in DOCUMENT.items() if key != "subject"}
    assert read(tmp_path, yaml.safe_dump(document)).subject_column == "visit"


def test_every_column_is_named_once_with_what_names_it_first():
    spec = CohortSpec.model_validate(changed(split={"column": "part"}, modalities__vitals__columns=["pulse", "hba1c"]))
    assert spec.columns() == {
        "visit": "id",
        "patient": "subject",
        "grade": "label",
        "hba1c": "modality 'labs'",
        "sex": "modality 'labs'",
        "pulse": "modality 'vitals'",
        "part": "split",
    }


def test_a_split_is_shares_or_a_column():
    assert CohortSpec.model_validate(changed(split={"column": "part"})).split == SplitColumn(column="part")
    shares = {"train": 0.5, "validation": 0.25, "test": 0.25, "seed": 3}
    assert CohortSpec.model_validate(changed(split=shares)).split == SplitShares(**shares)


def test_numbers_as_classes_are_text(tmp_path):
    assert read(tmp_path, yaml.safe_dump(changed(label__classes=[0, 1, 2]))).label.classes == ["0", "1", "2"]


def test_a_spec_survives_json():
    spec = CohortSpec.model_validate(changed(split={"column": "part"}))
    assert CohortSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        CohortSpec.model_validate(DOCUMENT).name = "other"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"name": None}, ("name", "string")),
        ({"label": "grade"}, ("label",)),
        ({"label__classes": "mild"}, ("label.classes", "list")),
        ({"label__classes": [True, False]}, ("label.classes.0", "label.classes.1", "quotes")),
        ({"modalities": ["labs"]}, ("modalities",)),
        ({"modalities__labs__columns": []}, ("modalities.labs.columns", "at least 1")),
        ({"modalities__labs__columns": "hba1c"}, ("modalities.labs.columns", "list")),
        ({"modalities__vitals__columns": ["visit"]}, ("'vitals'", "'visit'", "the id")),
        ({"modalities__": {"kind": "tabular", "columns": ["x"]}}, ("modality name ''",)),
        ({"modalities__a b": {"kind": "tabular", "columns": ["x"]}}, ("'a b'", "space")),
        ({"modalities__a/b": {"kind": "tabular", "columns": ["x"]}}, ("'a/b'",)),
        ({"split": {"column": "part", "train": 0.7}}, ("split.train",)),
        ({"split": {"train": 0.0, "validation": 0.5, "test": 0.5}}, ("split.train", "greater than 0")),
        ({"split": {"seed": -1}}, ("split.seed", "0")),
        ({"split": [0.7, 0.1, 0.2]}, ("split",)),
        ({"tail_below": 0}, ("tail_below", "greater than 0")),
        ({"tail_below": 1}, ("tail_below", "less than 1")),
        ({"tail_below": float("nan")}, ("tail_below",)),
    ],
)
def test_what_does_not_fit_is_named_by_file_and_key(tmp_path, keys, said):
    with pytest.raises(RemindError) as caught:
        read(tmp_path, yaml.safe_dump(changed(**keys)))
    sentence = str(caught.value)
    assert sentence.startswith(str(tmp_path / "cohort.yaml"))
    assert "\n" not in sentence
    assert all(word in sentence for word in said), sentence


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(RemindError, match="label: field required"):
        read(tmp_path, yaml.safe_dump({key: value for key, value in DOCUMENT.items() if key != "label"}))


def test_all_that_does_not_fit_is_named_at_once(tmp_path):
    text = yaml.safe_dump(changed(name=None, tail_below=2, label__classes=["none"]))
    with pytest.raises(RemindError, match=r"name: .*label\.classes: .*tail_below: "):
        read(tmp_path, text)


def test_errors_speak_of_the_file_and_not_of_our_classes(tmp_path):
    for text in ("", "- a\n", yaml.safe_dump(changed(label=3)), yaml.safe_dump(changed(split="random"))):
        with pytest.raises(RemindError) as caught:
            read(tmp_path, text)
        assert not any(
            name in str(caught.value) for name in ("CohortSpec", "Label", "SplitShares", "SplitColumn", "()")
        )


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir [hacked]", "!!python/name:os.system", "!unknown {}"])
def test_yaml_builds_no_objects(tmp_path, monkeypatch, tag):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RemindError, match="line 1 is not valid YAML"):
        read(tmp_path, f"name: {tag}\n")
    assert not (tmp_path / "hacked").exists()


SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.dates(), st.text(max_size=5)),
    st.sampled_from(["visit", "grade", "hba1c", "tabular", "train", "labs"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(SCALARS, inner, max_size=3)),
    max_leaves=6,
)
KEYS = ["name", "id", "subject", "label", "modalities", "split", "tail_below", "label__column", "label__classes"]
KEYS += ["modalities__labs", "modalities__labs__kind", "modalities__labs__columns", "modalities__labs__categorical"]


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3))
@settings(deadline=None, max_examples=300)
def test_no_document_crashes_the_reader(tmp_path_factory, keys):
    """Whatever stands where: it is read, or refused in one line."""
    sentence = "."
    document = changed(**dict(sorted(keys.items(), key=lambda pair: -pair[0].count("__"))))
    try:
        read(tmp_path_factory.mktemp("c"), yaml.safe_dump(document, allow_unicode=True))
    except RemindError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert sentence.endswith(".")


@given(st.text(max_size=60))
@settings(deadline=None, max_examples=200)
def test_no_text_crashes_the_reader(tmp_path_factory, text):
    with pytest.raises(RemindError):
        read(tmp_path_factory.mktemp("c"), text)
