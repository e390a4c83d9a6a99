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

    from aiohttp import StreamReader
    from aiohttp.http import RawRequestMessage
    from multidict import CIMultiDictProxy
    from yarl import URL


class AnswerSource(Protocol):
    """Whatever feeds an answer: it stops reading while the client is slow."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Connection(Protocol):
    """The connection a request came on, as far as its answer needs it."""

    source: AnswerSource | None

    @property
    def remote(self) -> str: ...
    @property
    def transport(self) -> asyncio.Transport | None: ...
    @property
    def writing_paused(self) -> bool: ...
    async def taken(self) -> None: ...


class Request:
    """``raw_path``: the target as it came. ``origin``: the ``Origin`` field of a browser.

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
        self.origin: str | None = self.headers.get("Origin")
        self._url: URL = message.url
        self._task = task

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.raw_path}>"

    @property
    def remote(self) -> str:
        """The client's address, or empty."""
        return self.connection.remote

    @property
    def content_length(self) -> int | None:
        """What the client says of its body's size in bytes."""
        said = self.headers.get("Content-Length")
        return None if said is None else int(said)

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

    # What aiohttp's RequestHandler asks of a request.

    def _finish(self) -> None:
        """aiohttp lets go of uploaded files here; we have none."""

    def _cancel(self, error: BaseException) -> None:
        self.content.set_exception(error)
