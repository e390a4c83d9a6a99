"""A cloud whose answers have holes: told in the client's dialect, and nobody else is hurt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_sim.cloud import Script
from support import messages as say
from support.clouds import ASKED, with_a_cloud

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.flowing_time

TEXT = say.start() + say.text("hel", "lo")
# Streams that cannot be whole.
HOLES = {
    "no JSON": TEXT + b"data: {half\n\n" + say.end(),
    "a list": TEXT + b"data: [1, 2]\n\n" + say.end(),
    "a text that is none": TEXT + say.delta(0, "text_delta", text=[1]) + say.end(),
    "a part of no call": TEXT + say.delta(7, "input_json_delta", partial_json="{}") + say.end(),
    "a call of nobody": TEXT + say.block(1, "tool_use", id="t", name=7) + say.end(),
    "half of its arguments": TEXT + say.tool("f", '{"x":', index=1) + say.end("tool_use"),
    "arguments in a list": TEXT + say.tool("f", "[1]", index=1) + say.end("tool_use"),
    "a number beyond all": TEXT + say.end().replace(b":7", b":1" + b"0" * 400),
    "no reason": TEXT + say.event("message_stop"),
    "a reason that is none": TEXT + say.end().replace(b'"end_turn"', b"7"),
    "no end": TEXT,
}
# Streams that are odd, and whole.
ODD = {
    "huge numbers": TEXT.replace(b'"input_tokens":10', b'"input_tokens":1' + b"0" * 30) + say.end(),
    "counts that are none": TEXT + say.end().replace(b'"output_tokens":7', b'"output_tokens":"x"'),
    "a huge index": TEXT + say.text("!", index=2**62) + say.end(),
    "no beginning": say.text("hello") + say.end(),
    "two beginnings": TEXT + say.start() + say.end(),
    "more behind the end": TEXT + say.end() + say.text("!", index=4) + say.end(),
    "unknown kinds": TEXT + say.event("weather", sun=1) + say.block(3, "hologram") + say.end(),
    "no index": TEXT + say.event("content_block_stop") + say.end(),
    "an index that is none": TEXT + say.event("content_block_stop", index="x") + say.end(),
    "a comment and no event": TEXT + b": hi\n\n\n\ndata:\n\n" + say.end(),
}
WHOLE = {
    "no content": b'{"type":"message","stop_reason":"end_turn"}',
    "no reason": b'{"type":"message","content":[]}',
    "content in words": b'{"type":"message","content":"hi","stop_reason":"end_turn"}',
    "a text that is none": b'{"content":[{"type":"text","text":7}],"stop_reason":"end_turn"}',
    "a call of nobody": b'{"content":[{"type":"tool_use"}],"stop_reason":"end_turn"}',
    "arguments in a list": (
        b'{"content":[{"type":"tool_use","name":"f","input":[1]}],"stop_reason":"tool_use"}'
    ),
    "a list": b"[]",
    "no JSON": b"{half",
    "nothing": b" ",
}
PATIENT = {"breakers": {"failures": 1000}}


@pytest.mark.parametrize("route", ASKED)
async def test_a_stream_with_a_hole_is_told_as_broken(tmp_path: Path, route: str) -> None:
    async with with_a_cloud(tmp_path, overlay=free(PATIENT)) as (up, cloud), up.client() as client:
        for name, raw in HOLES.items():
            cloud.scripts.append(Script(raw=raw))
            fields = {"model": "cloud", "stream": True} | ASKED[route]
            answer = await client.request("POST", route, fields)
            last = last_object(answer.body)
            error = last["error"] if isinstance(last["error"], dict) else last
            told = error.get("error_code") or error.get("code")
            assert told == "E_STREAM_BROKEN_CLOUD", (name, answer.body)
            assert error["request_id"], name
        answer = await client.request("POST", route, {"model": "cloud"} | ASKED[route])
        assert answer.status == 200


@pytest.mark.parametrize("route", ASKED)
async def test_a_stream_that_is_only_odd_is_whole(tmp_path: Path, route: str) -> None:
    async with with_a_cloud(tmp_path, overlay=free(PATIENT)) as (up, cloud), up.client() as client:
        for name, raw in ODD.items():
            cloud.scripts.append(Script(raw=raw))
            fields = {"model": "cloud", "stream": True} | ASKED[route]
            answer = await client.request("POST", route, fields)
            assert answer.status == 200, name
            assert b"hel" in answer.body, name
            assert b"E_STREAM_BROKEN" not in answer.body, (name, answer.body)
        records = await up.calls.wait(len(ODD))
        assert {record.outcome for record in records} == {"ok"}


@pytest.mark.parametrize("route", ASKED)
async def test_an_answer_at_once_with_a_hole_is_no_answer(tmp_path: Path, route: str) -> None:
    async with with_a_cloud(tmp_path, overlay=free(PATIENT)) as (up, cloud), up.client() as client:
        for name, raw in WHOLE.items():
            cloud.scripts.append(Script(raw=raw))
            fields = {"model": "cloud", "stream": False} | ASKED[route]
            answer = await client.request("POST", route, fields)
            assert (answer.status, answer["X-LLM-Error-Code"]) == (502, "E_UPSTREAM_CLOUD"), name
            assert b"no_answer" in answer.body, name
        answer = await client.request("POST", route, {"model": "cloud"} | ASKED[route])
        assert answer.status == 200


def free(overlay: dict[str, Any]) -> dict[str, Any]:
    """Without a budget of calls."""
    return overlay | {"budgets": []}


def last_object(body: bytes) -> dict[str, Any]:
    """The last line of a stream, or the last event, which say how it ended."""
    texts = [line.removeprefix(b"data: ") for line in body.splitlines()]
    found: dict[str, Any] = orjson.loads([text for text in texts if text.startswith(b"{")][-1])
    return found
