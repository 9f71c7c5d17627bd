"""The better of two int8 forms stays, and the record tells of both."""

from pathlib import Path

import msgspec
import pytest

from edgeport.export import as_written
from edgeport.export.job import Job
from edgeport.records import Quantized

JOB = Job("", ("int8",), "x86", False, ("x",), ("y",))


def quantized(worst_db: float | None) -> Quantized:
    return Quantized("min-max", 8, {"min-max": worst_db or 0.0}, ("ranges shared",), (), (), worst_db=worst_db)


@pytest.mark.parametrize(("plain_db", "kept"), [(18.0, as_written.AS_WRITTEN), (15.2, as_written.REWRITTEN)])
def test_the_plain_form_stays_where_it_gains_more_than_chance(plain_db: float, kept: str) -> None:
    told = as_written.told(quantized(plain_db), quantized(15.0))
    assert {as_written.AS_WRITTEN, as_written.REWRITTEN} & set(told.changes) == {kept}
    assert told.worst_db == told.tried[kept]
    assert told.tried[as_written.REWRITTEN] == 15.0
    assert told.tried[as_written.AS_WRITTEN] == plain_db


@pytest.mark.parametrize(("worst_db", "expected"), [(19.0, True), (30.0, False), (None, False)])
def test_only_what_is_judged_and_poor_is_tried_again(worst_db: float | None, expected: bool) -> None:
    assert as_written.is_worth_a_try(JOB, quantized(worst_db)) is expected
    assert not as_written.is_worth_a_try(msgspec.structs.replace(JOB, optimize=False), quantized(worst_db))


def test_each_format_has_a_folder_of_its_own_with_the_same_samples(tmp_path: Path) -> None:
    job = msgspec.structs.replace(JOB, directory=str(tmp_path))
    job.store([], [])
    first, second = as_written.job_for(job), as_written.job_for(job)
    assert first.folder != second.folder
    assert first.samples() == second.samples() == []
    assert not first.optimize
