"""The table of faults: what goes wrong upstream, and what a client of each dialect sees of it.

PLANNER's first model has the fault and its second has none; CHAT has no second model. The same
table with times, between real processes, comes from ``bench/faults.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from modelsplit_sim.config import SimConfig
from modelsplit_sim.models import DEFAULT_MODELS
from support.calls import call
from support.faults import CHAT, FAULTS, PLANNER, PRIMARY, ROLE_MS, ROUTES, STALL_MS
from support.harness import running, warm
from support.seen import seen

if TYPE_CHECKING:
    from modelsplit_proxy.records.record import CallRecord
    from support.harness import Running
    from support.wire import Answer

pytestmark = pytest.mark.flowing_time

SIM = SimConfig(tokens=6, num_parallel=8, max_loaded=5, models=(*DEFAULT_MODELS, CHAT))
HASTY = {"roles": {"PLANNER": {"timeout_ms": ROLE_MS, "max_queue": 1}}}
GOOD = "200 whole"


class Row(NamedTuple):
    """``planner``, ``chat``: what a stream's client sees, then what any other does.

    ``sent``: calls upstream for the same four.
    """

    planner: tuple[str, str]
    chat: tuple[str, str]
    sent: tuple[int, int, int, int]


def _no_answer(words: str, *, sent: int = 1) -> Row:
    """Nothing came, so the second model may be asked whatever was asked for."""
    return Row((GOOD, GOOD), (words, words), (2, 2, sent, sent))


def _half(words: str, planner: str, chat: str, *, planner_sent: int = 2) -> Row:
    """A stream that has begun stays with its model; a held answer can still be replaced."""
    return Row((words, planner), (words, chat), (1, planner_sent, 1, 1))


AWAY = "502 E_UNREACHABLE_LOCAL connect_refused whole"
BROKEN = "200 E_STREAM_BROKEN_LOCAL"
CUT = f"{BROKEN} truncated told"
OPEN = f"{BROKEN} unterminated told"
LATE = "504 E_TIMEOUT_LOCAL role_timeout whole"
TABLE = {
    "refused connection": Row((AWAY, AWAY), (AWAY, AWAY), (0, 0, 0, 0)),
    "reset before the head": _no_answer("502 E_UNREACHABLE_LOCAL reset whole"),
    "hang before the head": _no_answer(LATE),
    "slow load": Row((GOOD, GOOD), (GOOD, GOOD), (1, 1, 1, 1)),
    # Ollama's own words, so without a reason of ours.
    "status 500": _no_answer("500 E_UPSTREAM_LOCAL whole"),
    "503 busy": _no_answer("503 E_OVERLOAD_THROTTLED whole"),
    "404 model": _no_answer("404 E_MODEL_NOT_FOUND not_installed whole"),
    # Half an answer is none, however it is framed.
    "cut, framed as whole": _half(OPEN, GOOD, "502 E_UPSTREAM_LOCAL unterminated whole"),
    "cut by FIN": _half(CUT, GOOD, "502 E_UNREACHABLE_LOCAL truncated whole"),
    "cut by RST": _half(CUT, GOOD, "502 E_UNREACHABLE_LOCAL truncated whole"),
    # Without a stream a stall is no byte at all: the role's clock ends it.
    "stall": _half("200 E_TIMEOUT_LOCAL stall told", GOOD, LATE),
    "error line": _half(OPEN, GOOD, "500 E_UPSTREAM_LOCAL whole"),
    # CHAT gets what Ollama takes for an answer, with the code in a header.
    "repeat cutoff": _half(OPEN, GOOD, "200 E_UPSTREAM_LOCAL silent"),
}
# Where a dialect differs: (fault, route, role's model, streamed) -> what is seen, calls upstream.
EXCEPT = {
    # Ollama's own line says it; the event streams of the other two lose the text of it.
    ("error line", "/api/chat", PLANNER, True): ("200 upstream told", 1),
    ("error line", "/api/chat", CHAT, True): ("200 upstream told", 1),
}


def expected(fault: str, route: str, model: str, *, stream: bool) -> tuple[str, int]:
    other = EXCEPT.get((fault, route, model, stream))
    if other is not None:
        return other
    row = TABLE[fault]
    at = (0 if model == PLANNER else 2) + (0 if stream else 1)
    return (*row.planner, *row.chat)[at], row.sent[at]


def test_the_table_has_a_row_for_every_fault() -> None:
    assert TABLE.keys() == FAULTS.keys()


async def struck(up: Running, fault: str, model: str) -> None:
    """The stand-in, its models and what is known of them, as the fault wants them."""
    rule = FAULTS[fault]
    target = PRIMARY if model == PLANNER else CHAT
    if fault == "slow load":
        await up.app.loaded_models.ask()
    else:
        await warm(up, target)
    if rule is None:
        await up.sim.stop()
    else:
        up.sim.faults.add(**rule, model=target)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("model", [PLANNER, CHAT], ids=["planner", "chat"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_what_a_client_sees_of_a_fault(
    fault: str, model: str, route: str, *, stream: bool
) -> None:
    async with (
        running(SIM, HASTY, stall_timeout_s=STALL_MS / 1000) as up,
        up.client() as client,
    ):
        await struck(up, fault, model)
        before = len(up.asked)
        body = call(route, model, stream=stream)
        answer = await client.request("POST", route, body, {"X-LLM-Timeout-Ms": str(ROLE_MS)})
        [record] = await up.calls.wait()
        sent = len(up.asked) - before
        words, calls = expected(fault, route, model, stream=stream)
        assert (str(seen(route, answer)), sent) == (words, calls)
        await agrees(up, record, answer, words)
        # Nobody is there for a second model either.
        tried = 2 if model == PLANNER and calls > 1 else 1
        assert len(record.attempts) == tried
        assert answer["X-LLM-Attempt"] == str(tried)


async def agrees(up: Running, record: CallRecord, answer: Answer, words: str) -> None:
    """The record tells what the client saw, and nothing is left over."""
    if words in {GOOD, "200 silent"}:
        assert (record.outcome, record.call.state) == ("ok", "completed")
        second = "qwen3:8b" if len(record.attempts) == 2 else record.attempts[0].model
        assert answer["X-LLM-Model"] == second
    else:
        assert record.failure is not None
        assert record.failure.code in words or "upstream" in words
        assert record.call.state == ("truncated" if words.endswith("told") else "failed")
    assert up.seats() == (0, 0)
    await up.sim.wait_for(lambda sim: sim.active == 0)
