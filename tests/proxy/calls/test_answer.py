"""One answer read to its end: what is held, what passes, and what a break turns into."""

from __future__ import annotations

import orjson
import pytest

from modelsplit_policy.call import State
from modelsplit_policy.roles import Candidate
from modelsplit_proxy.calls import answer
from modelsplit_proxy.http.upstream import Fault, UpstreamError, UpstreamHead
from support.attempts import DONE, JSON, NDJSON, SSE, TOKEN, Trial, Upstream, answers

pytestmark = pytest.mark.flowing_time

GOOD = b'{"model":"qwen3:4b","response":"hi","done":true,"eval_count":7}'
RESET = UpstreamError(Fault.RESET, "it closed the connection unanswered")
CUT = UpstreamError(Fault.TRUNCATED, "it closed the connection mid-answer")
QUICK = Candidate("qwen3:4b", 0.02)


# --- An answer --------------------------------------------------------------------------------


async def test_a_held_answer_is_shown_whole() -> None:
    trial = Trial(answers(200, GOOD[:9], GOOD[9:]))
    assert await trial.run() is None
    heard = trial.heard
    assert (heard.status, heard.length, heard.body, heard.ending) == (
        200,
        len(GOOD),
        GOOD,
        "clean",
    )
    assert trial.record.call.state is State.COMPLETED
    assert trial.record.usage.output_tokens == 7
    assert trial.record.streamed is False
    assert trial.admission_queue.began == 1
    assert trial.left_once


@pytest.mark.parametrize("error", [None, RESET])
async def test_the_end_marker_decides_not_how_the_connection_fared_after_it(
    error: UpstreamError | None,
) -> None:
    trial = Trial(answers(200, TOKEN, DONE, kind=NDJSON, error=error))
    assert await trial.run() is None
    assert (trial.heard.body, trial.heard.ending) == (TOKEN + DONE, "clean")
    assert (trial.record.call.state, trial.record.outcome) == (State.COMPLETED, "ok")
    assert trial.record.usage.output_tokens == 2
    assert trial.heard.length is None


@pytest.mark.parametrize(
    ("pieces", "error", "code", "reason", "ending"),
    [
        ((TOKEN,), None, "E_STREAM_BROKEN_LOCAL", "unterminated", "clean"),
        ((TOKEN,), CUT, "E_STREAM_BROKEN_LOCAL", "truncated", "clean"),
        ((TOKEN, b'{"half'), CUT, "E_STREAM_BROKEN_LOCAL", "truncated", "broken"),
        ((TOKEN, b'{"error":"x"}\n'), None, "E_STREAM_BROKEN_LOCAL", "error_line", "clean"),
    ],
)
async def test_a_stream_that_has_begun_has_no_second_chance(
    pieces: tuple[bytes, ...], error: UpstreamError | None, code: str, reason: str, ending: str
) -> None:
    trial = Trial(answers(200, *pieces, kind=NDJSON, error=error))
    assert await trial.run() is None, "nothing may follow it"
    assert trial.heard.ending == ending
    assert trial.record.failure is not None
    assert (trial.record.failure.code, trial.record.failure.reason) == (code, reason)
    assert trial.record.call.state is State.TRUNCATED
    last = orjson.loads(trial.heard.body.splitlines()[-1]) if ending == "clean" else {}
    assert last.get("error_code") == (
        code if ending == "clean" and reason != "error_line" else None
    )
    assert trial.left_once


@pytest.mark.parametrize(
    ("stall_s", "reason", "number"), [(5.0, "role_timeout", "0.05 s"), (0.01, "stall", "0.01 s")]
)
async def test_a_bound_inside_a_stream_is_told_inside_it(
    stall_s: float, reason: str, number: str
) -> None:
    trial = Trial(answers(200, TOKEN, kind=NDJSON, ends=False), stall_s=stall_s)
    assert await trial.run(Candidate("qwen3:4b", 0.05)) is None
    told = orjson.loads(trial.heard.body.splitlines()[-1])
    assert (told["error_code"], told["reason"]) == ("E_TIMEOUT_LOCAL", reason)
    assert number in told["error"]
    assert trial.upstream.aborted == 1


async def test_a_stream_in_sse_is_judged_by_its_own_end() -> None:
    for end, state in [(b"data: [DONE]\n\n", State.COMPLETED), (b"", State.TRUNCATED)]:
        pieces = (b'data: {"choices":[]}\n\n', end) if end else (b'data: {"choices":[]}\n\n',)
        trial = Trial(
            answers(200, *pieces, kind=SSE),
            label="/v1/chat/completions",
        )
        assert await trial.run() is None
        assert trial.record.call.state is state


async def test_a_stream_that_cannot_be_read_passes_as_it_is() -> None:
    head = UpstreamHead(200, b"OK", [NDJSON, (b"Content-Encoding", b"gzip")], None)
    trial = Trial(Upstream(head, (b"\x1f\x8b\n",)))
    assert await trial.run() is None
    assert (trial.heard.body, trial.heard.ending) == (b"\x1f\x8b\n", "clean")
    broken = Trial(Upstream(head, (b"\x1f\x8b\n",), error=CUT))
    assert await broken.run() is None
    assert broken.heard.ending == "broken", "nothing readable can be added"


async def test_an_answer_too_large_to_hold_passes_as_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answer, "HOLD_BYTES", 5)
    head = UpstreamHead(200, b"OK", [JSON], 8)
    trial = Trial(Upstream(head, (b"[1,2,3", b",4")), label="/api/embed")
    assert await trial.run() is None
    assert (trial.heard.body, trial.heard.length) == (b"[1,2,3,4", 8)
    assert trial.record.call.state is State.COMPLETED
