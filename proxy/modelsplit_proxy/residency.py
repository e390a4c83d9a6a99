"""Which models are loaded, asked of Ollama's ``/api/ps``: gently, and after calls.

Loads, evictions and expiries all happen around calls, so the end of a call is when to look
again; a slow poll finds what happens without any. Answers are advice for the order of the
line. Without one, nothing is assumed.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import orjson

from modelsplit_policy.roles import bare_name
from modelsplit_proxy.fetch import fetch
from modelsplit_proxy.upstream import Fault, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelsplit_proxy.gate import Gate
    from modelsplit_proxy.record import CallRecord
    from modelsplit_proxy.upstream import Pool

_EVERY_S: Final = 5.0
_AT_MOST_EVERY_S: Final = 0.5
_TIMEOUT_S: Final = 2.0
_MAX_BYTES: Final = 1024 * 1024


class Residency:
    """Keeps the gate informed. ``models`` None: unknown."""

    def __init__(self, pool: Pool, authority: str, gate: Gate) -> None:
        self._pool = pool
        self._authority = authority
        self._gate = gate
        self._wanted = asyncio.Event()
        self._hurried = 0
        self.models: frozenset[str] | None = None

    def __repr__(self) -> str:
        return f"<Residency {sorted(self.models) if self.models is not None else 'unknown'}>"

    def loaded(self, model: str) -> bool | None:
        """Whether ``model`` is loaded; None if nobody knows."""
        models = self.models
        return None if models is None else model in models or bare_name(model) in models

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """Ask as often as is still gentle: somebody waits for a load to end."""
        self._hurried += 1
        self._wanted.set()
        try:
            yield
        finally:
            self._hurried -= 1

    def call_ended(self, record: CallRecord) -> None:
        """A call has ended: what is loaded may have changed."""
        del record
        self._wanted.set()

    async def watch(self) -> None:
        """Ask for ever; a task of the process."""
        while True:
            await self.ask()
            await asyncio.sleep(_AT_MOST_EVERY_S)
            if not self._hurried:
                await self._until_wanted()

    async def ask(self, timeout_s: float = _TIMEOUT_S) -> None:
        """Ask once and pass the answer on."""
        self._wanted.clear()
        try:
            async with asyncio.timeout(timeout_s):
                self.models = await self._loaded()
        except (TimeoutError, UpstreamError):
            self.models = None
        self._gate.resident(self.models)

    async def _until_wanted(self) -> None:
        try:
            async with asyncio.timeout(_EVERY_S):
                await self._wanted.wait()
        except TimeoutError:
            return

    async def _loaded(self) -> frozenset[str]:
        status, body = await fetch(self._pool, self._authority, "/api/ps", _MAX_BYTES)
        if status != 200:
            raise UpstreamError(Fault.PROTOCOL, f"/api/ps answered {status}")
        try:
            models = orjson.loads(body)["models"]
            return frozenset(bare_name(str(model["name"])) for model in models)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise UpstreamError(Fault.PROTOCOL, "/api/ps answered something else") from None
