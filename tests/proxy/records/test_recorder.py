"""Finished calls on disk: never in a call's way, found at once, bounded when the disk fails."""

from __future__ import annotations

import math
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.jobs import Job
from modelsplit_proxy.protocol.stream_end import Usage
from modelsplit_proxy.records import recorder as module
from modelsplit_proxy.records import rows
from modelsplit_proxy.records.job_reader import JobReader
from modelsplit_proxy.records.query import Query
from modelsplit_proxy.records.recorder import Recorder
from support.records import answered, begun, fallen_back, turned_away
from support.stores import execute, locked, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    from modelsplit_proxy.records.record import CallRecord


def ids(recorder: Recorder, limit: int = 10) -> list[str]:
    return [call["request_id"] for call in recorder.reader.latest(Query(), limit)]


def test_close_writes_what_is_left_and_the_next_process_reads_it(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        recorder.call_ended(answered(request_id="a"))
        recorder.call_ended(turned_away(request_id="b", started_wall=1795393800.0))
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        found = recorder.reader.find("a")
        assert found is not None
        assert (found["llm_model"], found["outcome"]) == ("qwen3:4b", "ok")
        assert ids(recorder) == ["b", "a"]


def test_a_call_that_has_been_noted_is_found_at_once(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        recorder.call_ended(fallen_back(request_id="now"))
        found = recorder.reader.find("now")
        assert found is not None
        assert found["fallback_cause"] == "E_UNREACHABLE_LOCAL"
        assert repr(recorder) == "<Recorder 0 waiting, 0 dropped>"


def test_a_call_that_never_got_a_role_is_kept_too(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        Recorder(store).call_ended(begun(request_id="early"))
    found = execute(tmp_path, "SELECT request_id, role, started_us, total_us FROM calls")
    assert found == [("early", None, 1795393743250000, 0)]


def test_more_calls_than_one_batch_takes(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        for number in range(1201):
            recorder.call_ended(answered(request_id=f"r{number}"))
        assert len(ids(recorder, 2000)) == 1201
    assert execute(tmp_path, "SELECT count(*) FROM attempts") == [(1201,)]


def test_a_line_that_is_long_is_written_without_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch every fifth of a second would be a thousand calls a second and no more."""
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        hurried = threading.Event()
        monkeypatch.setattr(store, "hurry", hurried.set)
        with locked(tmp_path):
            for number in range(500):
                recorder.call_ended(answered(request_id=f"r{number}"))
        assert hurried.wait(5)


def test_an_urgent_write_does_not_wait_for_a_whole_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while the tenth of a hundred rows is written, and finds ten."""
    put_together = rows.call_row
    urgent: list[Future[list[tuple[int]]]] = []

    def call_row(record: CallRecord) -> rows.Row:
        if record.request_id == "r9":
            count = "SELECT count(*) FROM calls"
            urgent.append(store.submit(lambda db: db.execute(count).fetchall(), urgent=True))
        return put_together(record)

    monkeypatch.setattr(rows, "call_row", call_row)
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        with locked(tmp_path):
            for number in range(100):
                recorder.call_ended(answered(request_id=f"r{number}"))
        assert len(ids(recorder, 200)) == 100
        [found] = urgent
        assert found.result() == [(10,)]


def test_calls_of_one_job_are_summed_up(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        recorder.call_ended(answered(request_id="a", job_id="job-1"))
        recorder.call_ended(turned_away(request_id="b", job_id="job-1", started_wall=1795393800.0))
        recorder.call_ended(answered(request_id="c", job_id="job-2"))
        recorder.call_ended(answered(request_id="d"))
        reader = JobReader(recorder.read)
        kept = reader.find("job-1")
        assert kept is not None
        assert kept.job == Job(1795393743250000, 1795393802000000)
        assert kept.sums == {
            "calls": 2,
            "failures": 1,
            "executor_calls": 0,
            "planner": 2,
            "executor": 0,
            "heavy": 0,
            "cloud": 0,
            "chat": 0,
            "tools": 0,
            "late": 0,
            "prompt_tokens": 11,
            "output_tokens": 6,
            "cost_usd": 0.0,
            "cost_unknown": 1,
        }
        assert reader.find("nobody's") is None
    assert execute(tmp_path, "SELECT count(*) FROM jobs") == [(2,)]


# --- A disk that fails ------------------------------------------------------------------------


def test_records_wait_while_the_file_is_locked_and_are_written_once_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store, monkeypatch.context() as hasty:
        recorder = Recorder(store)
        hasty.setattr(module, "_CATCH_UP_S", 0.01)
        with locked(tmp_path):
            for number in range(3):
                recorder.call_ended(answered(request_id=f"kept-{number}"))
            assert recorder.reader.find("kept-1") is None
            # But nobody is told that there are no such calls.
            waiting = [call["request_id"] for call in recorder.latest(Query(), 10)]
            assert sorted(waiting) == ["kept-0", "kept-1", "kept-2"]
            assert recorder.latest(Query(failed=True), 10) == []
            found = recorder.find("kept-1")
            assert found is not None
            assert [attempt["model"] for attempt in found["attempts"]] == ["qwen3:4b"]
            assert repr(recorder) == "<Recorder 3 waiting, 0 dropped>"
        hasty.undo()
        assert recorder.reader.find("kept-1") is not None
        assert execute(tmp_path, "SELECT count(*) FROM calls") == [(3,)]
        assert recorder.dropped == 0


def test_records_beyond_what_can_wait_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING", 3)
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        with locked(tmp_path):
            for number in range(5):
                recorder.call_ended(answered(request_id=f"r{number}"))
            assert repr(recorder) == "<Recorder 3 waiting, 2 dropped>"
        assert sorted(ids(recorder)) == ["r0", "r1", "r2"]


def test_records_that_cannot_be_written_are_dropped_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        execute(tmp_path, "ALTER TABLE calls RENAME TO away")
        recorder.call_ended(answered(request_id="lost"))
        recorder.catch_up()
        execute(tmp_path, "ALTER TABLE away RENAME TO calls")
        recorder.call_ended(answered(request_id="kept"))
        assert ids(recorder) == ["kept"]
        assert recorder.dropped == 1
    assert "the record of lost is lost: OperationalError: no such table: calls" in caplog.text


def test_a_record_that_cannot_be_written_takes_no_other_along(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        with locked(tmp_path):
            for name in ("before", "odd", "after"):
                record = answered(request_id=name)
                if name == "odd":
                    record.status = object()  # type: ignore[assignment]
                recorder.call_ended(record)
        assert sorted(ids(recorder)) == ["after", "before"]
        assert repr(recorder) == "<Recorder 0 waiting, 1 dropped>"
    assert caplog.text.count("the record of odd is lost") == 1
    assert execute(tmp_path, "SELECT count(*) FROM attempts") == [(2,)]


def test_a_call_that_ends_after_the_store_has_closed_harms_nobody(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        recorder = Recorder(store)
    for _ in range(2):
        recorder.call_ended(answered())
    assert repr(recorder) == "<Recorder 2 waiting, 0 dropped>"


# --- A record that cannot be written by its own fault ------------------------------------------


def with_tokens(request_id: str, tokens: Any) -> CallRecord:
    record = answered(request_id=request_id, job_id="job-1")
    record.attempts[0].usage = Usage(tokens, tokens)
    return record


POISONED: dict[str, tuple[Callable[[], CallRecord], str]] = {
    "a number beyond 64 bits": (lambda: with_tokens("odd", 2**64 - 1), "OverflowError"),
    "half a character in a model": (
        lambda: answered(request_id="odd", requested_model="a\ud800"),
        "UnicodeEncodeError",
    ),
    "half a character in a job": (
        lambda: answered(request_id="odd", job_id="\udfff"),
        "UnicodeEncodeError",
    ),
    "a value of no type": (lambda: with_tokens("odd", object()), "ProgrammingError|InterfaceError"),
    "a time that is none": (
        lambda: answered(request_id="odd", started_wall=math.nan),
        "ValueError",
    ),
    "a time without end": (
        lambda: answered(request_id="odd", started_wall=math.inf),
        "OverflowError",
    ),
}


@pytest.mark.parametrize("name", POISONED)
def test_whatever_is_wrong_with_a_record_the_others_are_written(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, error = POISONED[name]
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        with locked(tmp_path):
            for number in range(5):
                recorder.call_ended(answered(request_id=f"before-{number}"))
            record = make()
            if name.endswith("model"):
                record.requested_model = "a\ud800"
            recorder.call_ended(record)
            recorder.call_ended(with_tokens("after", 7))
        assert len(ids(recorder)) == 6
        recorder.call_ended(answered(request_id="later"))
        assert len(ids(recorder)) == 7
        assert repr(recorder) == "<Recorder 0 waiting, 1 dropped>"
        kept = JobReader(recorder.read).find("job-1")
        assert kept is not None
        assert (kept.sums["calls"], kept.sums["output_tokens"]) == (1, 7)
    [said] = [r.getMessage() for r in caplog.records if "is lost" in r.getMessage()]
    assert re.match(f"the record of odd is lost: .*({error})", said)


def test_an_error_of_a_kind_that_nobody_foresaw_is_the_records_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class UnforeseenError(Exception):
        pass

    put_together = rows.call_row

    def call_row(record: CallRecord) -> rows.Row:
        if record.request_id == "odd":
            raise UnforeseenError
        return put_together(record)

    monkeypatch.setattr(rows, "call_row", call_row)
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        for name in ("a", "odd", "b"):
            recorder.call_ended(answered(request_id=name))
        assert sorted(ids(recorder)) == ["a", "b"]
        assert recorder.dropped == 1


def test_where_not_even_one_by_one_works_the_line_still_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each batch that fails costs the record before it: nothing stands still for ever."""
    with opened(tmp_path) as store:
        recorder = Recorder(store)

        def fails(db: object) -> tuple[int, int]:
            del db
            raise RuntimeError("no way")

        with monkeypatch.context() as broken:
            broken.setattr(recorder, "_write", fails)
            broken.setattr(recorder, "_write_one_by_one", fails)
            for name in ("a", "b", "c"):
                recorder.call_ended(answered(request_id=name))
            recorder.catch_up()
            assert repr(recorder) == "<Recorder 0 waiting, 3 dropped>"
        recorder.call_ended(answered(request_id="d"))
        assert ids(recorder) == ["d"]
    assert caplog.text.count("is lost: RuntimeError: no way") == 3
