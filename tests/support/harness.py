"""The proxy and the stand-in Ollama, running for a test, in the test's own loop.

The proxy is started through its own ``App``, as ``modelsplit serve`` does: aiohttp's test
server would cancel handlers where the product must see to that itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from modelsplit_policy.config.parser import parse
from modelsplit_policy.hints import pulling
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.app import App
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.config.policy_file import LoadedPolicy
from modelsplit_proxy.config.settings import Address, Settings
from modelsplit_proxy.limits.client_keys import Keyring
from modelsplit_proxy.protocol.endpoint import Endpoint
from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from modelsplit_proxy.records.record import CallRecord
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_sim.config import SimConfig
from modelsplit_sim.journal import Call
from modelsplit_sim.server import Sim
from support.fake_time import clock
from support.ports import stand_in
from support.wire import Client

Overlay = Mapping[str, Any]


class Finished:
    """The records of the calls that have ended, in that order."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []
        self._changed = asyncio.Event()

    def note(self, record: CallRecord) -> None:
        self.records.append(record)
        self._changed.set()

    async def wait(self, count: int = 1) -> list[CallRecord]:
        """The first ``count`` records, as soon as there are so many."""
        while len(self.records) < count:
            self._changed.clear()
            await self._changed.wait()
        return self.records[:count]


