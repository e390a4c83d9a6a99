"""Which models are loaded, asked of Ollama's ``/api/ps``: gently, and after calls.

``modelsplit_policy.loaded_models`` keeps what is known and says when to ask again; this module
asks, and tells the gate.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import orjson

from modelsplit_policy.loaded_models import LoadedModels
from modelsplit_proxy.http.fetch import fetch
from modelsplit_proxy.http.upstream import Fault, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelsplit_proxy.http.upstream_pool import Pool
    from modelsplit_proxy.limits.admission_queue import Gate
    from modelsplit_proxy.records.record import CallRecord

_TIMEOUT_S: Final = 2.0
_MAX_BYTES: Final = 1024 * 1024


class Residency:
    """Keeps what is known of one host's models true, and the gate informed of it.

    ``loaded``: whether a model is loaded; None if nobody knows.
    """

    def __init__(self, pool: Pool, authority: str, gate: Gate) -> None:
        self._pool = pool
        self._authority = authority
        self._gate = gate
        self._sooner = asyncio.Event()
        self.known = LoadedModels()
        self.loaded = self.known.loaded

    def __repr__(self) -> str:
        return f"<Residency {self.known!r}>"

    @property
    def models(self) -> frozenset[str] | None:
        """The canonical names of those that are loaded; None: unknown."""
        return self.known.models

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """Ask as often as is still gentle: somebody waits for a load to end."""
        if self.known.hurry():
            self._sooner.set()
        try:
            yield
        finally:
            self.known.relax()

    def call_ended(self, record: CallRecord) -> None:
        """A call has ended: what is loaded may have changed."""
        del record
        if self.known.want():
            self._sooner.set()

    async def watch(self) -> None:
        """Ask for ever; a task of the process."""
        while True:
            await self.ask()
            await self._until_due()

    async def ask(self, timeout_s: float = _TIMEOUT_S) -> None:
        """Ask once and pass the answer on."""
        known = self.known
        known.asking()
        try:
            async with asyncio.timeout(timeout_s):
                names = await self._loaded()
        except (TimeoutError, UpstreamError):
            names = None
        known.observe(names, asyncio.get_running_loop().time())
        self._gate.resident(known.models)

    async def _until_due(self) -> None:
        """Wait until it is time to ask; that may come sooner while it is waited for."""
        time = asyncio.get_running_loop().time
        while (left_s := self.known.next_question() - time()) > 0:
            self._sooner.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._sooner.wait()
            except TimeoutError:
                continue

    async def _loaded(self) -> list[str]:
        status, body = await fetch(self._pool, self._authority, "/api/ps", _MAX_BYTES)
        if status != 200:
            raise UpstreamError(Fault.PROTOCOL, f"/api/ps answered {status}")
        try:
            models = orjson.loads(body)["models"]
            return [str(model["name"]) for model in models]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise UpstreamError(Fault.PROTOCOL, "/api/ps answered something else") from None
