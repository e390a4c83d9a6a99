"""Which models are loaded, asked of Ollama's ``/api/ps``: gently, and after calls.

``modelsplit_policy.loaded_models`` keeps what is known and says when to ask again; this module
asks, one question at a time, and tells the queue. Now and then it wants to know what is
installed (``model_list``), too, which tells the many names of a model apart.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from modelsplit_policy.loaded_models import INSTALLED_AT_LEAST_S, LoadedModels
from modelsplit_policy.vocabulary import DEFAULT_HOST
from modelsplit_proxy.http.fetch import fetch
from modelsplit_proxy.http.upstream import UpstreamError
from modelsplit_proxy.watch.model_list import MAX_BYTES, rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_policy.loaded_models import Listed
    from modelsplit_policy.vocabulary import Host
    from modelsplit_proxy.http.upstream_pool import UpstreamPool
    from modelsplit_proxy.limits.admission_queue import AdmissionQueue, HostLine
    from modelsplit_proxy.records.record import CallRecord
    from modelsplit_proxy.runtime.tasks import Tasks
    from modelsplit_proxy.watch.model_list import ModelList

_LIST: Final = "/api/ps"
_TIMEOUT_S: Final = 2.0
_KEPT_BYTES: Final = 256 * 1024


class LoadedModelsWatch:
    """Keeps what is known of one host's models true, and the admission queue informed.

    ``loaded``: whether a model is loaded; None if nobody knows. ``answer``: what the host last
    said, as it came, for people (``residents``); empty: nothing, or too much to keep.
    """

    def __init__(
        self,
        pool: UpstreamPool,
        authority: str,
        model_list: ModelList,
        admission_queue: AdmissionQueue | HostLine,
        tasks: Tasks,
        host: Host = DEFAULT_HOST,
    ) -> None:
        self._pool = pool
        self._authority = authority
        self._model_list = model_list
        self._admission_queue = admission_queue
        self._tasks = tasks
        # The question that is open; done: none is.
        self._question: asyncio.Task[None] | None = None
        self._sooner = asyncio.Event()
        self.answer = b""
        self.known = LoadedModels(host)
        self.loaded = self.known.loaded

    def __repr__(self) -> str:
        return f"<LoadedModelsWatch {self.known!r}>"

    @property
    def models(self) -> frozenset[str] | None:
        """The canonical names of those that are loaded; None: unknown."""
        return self.known.models

    @property
    def digests(self) -> Mapping[str, str]:
        """Of the installed models that run here, by their canonical names."""
        return self.known.digests

    @contextlib.contextmanager
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
        attempts, known = record.attempts, self.known.known
        if attempts and attempts[-1].model in known and not known[attempts[-1].model]:
            self.known.answered(attempts[-1].model, attempts[-1].usage.load_s)
        if self.known.want():
            self._sooner.set()

    def want(self) -> None:
        """What is loaded may have changed."""
        if self.known.want():
            self._sooner.set()

    async def watch(self) -> None:
        """Ask for ever; a task of the process."""
        while True:
            await self.ask()
            await self._until_due()

    async def ask(self, wait_s: float | None = None) -> None:
        """Have it asked from now on, and wait for the answer; ``wait_s``: no longer than that.

        One question is open at a time, and whoever asks meanwhile shares the next: an open one
        may be answered with what was so before. Nobody's hurry ends what others wait for.
        """
        try:
            async with asyncio.timeout(wait_s):
                if self._question is not None and not self._question.done():
                    await asyncio.wait([self._question])
                if self._question is None or self._question.done():
                    self._question = self._tasks.start(self._ask(), "loaded models")
                await asyncio.wait([self._question])
        except TimeoutError:
            return

    async def _ask(self) -> None:
        """Ask once and pass the answer on."""
        known, time = self.known, asyncio.get_running_loop().time
        known.asking()
        try:
            loaded = await self._loaded()
        except TimeoutError:
            known.unanswered(time())
        else:
            if loaded is not None and known.wants_installed(time()):
                await self._learn_installed(time())
            known.observe(loaded, time())
        self._admission_queue.resident(known.known, known.sizes, on_gpu=known.on_gpu)

    async def _loaded(self) -> list[Listed] | None:
        """Ollama's list; None: it says something else; TimeoutError: nothing."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                status, body = await fetch(self._pool, self._authority, _LIST, MAX_BYTES)
        except UpstreamError:
            return None
        if status != 200:
            return None
        self.answer = body if len(body) <= _KEPT_BYTES else b""
        return rows(body)

    async def _learn_installed(self, now: float) -> None:
        """Take in what is installed, unless Ollama leaves that open for longer than this waits."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TIMEOUT_S):
                found = await self._model_list.since(now - INSTALLED_AT_LEAST_S)
            self.known.learn(None if found is None else found.values(), now)

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
