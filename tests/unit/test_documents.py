"""What we wrote before and read again: damaged, it is refused in one sentence."""

import pytest

from remind.analysis.suites import masked
from remind.documents import read_json
from remind.errors import RemindError
from remind.suite.plan import TRIALS, _trials


@pytest.mark.parametrize("content", [None, b"", b'{"count": ', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_document_is_named(tmp_path, content):
    path = tmp_path / TRIALS
    if content is not None:
        path.write_bytes(content)
        with pytest.raises(RemindError, match=TRIALS):
            _trials(tmp_path)
    with pytest.raises(RemindError, match=TRIALS):
        read_json(path)


@pytest.mark.parametrize("content", ["{}", '{"rule": "extreme"}', '{"rule": "extreme", "settings": {"share": 0.8}}'])
def test_a_mask_that_does_not_say_whose_it_is_is_another(cohort, tmp_path, content):
    (tmp_path / "mask.json").write_text(content)
    with pytest.raises(RemindError, match="another"):
        masked(cohort, tmp_path, "extreme", share=0.8)
