"""One request as aiohttp parsed it: its head as plain values, its body as a stream.

aiohttp's own ``BaseRequest`` is a mapping with lazy properties for what web applications ask
of a request. We ask for the same few things of every request, several times each, so here
they are attributes, read once. ``server`` makes these and hides which parts aiohttp needs:
``_finish``, ``_cancel`` and ``_task`` are called and set by its ``RequestHandler``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from aiohttp import StreamReader
    from aiohttp.http import RawRequestMessage
    from multidict import CIMultiDictProxy
    from yarl import URL

    from modelsplit_policy.failures import Failure
    from modelsplit_proxy.http.read_budget import HeldBytes, ReadBudget


class AnswerSource(Protocol):
    """Whatever feeds an answer: it stops reading while the client is slow."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Connection(Protocol):
    """The connection a request came on, as far as reading and answering it needs it.

    ``body_hold``: what is held of its body. ``answer_hold``: what is held of its answer, until
    the client has taken most of it. ``collecting``: its body is being read whole, and nothing
    has begun yet. ``ending``: why no unfinished body is waited for; None while we serve.
    ``last``: no request follows this one. ``unfinished``: it has not come whole, and may never.
    ``stalled``: the client has been cut because it took nothing of its answer.
    ``unread``: the client may be sending what will not be read.
    """

    source: AnswerSource | None
    collecting: bool

    @property
    def answer_hold(self) -> HeldBytes: ...
    @property
    def body_hold(self) -> HeldBytes: ...
    @property
    def budget(self) -> ReadBudget: ...
    @property
    def ending(self) -> Failure | None: ...
    @property
    def last(self) -> bool: ...
    @property
    def stalled(self) -> bool: ...
    @property
    def unfinished(self) -> bool: ...
    @property
    def unread(self) -> bool: ...
    def forget_body(self) -> None: ...
    def next_request(self) -> None: ...
    async def linger(self) -> None: ...

    @property
    def remote(self) -> str: ...
    @property
    def transport(self) -> asyncio.Transport | None: ...
    @property
    def writing_paused(self) -> bool: ...
    async def taken(self) -> None: ...


class Request:
    """``raw_path``: the target as it came. ``origin``: the ``Origin`` field of a browser.

    ``remote``: the client's address, or empty.

    ``keep_alive``: the client wants the connection kept.
    """

    __slots__ = (
        "_task",
        "_url",
        "connection",
        "content",
        "headers",
        "http11",
        "keep_alive",
        "method",
        "origin",
        "raw_headers",
        "raw_path",
        "remote",
    )

    def __init__(
        self,
        message: RawRequestMessage,
        content: StreamReader,
        connection: Connection,
        task: asyncio.Task[None],
    ) -> None:
        self.method: str = message.method
        self.raw_path: str = message.path
        self.headers: CIMultiDictProxy[str] = message.headers
        self.raw_headers: tuple[tuple[bytes, bytes], ...] = message.raw_headers
        self.http11: bool = message.version >= (1, 1)
        self.keep_alive: bool = not message.should_close
        self.content = content
        self.connection = connection
        self.remote: str = connection.remote
        self.origin: str | None = self.headers.get("Origin")
        self._url: URL = message.url
        self._task = task

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.raw_path}>"

    @property
    def content_length(self) -> int | None:
        """What the client says of its body's size in bytes."""
        raw = self.headers.get("Content-Length")
        return None if raw is None else int(raw)

    @property
    def has_body(self) -> bool:
        """Whether there is, or may come, anything to read."""
        return not self.content.at_eof()

    @property
    def target(self) -> str:
        """The path and query to ask the upstream for, whatever form the client used.

        An absolute-form target never chooses whom we connect to; only its path counts.
        """
        raw = self.raw_path
        if raw.startswith("/") or raw == "*":
            return raw
        url = self._url.relative() if self._url.absolute else self._url
        return url.raw_path_qs or "/"

    @property
    def path(self) -> str:
        """The target's path as it came, without its query."""
        return self._url.raw_path

    @property
    def query(self) -> Mapping[str, str]:
        """The target's query, decoded; of a name that comes twice, the first."""
        return self._url.query

    # What aiohttp's RequestHandler asks of a request.

    def _finish(self) -> None:
        """aiohttp lets go of uploaded files here; we have none."""

    def _cancel(self, error: BaseException) -> None:
        self.content.set_exception(error)
