"""Whether the process and its service are well, as the admin port tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from modelsplit_sim.config import SimConfig
from support.harness import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.harness import Running

pytestmark = pytest.mark.flowing_time


@pytest.fixture
async def up() -> AsyncIterator[Running]:
    async with running(SimConfig(tokens=2)) as up:
        yield up


async def test_health_is_the_processs_and_readiness_the_services(up: Running) -> None:
    async with up.admin() as admin:
        health = await admin.request("GET", "/healthz")
        assert health.json["status"] == "ok"
        assert health.json["upstream"]["up"] is True
        assert health.json["upstream"]["version"] == up.sim.config.version
        assert (await admin.request("GET", "/readyz")).json["ready"] is True
        await up.sim.stop()
        await up.app.probe.ask()
        health = await admin.request("GET", "/healthz")
        assert (health.status, health.json["upstream"]["up"]) == (200, False)
        ready = await admin.request("GET", "/readyz")
        assert (ready.status, ready.json["ready"]) == (503, False)
        await up.sim.start()
        await up.app.probe.ask()
        assert (await admin.request("GET", "/readyz")).status == 200
        up.app.lifecycle.draining = True
        ready = await admin.request("GET", "/readyz")
        assert (ready.status, ready.json["draining"]) == (503, True)
