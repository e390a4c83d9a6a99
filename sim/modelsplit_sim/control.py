"""The control port: the stand-in's state and faults over HTTP, for other processes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from .faults import Fault
    from .server import Sim

_WAIT_S = 30.0


class Control:
    """Serves /state, /calls, /faults and /wait on a port of its own."""

    def __init__(self, sim: Sim) -> None:
        self._sim = sim
        app = web.Application()
        app.add_routes(
            [
                web.get("/state", self._state),
                web.get("/calls", self._calls),
                web.post("/faults", self._add_faults),
                web.delete("/faults", self._clear_faults),
                web.post("/wait", self._wait),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, port: int) -> int:
        """Listen on 127.0.0.1; returns the port, chosen freely for 0."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, shutdown_timeout=0.1)
        await site.start()
        chosen: int = self._runner.addresses[0][1]
        return chosen

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _state(self, _: web.Request) -> web.Response:
        return _json(state(self._sim))

    async def _calls(self, _: web.Request) -> web.Response:
        return _json([call.as_dict() for call in self._sim.calls])

    async def _add_faults(self, request: web.Request) -> web.Response:
        """One object or a list of them: {"kind": …, other fields of faults.Fault}."""
        given = orjson.loads(await request.read())
        try:
            for fields in given if isinstance(given, list) else [given]:
                self._sim.faults.add(**fields)
        except (TypeError, ValueError) as error:
            return _json({"error": str(error)}, 400)
        return _json({"faults": [_fault(rule) for rule in self._sim.faults.rules]})

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self._sim.faults.clear()
        return _json({"faults": []})

    async def _wait(self, request: web.Request) -> web.Response:
        """{"active": 0, "timeout": 2.5}: every number of /state named must be reached at once.

        "timeout": null waits for as long as it takes.
        """
        wanted: dict[str, Any] = orjson.loads(await request.read())
        timeout = wanted.pop("timeout", _WAIT_S)
        timeout_s = None if timeout is None else float(timeout)
        unknown = wanted.keys() - numbers(self._sim).keys()
        if unknown:
            return _json({"error": f"unknown: {sorted(unknown)}"}, 400)
        try:
            await self._sim.wait_for(lambda sim: wanted.items() <= numbers(sim).items(), timeout_s)
        except TimeoutError:
            return _json(state(self._sim), 504)
        return _json(state(self._sim))


def numbers(sim: Sim) -> dict[str, int]:
    """What /wait can wait for."""
    fields = dataclasses.asdict(sim.counts)
    plain = {name: value for name, value in fields.items() if isinstance(value, int)}
    return plain | {"waiting": sim.waiting, "loaded": len(sim.loaded)}


def state(sim: Sim) -> dict[str, Any]:
    return {
        **numbers(sim),
        "port": sim.port,
        "runners": sim.loaded,
        "active_by_model": dict(sim.counts.active_by_model),
        "max_active_by_model": dict(sim.counts.max_active_by_model),
        "faults": [_fault(rule) for rule in sim.faults.rules],
    }


def _fault(rule: Fault) -> dict[str, Any]:
    return dataclasses.asdict(rule)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")
