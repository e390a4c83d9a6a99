"""What is read back for objectives is what was kept. The weeks in here are made up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from modelsplit_policy.slo.samples import DOCUMENT_BASELINE, CallSample
from modelsplit_policy.vocabulary import JobState, Loading
from modelsplit_proxy.records import slo_data as module
from modelsplit_proxy.records.recorder import Recorder
from modelsplit_proxy.records.slo_data import SloData
from modelsplit_proxy.storage.state_file import StoreError
from support.records import REFUSED, answered, begun, fallen_back, turned_away
from support.slo_history import COMPARED, NOW_US, breaching, passing, write
from support.stores import execute, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from modelsplit_proxy.records.record import CallRecord

START_US = 1_795_393_743_250_000


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    with opened(tmp_path) as store:
        yield Recorder(store)


def only(recorder: Recorder, record: CallRecord) -> CallSample:
    recorder.call_ended(record)
    [found] = SloData(recorder.read).calls(0, 2 * START_US)
    return found


def test_an_answered_call_is_read_with_all_that_was_measured(recorder: Recorder) -> None:
    assert only(recorder, answered(schema="valid", job_id="j")) == CallSample(
        "req-1",
        START_US,
        START_US + 3_000_000,
        "PLANNER",
        "ok",
        None,
        ("ok",),
        True,
        500_000,
        None,
        # From dispatch to the end 2.5 s, of which 0.25 s to load.
        2_250_000,
        "PLANNER",
        "LOCAL",
        "qwen3:4b",
        False,
        schema_checked=True,
        unfit=False,
        has_error_fields=True,
        has_telemetry=True,
        job_id="j",
    )


def test_a_call_whose_connection_nobody_took_was_not_sent(recorder: Recorder) -> None:
    assert not only(recorder, answered(failure=REFUSED)).sent


def test_both_attempts_say_how_they_ended(recorder: Recorder) -> None:
    found = only(recorder, fallen_back())
    assert found.attempt_codes == ("E_UNREACHABLE_LOCAL", "ok")
    assert (found.fallback_used, found.model) == (True, "qwen3:8b")


def test_a_refused_call_has_every_field_of_its_error(recorder: Recorder) -> None:
    found = only(recorder, turned_away())
    assert (found.outcome, found.reason) == ("E_OVERLOAD_THROTTLED", "queue_full")
    assert (found.sent, found.has_error_fields) == (False, True)


@pytest.mark.parametrize("column", ["reason", "context", "provider", "model"])
def test_a_field_that_is_not_there_is_noticed(
    recorder: Recorder, tmp_path: Path, column: str
) -> None:
    recorder.call_ended(turned_away())
    recorder.read("SELECT 1", ())
    execute(tmp_path, f"UPDATE calls SET {column} = NULL")
    [found] = SloData(recorder.read).calls(0, 2 * START_US)
    assert found.has_error_fields is False


@pytest.mark.parametrize("field", ["error_code", "error_context", "error_provider"])
def test_so_is_one_of_those_that_have_no_column(
    recorder: Recorder, tmp_path: Path, field: str
) -> None:
    recorder.call_ended(turned_away())
    recorder.read("SELECT 1", ())
    execute(tmp_path, f"UPDATE calls SET more = json_remove(more, '$.{field}')")
    [found] = SloData(recorder.read).calls(0, 2 * START_US)
    assert found.has_error_fields is False


def test_a_client_that_named_no_model_has_none_in_its_error(
    recorder: Recorder, tmp_path: Path
) -> None:
    recorder.call_ended(turned_away())
    recorder.read("SELECT 1", ())
    execute(tmp_path, "UPDATE calls SET model = NULL, requested_model = ''")
    [found] = SloData(recorder.read).calls(0, 2 * START_US)
    assert (found.model, found.has_error_fields) == ("", True)


def test_a_measurement_that_is_not_there_is_noticed(recorder: Recorder, tmp_path: Path) -> None:
    recorder.call_ended(answered())
    recorder.read("SELECT 1", ())
    execute(tmp_path, "UPDATE calls SET first_us = NULL")
    [found] = SloData(recorder.read).calls(0, 2 * START_US)
    assert found.has_telemetry is False


def test_a_call_that_only_loads_is_none(recorder: Recorder) -> None:
    recorder.call_ended(answered(loading=Loading.LOAD))
    assert [*SloData(recorder.read).calls(0, 2 * START_US)] == []


def test_a_call_without_a_role_lacks_nothing_that_it_could_have(recorder: Recorder) -> None:
    record = begun()
    record.failure, record.status = turned_away().failure, 400
    record.ended = record.started
    found = only(recorder, record)
    assert (found.role, found.has_error_fields) == (None, True)


@pytest.mark.parametrize("page", [1, 7, 5000])
def test_a_week_comes_back_as_it_was_whatever_the_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(module, "_PAGE", page)
    monkeypatch.setattr(module, "_GENTLE_PAGE", page)
    history = breaching(days=1)
    write(tmp_path, history)
    with opened(tmp_path) as store:
        data = SloData(store.read, gently=page == 7)
        since_us = 0 if page > 1 else NOW_US - 3_600_000_000
        calls = [call for call in history.calls if call.started_us > since_us]
        jobs = [job for job in history.jobs if (job.ended_us or 0) > since_us]
        found = [*data.calls(since_us, NOW_US)]
        assert [call.request_id for call in found] == [call.request_id for call in calls]
        assert [call.attempt_codes for call in found] == [call.attempt_codes for call in calls]
        assert [*data.jobs(since_us, NOW_US + 10**8)] == jobs
        assert data.heartbeats(0, NOW_US) == [*history.heartbeats]
        assert {*data.reviews(0)} == {*history.reviews}
        assert data.baseline() == COMPARED


def test_what_is_outside_the_time_is_not_read(tmp_path: Path) -> None:
    history = passing(days=1)
    write(tmp_path, history)
    with opened(tmp_path) as store:
        data = SloData(store.read)
        since_us, until_us = NOW_US - 7_200_000_000, NOW_US - 3_600_000_000
        found = [*data.calls(since_us, until_us)]
        assert 29 <= len(found) <= 31
        assert all(since_us <= call.started_us <= until_us for call in found)
        assert {beat.at_us // 60_000_000 for beat in data.heartbeats(since_us, until_us)} == {
            *range(since_us // 60_000_000, until_us // 60_000_000)
        }


def test_an_open_job_has_not_ended(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        recorder.call_ended(answered(job_id="j"))
        assert [*SloData(recorder.read).jobs(0, 2 * START_US)] == []
        recorder.read("SELECT 1", ())
        ended = f"ended_us = {START_US + 5}, state = 'expired'"
        execute(tmp_path, f"UPDATE jobs SET {ended}")
        [job] = SloData(store.read).jobs(0, 2 * START_US)
        assert (job.job_id, job.state, job.executor) == ("j", JobState.EXPIRED, False)


def test_without_a_baseline_it_is_the_documents(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert SloData(store.read).baseline() is None
        assert SloData(store.read).samples(0, 1).baseline is DOCUMENT_BASELINE


def test_it_ends_when_it_is_to(tmp_path: Path) -> None:
    looks = iter([None, StoreError("enough")])

    def check() -> None:
        if (error := next(looks)) is not None:
            raise error

    with opened(tmp_path) as store:
        data = SloData(store.read, check)
        assert data.baseline() is None
        with pytest.raises(StoreError, match="enough"):
            next(data.calls(0, 1))


def test_when_the_first_record_was_made_is_told_whatever_the_time(recorder: Recorder) -> None:
    data = SloData(recorder.read)
    assert data.kept_since_us() is None
    recorder.call_ended(answered())
    assert data.samples(2 * START_US, 3 * START_US).kept_since_us == START_US


def test_a_heartbeat_is_a_record_too(tmp_path: Path) -> None:
    history = passing(days=1)
    write(tmp_path, history)
    with opened(tmp_path) as store:
        kept = SloData(Recorder(store).read).kept_since_us()
    first = min(call.started_us for call in history.samples().calls)
    assert kept == min(first, *(beat.at_us for beat in history.samples().heartbeats))
