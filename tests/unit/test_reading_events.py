"""Events in time."""

from datetime import date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from remind.reading import Unreadable
from remind.reading import events as module
from remind.reading.events import read_events

SCHEMA = {"time": pl.Float64, "variable": pl.String, "value": pl.Float64}
START = datetime(2020, 2, 28, 23, 30)


def write(path, *, suffix="parquet", **columns):
    path = path / f"a.{suffix}"
    frame = pl.DataFrame(columns)
    frame.write_parquet(path) if suffix == "parquet" else frame.write_csv(path)
    return path


def same(found, time, variable, value):
    assert_frame_equal(found, pl.DataFrame({"time": time, "variable": variable, "value": value}, schema=SCHEMA))


def refused(path, reason):
    with pytest.raises(Unreadable, match=reason) as caught:
        read_events(path)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_numbers_are_hours_in_order(tmp_path, suffix):
    columns = {
        "time": [2, -1, 2, 2],
        "variable": ["b", "a", "a", "b"],
        "value": [7, 8, 9, 1],
        "comment": ["canary"] * 4,
    }
    same(read_events(write(tmp_path, suffix=suffix, **columns)), [-1, 2, 2, 2], ["a", "a", "b", "b"], [8, 9, 1, 7])


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_dates_count_from_the_first_event(tmp_path, suffix):
    times = [START + timedelta(hours=hours) for hours in (30.5, 0, 1.25)]
    path = write(tmp_path, suffix=suffix, time=times, variable=["a", "b", "c"], value=[1.0, 2, 3])
    same(read_events(path), [0, 1.25, 30.5], ["b", "c", "a"], [2, 3, 1])
    days = [date(2020, 3, 1), date(2020, 2, 28), date(2020, 2, 29)]
    path = write(tmp_path, suffix=suffix, time=days, variable=["a", "b", "c"], value=[1.0, 2, 3])
    same(read_events(path), [0, 24, 48], ["b", "c", "a"], [2, 3, 1])


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_durations_and_zones(tmp_path, unit):
    times = pl.Series([timedelta(minutes=90), timedelta(hours=-1)], dtype=pl.Duration(unit))
    same(read_events(write(tmp_path, time=times, variable=["a", "b"], value=[1, 2])), [-1, 1.5], ["b", "a"], [2, 1])
    zoned = pl.Series([START, START + timedelta(hours=2)]).dt.replace_time_zone("UTC").dt.cast_time_unit(unit)
    same(read_events(write(tmp_path, time=zoned, variable=["a", "b"], value=[1, 2])), [0, 2], ["a", "b"], [1, 2])


def test_rows_without_a_value_are_none(tmp_path):
    times = [START, None, START + timedelta(hours=3), START + timedelta(hours=4)]
    path = write(tmp_path, time=times, variable=["a", None, "b", "c"], value=[float("nan"), None, 1.0, 2.0])
    same(read_events(path), [0, 1], ["b", "c"], [1, 2])


def test_variables_may_be_codes_and_values_any_number(tmp_path):
    path = write(tmp_path, time=[0.0, 1.0], variable=[220045, 7], value=[Decimal("1.5"), Decimal(2)])
    same(read_events(path), [0, 1], ["220045", "7"], [1.5, 2])
    path = write(tmp_path, time=[0.0], variable=pl.Series(["a"], dtype=pl.Categorical), value=[2**40])
    same(read_events(path), [0], ["a"], [2**40])
    same(read_events(write(tmp_path, suffix="csv", time=[0], variable=[7], value=[1])), [0], ["7"], [1])


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_no_rows_are_empty(tmp_path, suffix):
    assert read_events(write(tmp_path, suffix=suffix, time=[], variable=[], value=[])).schema == SCHEMA
    path = write(tmp_path, suffix=suffix, time=[1.0], variable=["a"], value=[None])
    assert_frame_equal(read_events(path), pl.DataFrame(schema=SCHEMA))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"time": [None, 1.0, None]}, "^holds 2 rows without time$"),
        ({"time": [0.0, float("nan"), 1.0]}, "^holds 1 rows without time$"),
        ({"variable": ["canary", None, "a"]}, "^holds 1 rows without variable$"),
        ({"value": [1.0, float("inf"), 2.0]}, "^holds 1 rows with an infinite"),
        ({"time": [1.0, float("-inf"), 2.0]}, "^holds 1 rows with an infinite"),
        ({"value": ["canary", "1", "2"]}, "^has values of type String"),
        ({"value": [True, False, True]}, "^has values of type Boolean"),
        ({"time": ["canary", "1", "2"]}, "^has times of type String"),
        ({"variable": [1.5, 2.5, 3.5]}, "^has variables of type Float64"),
        ({"variable": [["canary"], ["b"], ["c"]]}, "^has variables of type List"),
    ],
)
def test_other_contents_are_refused_without_being_shown(tmp_path, changes, reason):
    refused(
        write(tmp_path, **{"time": [0.0, 1.0, 2.0], "variable": ["a"] * 3, "value": [1.0, 2.0, 3.0], **changes}), reason
    )


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_absent_columns_are_named(tmp_path, suffix):
    refused(write(tmp_path, suffix=suffix, time=[1], canary=[2]), "^has no column variable and no column value$")


def test_too_many_rows_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = write(tmp_path, time=[1, 2, 3], variable=["a"] * 3, value=[1, 2, 3])
    monkeypatch.setattr(module, "_MOST", 2)
    refused(path, "^claims 3 rows")


def test_other_files_are_refused(tmp_path):
    refused(tmp_path / "a.parquet", "^is not there$")
    refused(tmp_path, "^is a folder, not a file$")
    (tmp_path / "a.parquet").write_bytes(b"canary")
    refused(tmp_path / "a.parquet", "^is not a Parquet or CSV file$")
    (tmp_path / "a.csv").write_bytes(b"time,variable,value\n1,canary\xff,2\n")
    refused(tmp_path / "a.csv", ".")
    (tmp_path / "b.csv").write_bytes(b"time,variable,value\n1,canary,2,3,4\n")
    refused(tmp_path / "b.csv", ".")


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.sampled_from("abc"), st.floats(-1e30, 1e30)), min_size=1))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_events_come_back_sorted(tmp_path, rows):
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    frame.write_parquet(tmp_path / "a.parquet")
    found = read_events(tmp_path / "a.parquet")
    assert sorted(found.rows()) == found.rows() == sorted(rows)
