"""A route that nobody has: one row of the table, with its dialect's functions, and it is served.

Nothing else is told of it: the row is what the proxy is started with.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_policy.endpoints import EndpointFacts
from modelsplit_policy.vocabulary import Dialect
from modelsplit_proxy.protocol import answer_format
from modelsplit_proxy.protocol.endpoint import Endpoint, WireFormat
from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from modelsplit_proxy.protocol.stream_end import LineKind, StreamVerdict, Tail, Usage, json_object
from support.harness import in_front_of
from support.raw import Peer, chunk, raw_upstream
from support.scripted import response

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from modelsplit_policy.failures import Failure
    from modelsplit_proxy.protocol.error_body import Scene
    from modelsplit_proxy.protocol.held_answer import HeldAnswer
    from support.harness import Running

pytestmark = pytest.mark.flowing_time

# --- The dialect ------------------------------------------------------------------------------
# A stream of lines "say {...}", the last of which has "over": true.


def data(line: bytes) -> bytes | None:
    return line[4:].strip() if line.startswith(b"say ") else None


def usage(answer: Mapping[str, Any]) -> Usage:
    heard, said = answer.get("tokens") or (None, None)
    return Usage(prompt_tokens=heard, output_tokens=said)


def judge(tail: Tail) -> StreamVerdict:
    lines = [data(line) for line in tail.lines()]
    last = json_object(lines[-1] or b"") if lines else {}
    return StreamVerdict(
        last.get("over") is True, last.get("problem"), bool(tail.open_line()), usage(last)
    )


def kind(line: Mapping[str, Any]) -> LineKind:
    return LineKind.LAST if line.get("over") is True else LineKind.OTHER


def error_body(failure: Failure, scene: Scene) -> bytes:
    return orjson.dumps({"problem": failure.code, "who": scene.model})


def error_in_stream(failure: Failure, scene: Scene) -> bytes:
    return b"say %b\n" % error_body(failure, scene)


SAYING = WireFormat(
    dialect=Dialect.OLLAMA,
    stream_type=b"application/x-ndjson",
    judge=judge,
    data=data,
    kind=kind,
    usage=usage,
    at_limit=lambda answer: answer.get("cut") is True,
    end_mark=re.compile(rb'"over":true'),
    error_body=error_body,
    error_in_stream=error_in_stream,
)


# --- The row ----------------------------------------------------------------------------------


def texts(answer: dict[str, Any]) -> Iterator[Any]:
    yield answer.get("words")


def unfinished(held: HeldAnswer) -> str | None:
    return None if held.fields.get("over") is True else "it broke off in the middle of a word"


SAY = Endpoint(
    "/v2/say",
    SAYING,
    EndpointFacts(content="prompt", bounds=("max_tokens",)),
    streams=False,
    wanted_format=answer_format.of_format,
    texts=texts,
    unfinished=unfinished,
)

# --- Calls on it ------------------------------------------------------------------------------

ROUTE = "/v2/say"
OK = b"HTTP/1.1 200 OK\r\n"
RULES = {"roles": {"PLANNER": {"max_num_predict": 64, "validate": True}}}
TELEMETRY = {"X-LLM-Telemetry": "body"}


class Saying:
    """An upstream that answers each call with the next of these; ``bodies``: what it was sent."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.bodies: list[dict[str, Any]] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            self.bodies.append(orjson.loads(body))
            peer.send(self.answers.pop(0))
            await peer.flush()


def proxied(port: int) -> AbstractAsyncContextManager[Running]:
    return in_front_of(port, RULES, endpoints=(*ENDPOINTS, SAY))


def whole(**fields: Any) -> bytes:
    return response(orjson.dumps({"over": True, "tokens": [3, 5], **fields}))


def stream(*lines: bytes) -> bytes:
    head = b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    return OK + head + b"".join(map(chunk, lines)) + b"0\r\n\r\n"


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": "planner", "prompt": "hi", **fields}


async def test_an_answer_in_one_piece_is_bounded_tagged_counted_and_told_of() -> None:
    said = Saying(whole(words="hello"))
    async with raw_upstream(said) as upstream, proxied(upstream.port) as up, up.client() as client:
        answer = await client.request("POST", ROUTE, asked(max_tokens=1000), TELEMETRY)
        assert (answer.status, answer["X-LLM-Role"]) == (200, "PLANNER")
        assert said.bodies == [{"model": "qwen3:4b", "prompt": "hi", "max_tokens": 64}]
        assert answer.json["llm"]["output_tokens"] == 5
        [record] = await up.calls.wait()
        assert (record.usage.prompt_tokens, record.usage.output_tokens) == (3, 5)
        assert record.applied == ("max_tokens 1000->64",)
        assert record.endpoint is SAY


async def test_a_call_without_its_content_only_loads() -> None:
    said = Saying(whole(words=""))
    async with raw_upstream(said) as upstream, proxied(upstream.port) as up, up.client() as client:
        await client.request("POST", ROUTE, {"model": "planner"})
        [record] = await up.calls.wait()
        assert record.loading == "load"


async def test_a_stream_has_its_end_its_telemetry_and_its_counts() -> None:
    lines = (
        b'say {"words":"he"}\n',
        b'say {"words":"llo"}\n',
        b'say {"over":true,"tokens":[3,2]}\n',
    )
    said = Saying(stream(*lines))
    async with raw_upstream(said) as upstream, proxied(upstream.port) as up, up.client() as client:
        answer = await client.request("POST", ROUTE, asked(stream=True), TELEMETRY)
        assert (answer.status, answer.whole) == (200, True)
        assert answer.body.startswith(b"".join(lines)[:-2] + b',"llm":{')
        assert orjson.loads(answer.body.splitlines()[-1][4:])["llm"]["output_tokens"] == 2
        [record] = await up.calls.wait()
        assert (record.outcome, record.usage.output_tokens) == ("ok", 2)


async def test_a_stream_that_breaks_is_told_in_its_own_words() -> None:
    said = Saying(stream(b'say {"words":"he"}\n'))
    async with raw_upstream(said) as upstream, proxied(upstream.port) as up, up.client() as client:
        answer = await client.request("POST", ROUTE, asked(stream=True))
        assert answer.whole
        assert answer.body.splitlines()[-1] == (
            b'say {"problem":"E_STREAM_BROKEN_LOCAL","who":"qwen3:4b"}'
        )


@pytest.mark.parametrize(
    "unfit", [whole(words="no JSON"), response(b'{"over":false}'), response(b'{"over":tr')]
)
async def test_an_answer_that_is_none_is_asked_for_again(unfit: bytes) -> None:
    said = Saying(unfit, whole(words='{"a":1}'))
    async with raw_upstream(said) as upstream, proxied(upstream.port) as up, up.client() as client:
        answer = await client.request("POST", ROUTE, asked(format="json"))
        assert (answer.status, answer["X-LLM-Model"]) == (200, "qwen3:8b")
        assert answer.json["words"] == '{"a":1}'
        [record] = await up.calls.wait()
        assert record.schema == "valid"


async def test_an_error_has_its_shape() -> None:
    async with (
        raw_upstream(Saying()) as upstream,
        proxied(upstream.port) as up,
        up.client() as client,
    ):
        answer = await client.request("POST", ROUTE, b"{")
        assert (answer.status, answer.json) == (400, {"problem": "E_BAD_REQUEST", "who": None})
