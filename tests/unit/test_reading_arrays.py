"""Embeddings."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from remind.reading import Unreadable
from remind.reading.arrays import read_embedding


def save(path, values):
    np.save(path, values)
    return path


def refused(path, reason):
    with pytest.raises(Unreadable, match=reason):
        read_embedding(path)


@given(
    values=arrays.arrays(
        st.sampled_from(["<f4", ">f4", "<f8", "f2", "i1", ">i8", "u2"]),
        arrays.array_shapes(min_dims=1, max_dims=2, max_side=5),
        elements={"allow_nan": False, "allow_infinity": False, "min_value": 0, "max_value": 100},
    )
)
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_come_back_in_single_precision(tmp_path, values):
    found = read_embedding(save(tmp_path / "a.npy", values))
    assert torch.equal(found, torch.from_numpy(np.atleast_2d(values).astype("f4")))


def test_no_steps_are_empty_and_no_width_is_unreadable(tmp_path):
    assert read_embedding(save(tmp_path / "a.npy", np.zeros((0, 7)))).shape == (0, 7)
    refused(save(tmp_path / "a.npy", np.zeros((7, 0))), "width 0")
    refused(save(tmp_path / "a.npy", np.zeros(0)), "width 0")


@pytest.mark.parametrize("shape", [(), (1, 2, 3)])
def test_other_dimensions_are_refused(tmp_path, shape):
    refused(save(tmp_path / "a.npy", np.zeros(shape)), "an embedding has 1 or 2")


@pytest.mark.parametrize("dtype", [complex, bool, "U3", "S3", "datetime64[s]", object, [("a", "f4")]])
def test_what_are_no_numbers_are_refused(tmp_path, dtype):
    refused(save(tmp_path / "a.npy", np.zeros(3, dtype=dtype)), "no plain numbers")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_what_is_not_finite_in_single_precision_is_refused(tmp_path, value):
    refused(save(tmp_path / "a.npy", np.array([1, value])), "not finite")


def test_more_than_the_header_claims_is_refused(tmp_path):
    path = save(tmp_path / "a.npy", np.ones(5))
    path.write_bytes(path.read_bytes() + b"\0")
    refused(path, "more than its header claims")


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", np.ones(3))
    refused(tmp_path / "a.npz", "^is not an NPY file$")
    refused(tmp_path / "b.npy", "^is not there$")
    refused(tmp_path, "^is a folder, not a file$")