@dataclass
class Running:
    """A proxy in front of a stand-in. ``lines``: what it wrote to its request log."""

    app: App
    sim: Sim
    lines: list[bytes] = field(default_factory=list)
    calls: Finished = field(default_factory=Finished)

    @property
    def port(self) -> int:
        assert self.app.address is not None
        return self.app.address.port

    @property
    def admin_port(self) -> int:
        assert self.app.admin_address is not None
        return self.app.admin_address.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pull(self, model: str) -> str:
        """What people are told to type to have a model here."""
        return pulling([model], f"http://127.0.0.1:{self.sim.port}")

    def client(self, source: str | None = None) -> Client:
        """A new connection to the proxy, opened at its first request; ``source``: from there."""
        return Client(self.port, source)

    def admin(self) -> Client:
        """A new connection to the admin port."""
        return Client(self.admin_port)

    @property
    def asked(self) -> list[Call]:
        """The calls that reached the upstream, our own probes left out."""
        return [call for call in self.sim.calls if call.method == "POST"]

    @property
    def passed_on(self) -> list[Call]:
        """The clients' requests that reached the upstream: our own carry no Via."""
        return [call for call in self.sim.calls if call.header("via") is not None]

    def seats(self) -> tuple[int, int]:
        """How many calls hold a seat, and how many wait for one, over all roles."""
        admission = self.app.admission
        running = sum(admission.running(role) for role in Role)
        return running, sum(admission.waiting(role) for role in Role)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Let the loop turn until ``holds()``; for states that tell nobody when they change."""
        while not holds():  # noqa: ASYNC110 - nobody sets an event
            await asyncio.sleep(0)

    async def logged(self) -> list[dict[str, Any]]:
        """Stop the proxy, then read its request log."""
        await self.app.stop()
        return [orjson.loads(line) for line in b"".join(self.lines).splitlines()]


# Nothing is held back for usefulness: tests of caps want to see the caps. Tests of learning
# pass ``{"global": {"parallel": None}, ...}`` and say what they expect to be learned.
NO_LEARNING: Overlay = {
    "global": {"parallel": 6},
    "models": {
        name: {"parallel": 6} for name in ("qwen3:4b", "qwen3:8b", "gemma3:12b", "gpt-oss:20b")
    },
}
LEARNING: Overlay = {
    "global": {"parallel": None},
    "models": {
        name: {"parallel": None} for name in ("qwen3:4b", "qwen3:8b", "gemma3:12b", "gpt-oss:20b")
    },
}


def policy(overlay: Overlay | None = None, source: str | None = None) -> LoadedPolicy:
    """The shipped policy with ``overlay`` merged over it, key by key.

    ``source``: where it is said to be from; None: it is of no file, and has no digest.
    """
    document = policy_file.merge(policy_file.shipped(), {**NO_LEARNING, "load_timeout_ms": 3000})
    # What a test stops is away: only those of restarts wait for it.
    document = policy_file.merge(document, {"global": {"restart_wait_ms": 0}})
    document = policy_file.merge(document, overlay or {})
    document.pop("$schema", None)
    if source is not None:
        return LoadedPolicy(parse(document), source, policy_file.digest(document))
    return LoadedPolicy(parse(document), "test", "0" * 64)


def settings(upstream_port: int, state: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "listen": Address("127.0.0.1", 0),
        "admin": Address("127.0.0.1", 0),
        "upstream": Address("127.0.0.1", upstream_port),
        "policy": None,
        "keys": None,
        "state": state,
        "client_header_timeout_s": 600.0,
        "client_body_timeout_s": 600.0,
        "client_send_timeout_s": 300.0,
        "connect_timeout_s": 600.0,
        "stall_timeout_s": 60.0,
        "drain_s": 5.0,
        "max_body_bytes": 4 * 2**20,
        "request_memory_bytes": 128 * 2**20,
        "max_connections": 2048,
        "keep_records_s": 30 * 86400.0,
        "max_records_bytes": 2**30,
        "log_format": "json",
        "allow_hosts": (),
        "allow_origins": (),
    }
    return Settings(**(values | changes))


@contextlib.asynccontextmanager
async def running(
    sim: SimConfig | None = None,
    overlay: Overlay | None = None,
    *,
    keyring: Keyring | None = None,
    endpoints: Iterable[Endpoint] = ENDPOINTS,
    curious: bool = True,
    source: str | None = None,
    **changes: Any,
) -> AsyncIterator[Running]:
    """Start both, hand them over, stop both. ``changes`` are Settings fields.

    ``source``: where the policy is said to be from; None: it is of no file.
    ``curious``: whether the proxy asks the upstream questions of its own accord. They come at any
    moment and take connections; a test that counts those does without.
    """
    # A look into the state file that was begun in a thread may outlive the app, as it does not
    # outlive a process, and leave a file behind while the directory is being removed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as state:
        async with stand_in(sim) as upstream:
            lines: list[bytes] = []
            app = App(
                settings(upstream.port, changes.pop("state", Path(state)), **changes),
                policy(overlay, source),
                sink=lines.append,
                json_log=True,
                keyring=keyring,
                clock=clock(),
                endpoints=endpoints,
            )
            calls = Finished()
            app.ended.listen("test", calls.note)
            if not curious:
                _ask_nothing(app)
            await app.start()
            # A busy test machine makes the loop late, and the Health Guard would shed for it:
            # only what a test says is a late loop here. What was noted while it started counts
            # for a minute, and is forgotten too.
            app.lag.stop()
            app.lag._samples.clear()
            # Nor is its disk too slow to count calls, and what was counted before is known.
            app.store._urgent_s = 3600.0
            # Its thread lives in the machine's time, whatever time this loop tells.
            app.store._clock = SystemClock()
            up = Running(app, upstream, lines, calls)
            # Its start waits for the state file for a moment only.
            await up.until(lambda: app.budget_keeper.is_open)
            await up.until(lambda: not is_under_way(app, "recalling"))
            try:
                yield up
            finally:
                await app.stop()


def is_under_way(app: App, task: str) -> bool:
    return task in {running.get_name() for running in app._tasks._running}


def _ask_nothing(app: App) -> None:
    app._first_look = _nothing  # type: ignore[method-assign]
    for watcher in (app.installed, app.probe, app.loaded_models):
        watcher.watch = _for_ever  # type: ignore[method-assign]


async def _nothing() -> None:
    pass


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def warm(up: Running, *models: str) -> None:
    """Have ``models`` loaded at the stand-in, and the proxy know; ``max_loaded`` must allow it."""
    async with Client(up.sim.port) as client:
        for model in models:
            answer = await client.request("POST", "/api/generate", {"model": model})
            assert answer.status == 200
    assert set(models) <= set(up.sim.loaded)
    # An answer that was under way when the last load ended may still overwrite a newer one.
    while not all(up.app.loaded_models.loaded(model) for model in models):
        await up.app.loaded_models.ask()


@contextlib.asynccontextmanager
async def in_front_of(
    port: int, overlay: Overlay | None = None, **changes: Any
) -> AsyncIterator[Running]:
    """The same in front of another upstream on this machine; the stand-in stays unused."""
    upstream = Address("127.0.0.1", port)
    async with running(overlay=overlay, upstream=upstream, **changes) as proxy:
        yield proxy
