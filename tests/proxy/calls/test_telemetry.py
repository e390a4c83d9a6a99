"""What the key ``llm`` says, told of calls whose numbers are round."""

from __future__ import annotations

import orjson
import pytest

from modelsplit_policy.prices import Price
from modelsplit_proxy.calls.telemetry import Telemetry, fields
from modelsplit_proxy.protocol.stream_end import Usage
from modelsplit_proxy.records.record import Variant
from modelsplit_proxy.runtime.clock import Clock
from support.records import PLANNER, answered, fallen_back, routed, routing


class At(Clock):
    """A clock that stands at second 103."""

    def now(self) -> float:
        return 103.0

    def wall(self) -> float:
        raise AssertionError


def test_a_call_from_its_line_to_its_end() -> None:
    record = answered()
    record.attempts[0].ended = None  # the answer is about to end
    assert fields(record, routing(record), 103.0) == {
        "request_id": "req-1",
        "role": "PLANNER",
        "context": "PLANNER",
        "provider": "LOCAL",
        "requested_model": "planner",
        "model": "qwen3:4b",
        "attempt": 1,
        "fallback_used": False,
        "route_reason": "alias",
        "variant": None,
        "queue_wait_ms": 500.0,
        "upstream_wait_ms": None,
        "ttfb_ms": 1000.0,
        "llm_latency_ms": 2500.0,
        "total_ms": 3000.0,
        "load_ms": 250.0,
        "prompt_tokens": 11,
        "output_tokens": 6,
        "tokens_per_second": None,
        "cost_usd": None,
    }


def test_a_fallback() -> None:
    record = fallen_back()
    said = fields(record, routing(record), 104.0)
    assert (said["attempt"], said["fallback_used"]) == (2, True)
    assert (said["route_reason"], said["model"]) == ("fallback", "qwen3:8b")
    assert (said["queue_wait_ms"], said["llm_latency_ms"], said["total_ms"]) == (
        250.0,
        2750.0,
        4000.0,
    )


@pytest.mark.parametrize(
    ("streamed", "usage", "speed"),
    [
        (True, Usage(output_tokens=6, eval_s=1.5), 4.0),  # as Ollama measured it
        (False, Usage(output_tokens=6, eval_s=1.5), 4.0),
        (True, Usage(output_tokens=6), 3.0),  # from the first byte, at 101, to 103
        (False, Usage(output_tokens=6), None),  # the first byte of a whole answer is its last
        (True, Usage(output_tokens=0, eval_s=1.5), None),
        (True, Usage(output_tokens=6, eval_s=0.0), None),
        (True, Usage(), None),
    ],
)
def test_tokens_per_second(*, streamed: bool, usage: Usage, speed: float | None) -> None:
    record = answered(streamed=streamed)
    record.attempts[0].usage = usage
    assert fields(record, routing(record), 103.0)["tokens_per_second"] == speed


def test_the_cost_counts_the_time_until_now() -> None:
    record = answered()
    (attempt,) = record.attempts
    attempt.price, attempt.ended = Price(usd_per_hour=3.6), None
    assert fields(record, routing(record), 103.0)["cost_usd"] == 0.0025


def test_the_arm_of_an_experiment() -> None:
    record = answered(variant=Variant("small-or-large", "small"))
    assert fields(record, routing(record), 103.0)["variant"] == "small"


def test_a_long_name_is_cut() -> None:
    record = routed()
    record.attempt(PLANNER.candidates[0], 100.0)
    record.requested_model = "m" * 1000
    assert fields(record, routing(record), 103.0)["requested_model"] == "m" * 256


def test_a_stream_tells_the_record_what_it_said_of_itself() -> None:
    record = answered()
    record.attempts[0].usage = Usage()
    splice = Telemetry(record, routing(record), At()).stream()
    out = splice.feed(b'{"done":true,"eval_count":9}\n')
    assert orjson.loads(out)["llm"]["output_tokens"] == 9
    assert record.usage.output_tokens == 9


def test_a_whole_answer() -> None:
    record = answered()
    out = Telemetry(record, routing(record), At()).whole(b'{"done":true}')
    assert orjson.loads(out)["llm"] == fields(record, routing(record), 103.0)


def test_numbers_that_are_none_are_told_as_unknown() -> None:
    record = answered()
    record.attempts[0].usage = Usage(2**64, 2**53 - 1, eval_s=5e-324)
    record.requested_model = "a\ud800"
    said = orjson.loads(Telemetry(record, routing(record), At()).whole(b"{}"))["llm"]
    assert (said["prompt_tokens"], said["tokens_per_second"]) == (None, None)
    assert said["requested_model"] == "a\ufffd"
