"""Is Ollama there? Asked every few seconds, told when the answer changes.

The proxy starts without Ollama and serves again when it comes; this only lets people know.
Calls are never held back or turned away because of a probe.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import orjson

from modelsplit_proxy.http.fetch import fetch
from modelsplit_proxy.http.upstream import Fault, UpstreamError

if TYPE_CHECKING:
    from modelsplit_proxy.http.upstream import UpstreamTarget
    from modelsplit_proxy.http.upstream_pool import Pool

logger = logging.getLogger("modelsplit")

_EVERY_S: Final = 5.0
_TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = 64 * 1024


class Probe:
    """Watches the upstream's ``/api/version``. ``up`` is None until the first answer."""

    def __init__(self, pool: Pool, target: UpstreamTarget, *, every_s: float = _EVERY_S) -> None:
        self._pool = pool
        self._target = target
        self._every_s = every_s
        self.up: bool | None = None
        self.version: str | None = None
        self.error: str | None = None

    def __repr__(self) -> str:
        return f"<Probe {self._target.authority} up={self.up} {self.version or self.error}>"

    async def watch(self) -> None:
        """Go on asking for ever, after a first ``ask``; a task of the process."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.ask()

    async def ask(self) -> None:
        """Ask once and note the answer."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                version = await self._version()
        except TimeoutError:
            self._note(up=False, version=None, error=f"no answer within {_TIMEOUT_S:g} s")
        except UpstreamError as error:
            self._note(up=False, version=None, error=str(error))
        else:
            self._note(up=True, version=version, error=None)

    async def _version(self) -> str:
        status, body = await fetch(self._pool, self._target.authority, "/api/version", _MAX_BYTES)
        return _version_of(status, body)

    def _note(self, *, up: bool, version: str | None, error: str | None) -> None:
        changed = up is not self.up
        self.up, self.version, self.error = up, version, error
        if changed and up:
            logger.info("Ollama %s answers at http://%s", version, self._target.authority)
        elif changed:
            logger.warning(
                "Ollama at http://%s is not answering (%s); calls fail until it does. "
                "Is it running? try `systemctl status ollama`",
                self._target.authority,
                error,
            )


def _version_of(status: int, body: bytes) -> str:
    if status != 200:
        raise UpstreamError(Fault.PROTOCOL, f"/api/version answered {status}")
    try:
        return str(orjson.loads(body)["version"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise UpstreamError(Fault.PROTOCOL, "/api/version answered something else") from None
