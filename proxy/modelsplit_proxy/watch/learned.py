"""What was learned of hosts and models, kept over restarts in the state file.

Read when Ollama has said which version it is, and of a model when it is first seen loaded,
for its digest is known then; written when something new was learned, now and then and at the
end. ``modelsplit_policy.learned`` says what the values are and how they age. A file that
cannot be read or written costs what would have been known, nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from modelsplit_policy import learned
from modelsplit_policy.vocabulary import DEFAULT_HOST
from modelsplit_proxy.storage.state_file import StoreError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from modelsplit_policy.parallelism import Parallelism
    from modelsplit_policy.vocabulary import Host
    from modelsplit_proxy.runtime.clock import Clock
    from modelsplit_proxy.storage.writer import Store
    from modelsplit_proxy.watch.loaded_models import LoadedModelsWatch
    from modelsplit_proxy.watch.upstream_probe import UpstreamProbe

logger = logging.getLogger("modelsplit")

_EVERY_S: Final = 5.0
# Between two writes of what is new.
_WRITE_S: Final = 60.0
# The digest that stands for the host itself.
_HOST: Final = ""
_READ: Final = "SELECT digest, at, value FROM learned WHERE upstream = ? AND version = ?"
_WRITE: Final = """
INSERT INTO learned (upstream, version, digest, at, value) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (upstream, version, digest) DO UPDATE SET at = excluded.at, value = excluded.value
"""


class LearnedKeeper:
    """Recalls and keeps what ``parallelism`` knows of one host."""

    def __init__(
        self,
        parallelism: Parallelism,
        loaded_models: LoadedModelsWatch,
        probe: UpstreamProbe,
        store: Store,
        upstream: str,
        clock: Clock,
        host: Host = DEFAULT_HOST,
    ) -> None:
        self.host = host
        self._parallelism = parallelism
        self._loaded_models = loaded_models
        self._probe = probe
        self._store = store
        self._upstream = upstream
        self._clock = clock
        self._version: str | None = None
        self._rows: dict[str, tuple[float, str]] = {}
        self._recalled: set[str] = set()
        self._written = parallelism.lessons
        self._write_due = clock.now() + _WRITE_S

    def __repr__(self) -> str:
        return f"<LearnedKeeper {self._upstream} {self._version} {len(self._rows)} rows>"

    async def watch(self) -> None:
        """Look for ever; a task of the process."""
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Recall what can be by now, and write what is new if it is time."""
        version = self._probe.version
        if version is None:
            return
        if version != self._version and not await self._read(version):
            return
        for name, digest in self._loaded_models.digests.items():
            self._recall_model(name, digest)
        if self._clock.now() >= self._write_due:
            self.keep()

    def keep(self) -> None:
        """Have what is new written, without waiting for it."""
        self._write_due = self._clock.now() + _WRITE_S
        parallelism, version = self._parallelism, self._version
        if version is None or parallelism.lessons == self._written:
            return
        self._written = parallelism.lessons
        at, digests = self._clock.wall(), self._loaded_models.digests
        values = {_HOST: parallelism.learned(self._clock.now()).text()}
        for name, model in parallelism.learned_models().items():
            if name in digests:
                values[digests[name]] = model.text()
        rows = [(self._upstream, version, digest, at, text) for digest, text in values.items()]
        self._store.submit(lambda db: _write(db, rows, at - learned.FORGET_S))

    async def _read(self, version: str) -> bool:
        """What is kept of this upstream at this version; False: not now."""
        try:
            rows = await asyncio.to_thread(self._store.read, _READ, (self._upstream, version))
        except StoreError as error:
            logger.debug("what was learned cannot be read: %s", error)
            return False
        self._version = version
        self._rows = {digest: (at, text) for digest, at, text in rows}
        self._recalled.clear()
        if _HOST in self._rows:
            at, text = self._rows[_HOST]
            host = learned.host_of(text)
            left = None if host is None else host.aged(self._clock.wall() - at)
            if left is not None:
                self._parallelism.recall(left, self._clock.now())
        return True

    def _recall_model(self, name: str, digest: str) -> None:
        if name in self._recalled:
            return
        self._recalled.add(name)
        at, text = self._rows.get(digest, (0.0, ""))
        model = learned.model_of(text) if text else None
        if model is not None and self._clock.wall() - at < learned.FORGET_S:
            self._parallelism.recall_model(name, model)


def _write(db: sqlite3.Connection, rows: Sequence[tuple[object, ...]], before: float) -> None:
    db.executemany(_WRITE, rows)
    db.execute("DELETE FROM learned WHERE at < ?", (before,))
