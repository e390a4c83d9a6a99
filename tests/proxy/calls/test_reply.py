"""What the client of one call gets, and that nothing of it is ever taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import orjson
import pytest

from modelsplit_policy.call import Event, IllegalTransitionError, State
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.roles import Candidate, Route
from modelsplit_policy.vocabulary import Context, Provider, Role, RouteReason
from modelsplit_proxy.calls.reply import OwnAnswer, Reply, ReplyParts, Setback
from modelsplit_proxy.http.upstream import UpstreamHead
from modelsplit_proxy.protocol.stream_end import StreamVerdict, Usage
from modelsplit_proxy.records.record import CallRecord
from modelsplit_proxy.runtime.lifecycle import Lifecycle
from support.attempts import JSON, NDJSON, TOKEN, Heard, Ticking, downstream, request
from support.budget_keepers import without_a_file
from support.calls import ERROR_FIELDS
from support.endpoints import endpoint
from support.harness import Overlay, policy
from support.records import PLANNER, QUEUE_FULL, routed

CHAT = Route(
    role=Role.CHAT,
    context=Context.CHAT,
    provider=Provider.LOCAL,
    requested_model="x",
    candidates=(Candidate("x", None),),
    reason=RouteReason.DEFAULT,
)
BROKEN = Failure(ErrorCode.STREAM_BROKEN_LOCAL, Reason.TRUNCATED, "it broke off", "Stream Broken")
CUT_OFF = Failure(ErrorCode.UPSTREAM_LOCAL, Reason.UNTERMINATED, "it gave up", "Unterminated")
UNFIT = Failure(ErrorCode.SCHEMA_INVALID, Reason.SCHEMA, "it does not fit", "Schema Invalid")
FAILED = Failure(ErrorCode.UPSTREAM_LOCAL, Reason.STATUS, "it failed", "Upstream Failed")


def head(status: int = 200, *more: tuple[bytes, bytes], phrase: bytes = b"OK") -> UpstreamHead:
    return UpstreamHead(status, phrase, [JSON, *more], None)


def own(
    body: bytes, status: int = 200, *, phrase: bytes = b"OK", role: Role = Role.CHAT
) -> OwnAnswer:
    return OwnAnswer(head(status, phrase=phrase), body, role)


def verdict(*, mid_line: bool) -> StreamVerdict:
    return StreamVerdict(complete=False, error=None, mid_line=mid_line, usage=Usage())


class Stage:
    """A reply whose call has been sent upstream, unless it is still to be."""

    def __init__(
        self,
        route: Route = PLANNER,
        *,
        overlay: Overlay | None = None,
        label: str = "/api/chat",
        headers: dict[str, str] | None = None,
        read: bool = True,
        dispatched: bool = True,
    ) -> None:
        self.heard = Heard()
        self.lifecycle = Lifecycle()
        self.record: CallRecord = routed(route, endpoint=endpoint(label))
        self.record.attempt(route.candidates[0], 100.0)
        if dispatched:
            self.record.call.step(Event.ADMIT)
            self.record.call.step(Event.DISPATCH)
        rules = policy(overlay).policy
        parts = ReplyParts(rules, without_a_file(rules), Ticking(), self.lifecycle)
        incoming = request(headers, read=read)
        self.reply = Reply(parts, incoming, downstream(self.heard), self.record)

    def told(self) -> dict[str, object]:
        """The error in the body, as one line."""
        assert self.heard.body.count(b"\n") == 1
        found: dict[str, object] = self.heard.json
        return found


# --- An answer --------------------------------------------------------------------------------


def test_an_answer_is_the_upstreams_head_with_our_tags() -> None:
    stage = Stage()
    upstream = head(200, (b"Connection", b"keep-alive"), (b"X-Of-Its-Own", b"1"), phrase=b"Fine")
    stage.reply.commit(upstream, length=3, total=True)
    stage.reply.down.write(b"abc")
    stage.reply.complete()
    heard = stage.heard
    assert (heard.status, heard.phrase, heard.length) == (200, "Fine", 3)
    assert heard.header("X-Of-Its-Own") == "1"
    assert heard.header("Connection") is None
    assert heard.header("X-LLM-Model") == "qwen3:4b"
    assert heard.header("X-LLM-Error-Code") is None
    assert "total;dur=" in (heard.header("Server-Timing") or "")
    assert (heard.body, heard.ending) == (b"abc", "clean")
    assert (stage.record.call.state, stage.record.status) == (State.COMPLETED, 200)


def test_a_stream_that_begins_has_no_total_yet() -> None:
    stage = Stage()
    stage.reply.commit(head(), length=None, total=False)
    assert stage.heard.length is None
    assert "total" not in (stage.heard.header("Server-Timing") or "")


def test_a_reply_begins_once() -> None:
    stage = Stage()
    stage.reply.commit_early(b"application/x-ndjson", TOKEN)
    stage.reply.commit(head(503), length=3, total=True)
    assert stage.heard.heads == 1
    assert stage.heard.status == 200
    assert stage.record.call.state is State.STREAMING


def test_nothing_is_said_before_the_call_was_sent() -> None:
    stage = Stage(dispatched=False)
    with pytest.raises(IllegalTransitionError):
        stage.reply.commit(head(), length=None, total=False)
    assert stage.heard.heads == 0


def test_an_early_head_is_a_head_of_ours() -> None:
    stage = Stage(headers={"Origin": "http://localhost:3000"})
    stage.reply.commit_early(b"application/x-ndjson", TOKEN)
    heard = stage.heard
    assert (heard.status, heard.phrase, heard.length) == (200, "OK", None)
    assert heard.header("Content-Type") == "application/x-ndjson"
    assert heard.header("Date")
    assert heard.header("X-LLM-Role") == "PLANNER"
    assert heard.header("Access-Control-Allow-Origin") == "http://localhost:3000"
    assert (heard.body, heard.ending) == (TOKEN, None)
    assert (stage.record.status, stage.record.streamed) == (200, True)


# Every way to begin an answer.
BEGIN: tuple[Callable[[Reply], None], ...] = (
    lambda reply: reply.commit(head(), length=0, total=True),
    lambda reply: reply.commit_early(b"application/x-ndjson", TOKEN),
    lambda reply: reply.set_back(Setback(QUEUE_FULL)),
    lambda reply: reply.set_back(Setback(FAILED, own(b'{"error":"x"}', 500))),
)


@pytest.mark.parametrize("draining", [True, False])
def test_a_process_that_drains_keeps_no_connection(*, draining: bool) -> None:
    for say in BEGIN:
        stage = Stage()
        stage.lifecycle.draining = draining
        say(stage.reply)
        assert stage.heard.closes == draining


# --- A break ----------------------------------------------------------------------------------


def test_a_break_between_lines_is_told_in_the_next_one() -> None:
    stage = Stage()
    stage.reply.commit(UpstreamHead(200, b"OK", [NDJSON], None), length=None, total=False)
    stage.reply.down.write(TOKEN)
    stage.reply.break_off(BROKEN, verdict(mid_line=False))
    *before, last = stage.heard.body.splitlines()
    told = orjson.loads(last)
    assert before == [TOKEN.rstrip()]
    assert told.keys() >= ERROR_FIELDS
    assert (told["error"], told["error_code"]) == ("it broke off", "E_STREAM_BROKEN_LOCAL")
    assert stage.heard.ending == "clean"
    assert stage.record.call.state is State.TRUNCATED
    assert stage.record.failure is BROKEN


def test_in_sse_it_is_an_event() -> None:
    stage = Stage(label="/v1/chat/completions")
    stage.reply.commit(head(), length=None, total=False)
    stage.reply.break_off(BROKEN, verdict(mid_line=False))
    assert stage.heard.body.startswith(b"event: error\ndata: {")
    assert stage.heard.body.endswith(b"}\n\n")


@pytest.mark.parametrize("seen", [verdict(mid_line=True), None], ids=["mid-line", "unreadable"])
def test_where_nothing_can_be_added_the_line_breaks(seen: StreamVerdict | None) -> None:
    stage = Stage()
    stage.reply.commit(head(), length=None, total=False)
    stage.reply.down.write(b'{"half')
    stage.reply.break_off(BROKEN, seen)
    assert (stage.heard.body, stage.heard.ending) == (b'{"half', "broken")
    assert stage.record.call.state is State.TRUNCATED


def test_an_error_that_the_upstream_told_itself_is_not_told_twice() -> None:
    own = b'{"error":"its own words"}\n'
    stage = Stage()
    stage.reply.commit(head(), length=None, total=False)
    stage.reply.down.write(own)
    said = Failure(ErrorCode.STREAM_BROKEN_LOCAL, Reason.ERROR_LINE, "Ollama failed", "Broken")
    told = replace(verdict(mid_line=False), error="its own words")
    stage.reply.break_off(said, told)
    assert (stage.heard.body, stage.heard.ending) == (own, "clean")
    assert stage.record.outcome == "E_STREAM_BROKEN_LOCAL"


def test_a_failure_after_an_early_head_is_told_inside() -> None:
    stage = Stage()
    stage.reply.commit_early(b"application/x-ndjson", TOKEN)
    stage.reply.break_early(FAILED)
    assert orjson.loads(stage.heard.body.splitlines()[-1])["reason"] == "status"
    assert stage.heard.ending == "clean"
    assert stage.record.call.state is State.TRUNCATED


# --- No answer --------------------------------------------------------------------------------


def test_a_failure_of_ours_is_one_line_with_everything() -> None:
    stage = Stage(dispatched=False)
    stage.reply.set_back(Setback(QUEUE_FULL))
    heard = stage.heard
    assert (heard.status, heard.phrase, heard.ending) == (503, "Queue Full", "clean")
    assert heard.length == len(heard.body)
    assert heard.header("Content-Type") == "application/json"
    assert heard.header("Retry-After") == "4"
    assert heard.header("X-LLM-Error-Code") == "E_OVERLOAD_THROTTLED"
    assert stage.told().keys() >= ERROR_FIELDS
    assert (stage.record.failure, stage.record.status) == (QUEUE_FULL, 503)


def test_the_upstreams_own_words_pass_with_their_status() -> None:
    said = b'{"error":"its own words"}'
    stage = Stage()
    stage.reply.set_back(Setback(FAILED, own(said, 507, phrase=b"Own Phrase")))
    heard = stage.heard
    assert (heard.status, heard.phrase, heard.body) == (507, "Own Phrase", said)
    assert heard.length == len(said)
    assert heard.header("X-LLM-Error-Code") == "E_UPSTREAM_LOCAL"
    assert stage.record.status == 507


@pytest.mark.parametrize("said", [b"", b"<html>", b'{\n"error":"x"}', b'{"error":""}'])
def test_words_that_no_client_can_show_keep_the_status_and_get_ours(said: bytes) -> None:
    stage = Stage()
    stage.reply.set_back(Setback(FAILED, own(said, 507)))
    assert (stage.heard.status, stage.heard.phrase) == (507, "Upstream Failed")
    assert stage.told()["error"] == "it failed"
    assert stage.record.status == 507


@pytest.mark.parametrize(
    ("route", "failure", "overlay", "passes"),
    [
        (CHAT, CUT_OFF, {}, True),
        (PLANNER, CUT_OFF, {}, False),
        (PLANNER, UNFIT, {}, False),
        (PLANNER, UNFIT, {"roles": {"PLANNER": {"on_schema_failure": "pass"}}}, True),
        (CHAT, UNFIT, {"roles": {"CHAT": {"on_schema_failure": "error"}}}, False),
    ],
)
def test_a_200_that_is_no_answer_passes_only_where_somebody_wants_it(
    route: Route, failure: Failure, overlay: Overlay, *, passes: bool
) -> None:
    said = b'{"response":"half","done":false}'
    stage = Stage(route, overlay=overlay)
    stage.reply.set_back(Setback(failure, own(said, role=route.role)))
    assert stage.heard.header("X-LLM-Error-Code") == failure.code
    assert stage.record.failure is failure
    if passes:
        assert (stage.heard.status, stage.heard.body) == (200, said)
    else:
        # 200 was the upstream's; what it amounts to has a status of its own.
        assert stage.heard.status == failure.status == 502
        assert stage.told()["error"] == failure.message


def test_a_body_that_was_not_read_to_its_end_spoils_the_connection() -> None:
    for read in (True, False):
        stage = Stage(read=read, dispatched=False)
        stage.reply.set_back(Setback(QUEUE_FULL))
        assert stage.heard.closes is not read


def test_a_browser_may_read_an_error() -> None:
    stage = Stage(headers={"Origin": "http://localhost:3000"}, dispatched=False)
    stage.reply.set_back(Setback(QUEUE_FULL))
    assert stage.heard.header("Access-Control-Allow-Origin") == "http://localhost:3000"
    assert "X-LLM-Error-Code" in (stage.heard.header("Access-Control-Expose-Headers") or "")
