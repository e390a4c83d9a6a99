"""Is Ollama there? Asked every few seconds, told when the answer changes.

The proxy starts without Ollama and serves again when it comes; this only lets people know.
Calls are never held back or turned away because of a probe; but one that waits for an answer
to begin, and another model for a call that waited in vain, are spared while it is mute.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, Protocol

import orjson

from modelsplit_policy.hints import Absence, not_there
from modelsplit_policy.verdict import UNANSWERED_S
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
# Whoever looks at how Ollama does is not shown an answer older than this,
_FRESH_S: Final = 1.0
# but waits for another, until a question is open for so long that this is worth telling.
_LOOK_S: Final = UNANSWERED_S
_MAX_BYTES: Final = 64 * 1024


class ProbeListener(Protocol):
    """Who is told how each question ended."""

    def answered(self) -> None: ...
    def mute(self) -> None: ...
    def failed(self, error: UpstreamError) -> object: ...


class UpstreamProbe:
    """Watches the upstream's ``/api/version``. ``up`` is None until the first answer.

    ``mute_since``: when the first of the questions was asked that it has left unanswered since
    its last answer, in loop time; None: it answers, or there is nobody to. ``away_since``: since
    when it is away; None: it is not known to be. ``away`` and ``shut``: as of several hosts
    (``FleetProbe``), which one is not.
    """

    def __init__(
        self,
        pool: UpstreamPool,
        target: UpstreamTarget,
        *,
        every_s: float = _EVERY_S,
        host: str | None = None,
    ) -> None:
        """``host``: its name, where there are others; else None."""
        self._pool = pool
        self._target = target
        self._every_s = every_s
        self._of_host = "" if host is None else f" of host {host}"
        self.up: bool | None = None
        self.version: str | None = None
        self.error: str | None = None
        self.mute_since: float | None = None
        self.away_since: float | None = None
        self.away: tuple[str, ...] = ()
        self.shut: tuple[str, ...] = ()
        self._away = False
        self._is_other = False
        self._sooner = asyncio.Event()
        # Somebody looks: it is asked at once.
        self._looked_at = False
        # When it answered last, when the open question was asked, and when it first looked as if
        # it had gone since it answered; loop time.
        self._answered: float | None = None
        self._asked: float | None = None
        self._suspected: float | None = None
        self._heard = asyncio.Event()
        self._listener: ProbeListener | None = None

    def tell(self, listener: ProbeListener) -> None:
        """Whom to tell of every answer, and of every question that failed."""
        self._listener = listener

    def call_failed(self, error: UpstreamError) -> None:
        """A call could not connect: known here at once, and asked again soon."""
        self._suspect()
        self._away, self._is_other = error.fault in _NOBODY, False
        mute_since = None if self._away else self.mute_since
        self._note(up=False, version=None, error=str(error), mute_since=mute_since)
        self._sooner.set()

    def hurry(self) -> None:
        """Something looks as if it had gone away: ask soon."""
        self._suspect()
        self._sooner.set()

    @property
    def absence(self) -> Absence:
        """How it is not there, where ``up`` is False."""
        if self.mute_since is not None:
            return Absence.HANGS
        return Absence.OTHER if self._is_other else Absence.GONE

    @property
    def unanswered(self) -> tuple[tuple[str, float], ...]:
        """Who leaves the open question unanswered, in words, and for how long; seconds.

        Empty: no question is open, or it is known not to answer.
        """
        if self._asked is None or self.up is False:
            return ()
        return (("Ollama", asyncio.get_running_loop().time() - self._asked),)

    async def look(self) -> None:
        """Have its answer fresh, for somebody who looks; no longer than is worth waiting."""
        now = asyncio.get_running_loop().time()
        if not self.up or (self._answered is not None and now - self._answered < _FRESH_S):
            return
        self._looked_at = True
        self._sooner.set()
        self._heard.clear()
        left_s = _LOOK_S - (0.0 if self._asked is None else now - self._asked)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, left_s)):
                await self._heard.wait()

    def __repr__(self) -> str:
        return f"<UpstreamProbe {self._target.authority} up={self.up} {self.version or self.error}>"

    async def watch(self) -> None:
        """Go on asking for ever, after a first ``ask``; a task of the process."""
        while True:
            await self._until_due()
            await self.ask()
            self._pool.look_again()

    async def _until_due(self) -> None:
        """Wait until it is time to ask; sooner where a call fails to connect, or somebody looks."""
        self._sooner.clear()
        self._looked_at = False
        if not self._away:
            mute = self.mute_since is not None
            every_s = min(self._every_s, _EVERY_MUTE_S) if mute else self._every_s
            try:
                async with asyncio.timeout(every_s):
                    await self._sooner.wait()
            except TimeoutError:
                return
        if self._looked_at:
            return
        await asyncio.sleep(min(self._every_s, _EVERY_AWAY_S))

    async def ask(self) -> None:
        """Ask once and note the answer."""
        asked = asyncio.get_running_loop().time()
        # Of two questions at once it is the older one that is unanswered.
        is_first = self._asked is None
        if is_first:
            self._asked = asked
        try:
            await self._ask(asked if self.mute_since is None else self.mute_since)
        finally:
            if is_first:
                self._asked = None
            self._heard.set()

    async def _ask(self, since: float) -> None:
        """``since``: when the first of the questions was asked that are unanswered, with this."""
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
            self._is_other = failed.fault is Fault.PROTOCOL
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
        self._note_when(up=up)
        self.up, self.version, self.error = up, version, error
        if changed and up:
            where = self._target.authority
            logger.info("Ollama %s%s answers at http://%s", version, self._of_host, where)
        elif changed:
            logger.warning(
                # Whether calls fail for that, wait or go to another host is not known here.
                "%s. %s",
                not_there(
                    f"http://{self._target.authority}", self.absence, error or "", self._of_host
                ),
                self._step(),
            )

    def _step(self) -> str:
        steps = self._target.steps
        if self.absence is Absence.HANGS and not self._target.has_unit:
            return f"It hangs: restart it; `{steps.ask}` tells when it answers"
        question = {Absence.HANGS: "It hangs:", Absence.OTHER: "Is --upstream an Ollama?"}
        return f"{question.get(self.absence, 'Is it running?')} try `{steps.against(self.absence)}`"

    def _suspect(self) -> None:
        if self._suspected is None:
            self._suspected = asyncio.get_running_loop().time()

    def _note_when(self, *, up: bool) -> None:
        """Since when it is away: since it looked so, else since its last answer."""
        now = asyncio.get_running_loop().time()
        if up:
            self._answered, self._suspected, self.away_since = now, None, None
        elif self.away_since is None:
            known = (self._suspected, self._answered, self.mute_since, now)
            self.away_since = next(moment for moment in known if moment is not None)


def _version_of(status: int, body: bytes) -> str:
    if status != 200:
        raise UpstreamError(Fault.PROTOCOL, f"/api/version answered {status}")
    try:
        return str(orjson.loads(body)["version"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise UpstreamError(Fault.PROTOCOL, "/api/version answered something else") from None
