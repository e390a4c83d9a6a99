"""A stand-in for a provider of the Messages API, as Anthropic's documentation describes it.

What it answers is scripted, not computed: each call says in words of its own what it was asked.
It checks what the API checks (the key, the version, the shape of a request) and fails on purpose
in the ways that the API does. With a TLS context it speaks https.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import orjson

from .exchange import AnsweredError, Exchange, Request
from .journal import Call, CallState, Journal
from .reply import JSON, SSE, Reply
from .tasks import Tasks
from .wire import Connection

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

KEY = "sk-ant-stand-in-key-0123456789"
# The later one has no temperature, top_p and top_k.
_VERSIONS = ("2023-06-01", "2026-10-21")
_ROLES = ("user", "assistant")
_MODELS = "/v1/models"
_BACKLOG = 128
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


@dataclass(slots=True)
class Script:
    """One answer. ``text`` None: an echo of what was asked.

    ``tool``: a call of this tool with ``arguments`` instead of text, or the tool that is forced.
    ``status``: refuse with it, and with ``headers``. ``fault``: ``cut`` (no end), ``reset``,
    ``stall``, ``error`` (an error event of ``error_kind``), ``disorder`` (events in no order),
    ``late`` (nothing at all); those of a stream strike after ``after`` pieces of text. ``go``: a
    stream waits there until it is set, then goes on; who is ``late`` begins then. ``raw``: sent in
    place of an answer, as it stands.
    """

    text: str | None = None
    thinking: str = ""
    tool: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    message: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    fault: str = ""
    error_kind: str = "overloaded_error"
    after: int = 2
    stop_reason: str = "end_turn"
    raw: bytes = b""
    usage: dict[str, Any] = field(default_factory=lambda: {"input_tokens": 12, "output_tokens": 6})
    pings: bool = True
    go: asyncio.Event | None = None


class RefusedError(Exception):
    """The request is refused with this status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Cloud:
    """`async with Cloud() as cloud:` serves on 127.0.0.1 at cloud.url.

    ``scripts``: what the next calls are answered with, in order; then echoes. ``calls``: those
    that came, with their bodies.
    """

    def __init__(
        self,
        *,
        key: str = KEY,
        models: tuple[str, ...] = ("claude-3-opus-20240229",),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.key = key
        self.models = models
        self.scripts: deque[Script] = deque()
        self.journal = Journal(1000)
        self.tasks = Tasks()
        self.log_body_bytes = 1 << 20
        self.port = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._count = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._connect, "127.0.0.1", port, backlog=_BACKLOG, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for connection in list(self._connections):
            connection.shut()
        await self.tasks.cancel_all()

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def calls(self) -> list[Call]:
        return list(self.journal.calls)

    async def wait_for(self, holds: Callable[[Cloud], bool]) -> None:
        """Return as soon as a change made `holds(cloud)` true, however long that takes."""
        await self.journal.wait_for(lambda: holds(self), None)

    # -- what connections ask (wire.Host)

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self.journal.counts.connections_open += 1
        self.journal.changed()

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.journal.counts.connections_open -= 1
        self.journal.changed()

    def exchange(self, connection: Connection, request: Request) -> Exchange:
        self._count += 1
        call = Call(
            id=self._count,
            connection=connection.number,
            method=request.method,
            target=request.target,
            headers=request.headers,
            arrived_at=asyncio.get_running_loop().time(),
        )
        self.journal.calls.append(call)
        self.journal.changed()
        return Exchange(connection, request, call)

    async def handle(self, exchange: Exchange) -> None:
        outcome = CallState.ABORTED
        try:
            await self._answer(exchange)
            outcome = CallState.FINISHED
        except AnsweredError:
            outcome = CallState.FINISHED
        finally:
            self.journal.end(exchange.call, outcome, asyncio.get_running_loop().time())

    def left(self, exchange: Exchange) -> None:
        if exchange.call.left_at is None and not exchange.done:
            exchange.call.left_at = asyncio.get_running_loop().time()
            self.journal.changed()

    def keeps(self, exchange: Exchange) -> bool:
        del exchange
        return False

    # -- the path of a request

    def _connect(self) -> Connection:
        self.journal.counts.connections_accepted += 1
        return Connection(self, self.journal.counts.connections_accepted)

    async def _answer(self, exchange: Exchange) -> None:
        body = await exchange.read_body()
        call = exchange.call
        call.body, call.body_size = body, len(body)
        about = self._told_of_models(exchange.request)
        if about is not None:
            await exchange.send(Reply(200, (("Content-Type", JSON),), orjson.dumps(about)))
            return
        script = await _when_due(self.scripts.popleft() if self.scripts else Script())
        try:
            asked = self._checked(exchange, body, script)
            call.model = asked["model"]
        except RefusedError as refused:
            await exchange.send(_refusal(refused, script.headers))
            return
        finally:
            self.journal.changed()
        answer = _Answer(script, asked, f"msg_{call.id:024d}")
        if script.raw:
            await exchange.begin((("Content-Type", SSE if asked.get("stream") else JSON),))
            await exchange.chunk(script.raw)
            await exchange.end()
        elif asked.get("stream"):
            await _stream(exchange, answer, self.journal)
        else:
            await exchange.send(Reply(200, (("Content-Type", JSON),), orjson.dumps(answer.whole())))

    def _told_of_models(self, request: Request) -> dict[str, Any] | None:
        """What it says of its models, or of one; None: it was not asked that, or does not say."""
        if request.method != "GET" or self._key_of(request) != self.key:
            return None
        rows = [{"type": "model", "id": name, "display_name": name} for name in self.models]
        if request.path == _MODELS:
            return {"data": rows, "has_more": False}
        return next((row for row in rows if request.path == f"{_MODELS}/{row['id']}"), None)

    def _key_of(self, request: Request) -> str | None:
        """The API takes it in either of two headers."""
        return request.header("x-api-key") or _bearer(request)

    def _checked(self, exchange: Exchange, body: bytes, script: Script) -> dict[str, Any]:
        """The request, if it is one; RefusedError as the API would."""
        request = exchange.request
        if self._key_of(request) != self.key:
            raise RefusedError(401, f"invalid x-api-key {self._key_of(request)}")
        if request.path != "/v1/messages":
            raise RefusedError(404, "Not found")
        version = request.header("anthropic-version")
        if version not in _VERSIONS:
            raise RefusedError(400, "anthropic-version: header is required")
        try:
            asked = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise RefusedError(400, "The request body is not valid JSON") from None
        check(asked)
        sampled = [name for name in ("temperature", "top_p", "top_k") if name in asked]
        if version != _VERSIONS[0] and sampled:
            raise RefusedError(400, f"{sampled[0]}: Extra inputs are not permitted")
        if asked["model"] not in self.models:
            raise RefusedError(404, f"model: {asked['model']}")
        if script.status != 200:
            raise RefusedError(script.status, script.message or "as it was told to")
        return dict(asked)


async def _when_due(script: Script) -> Script:
    """The same script once it is to begin: a late one, when it is told to, or never."""
    if script.fault != "late":
        return script
    if script.go is None:
        await asyncio.get_running_loop().create_future()
    else:
        await script.go.wait()
    return replace(script, fault="", go=None)


def _bearer(request: Request) -> str | None:
    scheme, _, key = (request.header("authorization") or "").partition(" ")
    return key if scheme == "Bearer" else None


def check(asked: Any) -> None:
    """What the API refuses with 400, as far as its documentation says."""
    if not isinstance(asked, dict) or not isinstance(asked.get("model"), str):
        raise RefusedError(400, "model: Field required")
    if type(asked.get("max_tokens")) is not int or asked["max_tokens"] < 1:
        raise RefusedError(400, "max_tokens: Field required")
    if not 0 <= asked.get("temperature", 0) <= 1:
        raise RefusedError(400, "temperature: range: 0..1")
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusedError(400, "messages: at least one message is required")
    for message in messages:
        if message.get("role") not in _ROLES:
            raise RefusedError(400, "messages: role must be user or assistant")
        content = message.get("content")
        for block in content if isinstance(content, list) else ():
            if block.get("type") == "text" and not block.get("text"):
                raise RefusedError(400, "messages: text content blocks must be non-empty")
    _check_results(messages)


def _check_results(messages: list[dict[str, Any]]) -> None:
    """Each result answers a call of the turn before."""
    called: set[str] = set()
    for message in messages:
        content = message.get("content")
        blocks = content if isinstance(content, list) else []
        for block in blocks:
            if block.get("type") == "tool_result" and block.get("tool_use_id") not in called:
                raise RefusedError(400, "messages: unexpected tool_use_id in tool_result blocks")
        called = {block["id"] for block in blocks if block.get("type") == "tool_use"}


def _refusal(refused: RefusedError, headers: tuple[tuple[str, str], ...]) -> Reply:
    kind = _KINDS.get(refused.status, "api_error")
    body = {"type": "error", "error": {"type": kind, "message": str(refused)}}
    return Reply(refused.status, (("Content-Type", JSON), *headers), orjson.dumps(body))


class _Answer:
    """One answer: its blocks, whole and as events."""

    def __init__(self, script: Script, asked: dict[str, Any], name: str) -> None:
        self.script = script
        self._asked = asked
        self._name = name
        forced = asked.get("tool_choice", {})
        tool = script.tool or (forced.get("name", "") if forced.get("type") == "tool" else "")
        self.blocks: list[dict[str, Any]] = []
        if script.thinking:
            thinking = {"type": "thinking", "thinking": script.thinking, "signature": "c2ln"}
            self.blocks.append(thinking)
        if script.text is not None or not tool:
            text = _echo(asked) if script.text is None else script.text
            self.blocks.append({"type": "text", "text": text})
        if tool:
            call = {"type": "tool_use", "id": f"toolu_{name[-24:]}", "name": tool}
            self.blocks.append(call | {"input": script.arguments})
        self.stop_reason = "tool_use" if tool else script.stop_reason

    def whole(self) -> dict[str, Any]:
        return self._message(self.blocks, self.stop_reason, self.script.usage)

    def events(self) -> list[dict[str, Any]]:
        begun = {**self.script.usage, "output_tokens": 1}
        events = [{"type": "message_start", "message": self._message([], None, begun)}]
        if self.script.pings:
            events.append({"type": "ping"})
        for index, block in enumerate(self.blocks):
            events += _block_events(index, block)
        delta = {"stop_reason": self.stop_reason, "stop_sequence": None}
        usage = {"output_tokens": self.script.usage["output_tokens"]}
        events.append({"type": "message_delta", "delta": delta, "usage": usage})
        return [*events, {"type": "message_stop"}]

    def _message(
        self, content: list[dict[str, Any]], reason: str | None, usage: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "id": self._name,
            "type": "message",
            "role": "assistant",
            "model": self._asked["model"],
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": usage,
        }


def _block_events(index: int, block: dict[str, Any]) -> list[dict[str, Any]]:
    empty: dict[str, Any]
    match block["type"]:
        case "text":
            empty = {"text": ""}
            pieces = [{"type": "text_delta", "text": p} for p in _cut(block["text"])]
        case "thinking":
            empty = {"thinking": "", "signature": ""}
            pieces = [{"type": "thinking_delta", "thinking": p} for p in _cut(block["thinking"])]
            pieces.append({"type": "signature_delta", "signature": block["signature"]})
        case _:
            empty = {"input": {}}
            text = orjson.dumps(block["input"]).decode()
            pieces = [{"type": "input_json_delta", "partial_json": p} for p in ("", *_cut(text))]
    return [
        {"type": "content_block_start", "index": index, "content_block": block | empty},
        *({"type": "content_block_delta", "index": index, "delta": piece} for piece in pieces),
        {"type": "content_block_stop", "index": index},
    ]


def _cut(text: str) -> list[str]:
    return [text[at : at + 7] for at in range(0, len(text), 7)]


async def _stream(exchange: Exchange, answer: _Answer, journal: Journal) -> None:
    script = answer.script
    events = answer.events()
    if script.fault == "disorder":
        events = [*events[1:-1][::-1], events[-1]]
    await exchange.begin((("Content-Type", SSE),))
    journal.changed()
    pieces = 0
    for event in events:
        pieces += event["type"] == "content_block_delta"
        if script.fault and script.fault != "disorder" and pieces > script.after:
            await _strike(exchange, script)
        if script.go is not None and pieces > script.after:
            await script.go.wait()
        await exchange.chunk(_event(event))
    await exchange.end()


async def _strike(exchange: Exchange, script: Script) -> None:
    match script.fault:
        case "stall":
            await asyncio.get_running_loop().create_future()
        case "reset":
            raise exchange.drop(reset=True)
        case "cut":
            await exchange.end()
        case _:
            error = {"type": script.error_kind, "message": "as it was told to"}
            await exchange.chunk(_event({"type": "error", "error": error}))
            await exchange.end()
    raise exchange.ended()


def _event(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))


def _echo(asked: dict[str, Any]) -> str:
    """The last text of the user's."""
    content = asked["messages"][-1]["content"]
    if isinstance(content, str):
        return f"You said: {content}"
    texts = [block["text"] for block in content if block.get("type") == "text"]
    return f"You said: {texts[-1] if texts else 'nothing'}"
