"""Is Ollama there? Asked every few seconds, told when the answer changes.

The proxy starts without Ollama and serves again when it comes; this only lets people know.
Calls are never held back or turned away because of a probe; but one that waits for an answer
to begin, and another model for a call that waited in vain, are spared while it is mute.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

import orjson

from modelsplit_proxy.http.fetch import fetch
from modelsplit_proxy.http.upstream import Fault, UpstreamError

if TYPE_CHECKING:
    from modelsplit_proxy.http.upstream import UpstreamTarget
    from modelsplit_proxy.http.upstream_pool import UpstreamPool

logger = logging.getLogger("modelsplit")

_EVERY_S: Final = 5.0
# While it is mute: calls are to go on as soon as it is back.
_EVERY_MUTE_S: Final = 1.0
# While nobody listens: to find out costs nothing, and calls may wait for it.
_EVERY_AWAY_S: Final = 0.2
_NOBODY: Final = frozenset({Fault.REFUSED, Fault.DNS})
_TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = 64 * 1024


class ProbeListener(Protocol):
    """Who is told how each question ended."""

    def answered(self) -> None: ...
    def mute(self) -> None: ...
    def failed(self, error: UpstreamError) -> object: ...


class UpstreamProbe:
    """Watches the upstream's ``/api/version``. ``up`` is None until the first answer.

    ``mute_since``: when the first of the questions was asked that it has left unanswered since
    its last answer, in loop time; None: it answers, or there is nobody to. ``away`` and
    ``shut``: as of several hosts (``FleetProbe``), which one is not.
    """

    def __init__(
        self, pool: UpstreamPool, target: UpstreamTarget, *, every_s: float = _EVERY_S
    ) -> None:
        self._pool = pool
        self._target = target
        self._every_s = every_s
        self.up: bool | None = None
        self.version: str | None = None
        self.error: str | None = None
        self.mute_since: float | None = None
        self.away: tuple[str, ...] = ()
        self.shut: tuple[str, ...] = ()
        self._away = False
        self._sooner = asyncio.Event()
        self._listener: ProbeListener | None = None

    def tell(self, listener: ProbeListener) -> None:
        """Whom to tell of every answer, and of every question that failed."""
        self._listener = listener

    def call_failed(self, error: UpstreamError) -> None:
        """A call could not connect: known here at once, and asked again soon."""
        self._away = error.fault in _NOBODY
        mute_since = None if self._away else self.mute_since
        self._note(up=False, version=None, error=str(error), mute_since=mute_since)
        self._sooner.set()

    def hurry(self) -> None:
        """Something looks as if it had gone away: ask soon."""
        self._sooner.set()

    def __repr__(self) -> str:
        return f"<UpstreamProbe {self._target.authority} up={self.up} {self.version or self.error}>"

    async def watch(self) -> None:
        """Go on asking for ever, after a first ``ask``; a task of the process."""
        while True:
            await self._until_due()
            await self.ask()
            self._pool.look_again()

    async def _until_due(self) -> None:
        """Wait until it is time to ask; that comes sooner where a call fails to connect."""
        self._sooner.clear()
        if not self._away:
            mute = self.mute_since is not None
            every_s = min(self._every_s, _EVERY_MUTE_S) if mute else self._every_s
            try:
                async with asyncio.timeout(every_s):
                    await self._sooner.wait()
            except TimeoutError:
                return
        await asyncio.sleep(min(self._every_s, _EVERY_AWAY_S))

    async def ask(self) -> None:
        """Ask once and note the answer."""
        since = self.mute_since
        since = asyncio.get_running_loop().time() if since is None else since
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                version = await self._version()
        except TimeoutError:
            error = f"no answer within {_TIMEOUT_S:g} s"
            self._note(up=False, version=None, error=error, mute_since=since)
            if self._listener is not None:
                self._listener.mute()
        except UpstreamError as failed:
            mute_since = since if failed.fault is Fault.CONNECT_TIMEOUT else None
            self._note(up=False, version=None, error=str(failed), mute_since=mute_since)
            self._away = failed.fault in _NOBODY
            if self._listener is not None:
                self._listener.failed(failed)
        else:
            self._away = False
            self._note(up=True, version=version, error=None, mute_since=None)
            if self._listener is not None:
                self._listener.answered()

    async def _version(self) -> str:
        status, body = await fetch(self._pool, self._target.authority, "/api/version", _MAX_BYTES)
        return _version_of(status, body)

    def _note(
        self, *, up: bool, version: str | None, error: str | None, mute_since: float | None
    ) -> None:
        changed = up is not self.up
        self.mute_since = mute_since
        self.up, self.version, self.error = up, version, error
        if changed and up:
            logger.info("Ollama %s answers at http://%s", version, self._target.authority)
        elif changed:
            logger.warning(
                "Ollama at http://%s is not answering (%s); calls fail until it does. %s",
                self._target.authority,
                error,
                self._step(hangs=mute_since is not None),
            )

    def _step(self, *, hangs: bool) -> str:
        target = self._target
        if not hangs:
            return f"Is it running? try `{target.steps.start}`"
        if target.has_unit:
            return f"It hangs: try `{target.steps.restart}`"
        return f"It hangs: restart it; `{target.steps.restart}` tells when it answers"


def _version_of(status: int, body: bytes) -> str:
    if status != 200:
        raise UpstreamError(Fault.PROTOCOL, f"/api/version answered {status}")
    try:
        return str(orjson.loads(body)["version"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise UpstreamError(Fault.PROTOCOL, "/api/version answered something else") from None
