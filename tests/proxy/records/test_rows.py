"""A call as rows and back: nothing is lost that its log line says, and little is written."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import orjson
import pytest

from modelsplit_policy.call import Event
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.prices import Price
from modelsplit_policy.vocabulary import Provider, Purpose, Role
from modelsplit_proxy.records import rows
from modelsplit_proxy.records.record import CallRecord
from modelsplit_proxy.records.values import finished, log_fields
from modelsplit_proxy.storage.migrations import MIGRATIONS
from support.records import PLANNER, answered, begun, fallen_back, routed, turned_away
from support.stores import kept


def abandoned() -> CallRecord:
    record = routed(request_id="left", client_retry=True, applied=("num_ctx 8192->4096",))
    record.call.step(Event.CLIENT_GONE)
    record.status, record.ended = 499, 100.5
    record.failure = Failure(ErrorCode.CLIENT_GONE, Reason.QUEUED, "it left", "Client Gone")
    return record


@pytest.mark.parametrize(
    "record",
    [
        answered(),
        answered(job_id="job-1", streamed=True, schema="valid"),
        answered(purpose=Purpose.FAILURE_ANALYSIS),
        answered(request_id="x" * 128, requested_model="m" * 300),
        fallen_back(),
        turned_away(),
        abandoned(),
        begun(ended=100.25),
        routed(PLANNER._replace(role=Role.CLOUD, provider=Provider.CLOUD), ended=100.0),
    ],
    ids=["plain", "job", "purpose", "long", "fallback", "refused", "left", "early", "cloud"],
)
def test_what_the_log_line_says_can_be_read_back(record: CallRecord) -> None:
    said = orjson.loads(orjson.dumps(log_fields(record)))
    call, _ = kept(record)
    read = orjson.loads(orjson.dumps(rows.call_fields(call)))
    assert {field: read[field] for field in said} == said
    assert read.keys() - said.keys() <= {"candidates", "no_fallback"}


def test_a_call_that_went_well_needs_no_json() -> None:
    call, [attempt] = kept(answered())
    assert call[-1] is None
    assert attempt[-1] is None


def test_columns_at_the_end_that_would_be_null_are_not_written() -> None:
    statement, values = rows.insert_call(answered())
    assert statement.count("?") == len(values) == 27
    assert "job_id" not in statement
    bare = answered()
    bare.attempts[0].usage = bare.attempts[0].usage._replace(load_s=None, finish_reason=None)
    [row] = rows.attempt_rows(7, bare)
    assert (rows.insert_call(bare)[1][-1], rows.insert_attempt(row)[1][-1]) == (6, 6)
    statement, values = rows.insert_call(answered(job_id="j"))
    assert statement.count("?") == len(values) == 28


def test_a_field_of_later_is_kept_without_a_column() -> None:
    record = answered()
    finished(record)[2]["budget"] = {"name": "heavy-20b", "left": 3}
    assert log_fields(record)["budget"] == {"name": "heavy-20b", "left": 3}
    call, _ = kept(record)
    assert rows.call_fields(call)["budget"] == {"name": "heavy-20b", "left": 3}


def test_attempts_count_from_the_calls_start() -> None:
    record = fallen_back()
    record.attempts[1].sent = True
    record.attempts[1].price = Price(0.0, 0.0)
    _, attempts = kept(record)
    first, second = map(rows.attempt_fields, attempts)
    assert first == {
        "number": 1,
        "model": "qwen3:4b",
        "outcome": "E_UNREACHABLE_LOCAL",
        "reason": "connect_refused",
        "upstream_status": None,
        "ahead": 0,
        "asked_ms": 0.0,
        "seated_ms": 0.0,
        "dispatched_ms": 0.0,
        "first_ms": None,
        "ended_ms": 1000.0,
        "load_ms": None,
        "prompt_ms": None,
        "eval_ms": None,
        "upstream_wait_ms": None,
        "prompt_tokens": None,
        "output_tokens": None,
        "cost_usd": 0.0,
        "seats": None,
        "error": "Ollama is not answering",
    }
    assert (second["number"], second["outcome"], second["model"]) == (2, "ok", "qwen3:8b")
    assert [second[f"{name}_ms"] for name in ("asked", "seated", "first", "ended")] == [
        1000.0,
        1250.0,
        2000.0,
        4000.0,
    ]
    assert "error" not in second


def test_a_job_is_one_more_call() -> None:
    names = ("first_us", "last_us", "calls", "failures", "planner", "executor_calls", "late")
    with closing(sqlite3.connect(":memory:")) as db:
        for statement in (statement for step in MIGRATIONS for statement in step):
            db.execute(statement)
        for record in (answered(job_id="j"), turned_away(job_id="j", started_wall=1000.0)):
            db.execute(rows.UPSERT_JOB, rows.job_row(record))
        [row] = db.execute(f"SELECT {', '.join(names)} FROM jobs").fetchall()
    assert row == (1_000_000_000, 1795393746250000, 2, 1, 2, 0, 0)
