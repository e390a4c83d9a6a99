"""A proxy in front of several stand-ins, each a host with a name."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelsplit_policy.vocabulary import Host
from modelsplit_proxy.config import policy_file
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.server import Sim
from support.harness import Overlay, Running, running
from support.ports import stand_in
from support.stopped import Way, way
from support.wire import Answer, Client

# A host of a test: what its stand-in is like, and what the policy says of it.
Row = tuple[SimConfig | None, Mapping[str, Any]]
MODEL = "qwen3:8b"
# However slow the machine is, nobody's wait ends.
PATIENT: Overlay = {
    "roles": {"CHAT": {"allow_long_wait": True, "max_wait_ms": 600_000, "max_queue": 1000}}
}


@dataclass
class FleetUp:
    """``sims``: by the name of the host. ``ways``: those that can be made to hang, likewise."""

    up: Running
    sims: dict[str, Sim]
    ways: dict[str, Way] = field(default_factory=dict)

    def served(self, name: str) -> int:
        """How many calls the host was sent."""
        return sum(call.path == "/api/generate" for call in self.sims[name].calls)

    def running(self, name: str) -> int:
        return self.up.app.admission.host(Host(name)).running

    def is_known(self, name: str, *, up: bool) -> bool:
        """Whether the proxy knows that the host is there, or is not."""
        assert self.up.app.fleet is not None
        return self.up.app.fleet.by_name[name].probe.up is up

    async def ask(self, model: str = MODEL, **more: Any) -> Answer:
        """A call with a connection of its own, answered whole."""
        async with self.up.client() as client:
            return await client.request("POST", "/api/generate", question(model, **more))

    async def begun(self, client: Client, model: str = MODEL) -> Answer:
        """A stream whose head has come."""
        body = question(model, stream=True)
        await client.ask("POST", "/api/generate", body)
        return await client.head()

    async def load(self, model: str = MODEL) -> None:
        """Have a model loaded on every host, and known to be."""
        for sim in self.sims.values():
            async with Client(sim.port) as client:
                answer = await client.request("POST", "/api/generate", {"model": model})
                assert answer.status == 200
        for host in self.up.app.hosts:
            while not host.loaded_models.loaded(model):
                await host.loaded_models.ask()

    def stall(self, name: str, **more: Any) -> None:
        """From now on a stream of this host goes silent after its first token."""
        self.sims[name].faults.add(Kind.STALL, after=1, **more)


def question(model: str, *, stream: bool = False, **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": "hi", "stream": stream, **more}


@contextlib.asynccontextmanager
async def fleet_up(
    overlay: Overlay | None = None,
    /,
    *,
    curious: bool = True,
    may_hang: tuple[str, ...] = (),
    **hosts: Row,
) -> AsyncIterator[FleetUp]:
    """A proxy in front of hosts of these names; what each has installed is known.

    ``may_hang``: the names of hosts that get a way of their own, to be held up (``stopped``).
    """
    async with contextlib.AsyncExitStack() as stack:
        sims = {
            name: await stack.enter_async_context(stand_in(config))
            for name, (config, _) in hosts.items()
        }
        ways = {name: await stack.enter_async_context(way(sims[name].port)) for name in may_hang}
        ports = {name: sim.port for name, sim in sims.items()}
        ports |= {name: own.port for name, own in ways.items()}
        rows = {
            name: {"url": f"http://127.0.0.1:{ports[name]}", **row}
            for name, (_, row) in hosts.items()
        }
        merged = policy_file.merge({"hosts": rows, **PATIENT}, overlay or {})
        up = await stack.enter_async_context(running(None, merged, curious=curious))
        if curious:
            await up.until(lambda: all(h.installed is not None for h in up.app.admission.hosts))
        yield FleetUp(up, sims, ways)
