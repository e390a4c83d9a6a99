"""What Prometheus sees of several hosts."""

from __future__ import annotations

from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from support.fleets import MODEL, fleet_up
from support.harness import running

QUICK = SimConfig(tokens=1)


async def test_every_host_has_its_series() -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {"tier": 2, "parallel": 3})) as fleet:
        fleet.sims["a"].faults.add(Kind.RESET, path="/api/generate", times=1)
        assert (await fleet.ask())["X-LLM-Host"] == "b"
        assert (await fleet.ask())["X-LLM-Host"] == "a"
        async with fleet.up.admin() as admin:
            await admin.request("POST", "/hosts/b/drain")
            text = (await admin.request("GET", "/metrics")).body.decode()
        for line in (
            'modelsplit_host_attempts_total{host="a",outcome="failed"} 1.0',
            'modelsplit_host_attempts_total{host="a",outcome="ok"} 1.0',
            'modelsplit_host_attempts_total{host="b",outcome="ok"} 1.0',
            # Where the call to a failed it went to the only other one; then a was the better.
            'modelsplit_host_placements_total{host="a",reason="tier"} 2.0',
            'modelsplit_host_placements_total{host="b",reason="only"} 1.0',
            'modelsplit_host_drained{host="b"} 1.0',
            'modelsplit_host_in_flight{host="a"} 0.0',
            'modelsplit_host_parallelism{host="b"} 3.0',
            'modelsplit_host_up{host="a"} 1.0',
        ):
            assert f"\n{line}\n" in text, line


async def test_a_breaker_of_one_host_is_that_hosts_and_stops_no_model() -> None:
    overlay = {"breakers": {"failures": 1}}
    async with fleet_up(overlay, a=(QUICK, {}), b=(QUICK, {"tier": 2})) as fleet:
        fleet.sims["a"].faults.add(Kind.STATUS, status=500, path="/api/generate", times=1)
        await fleet.ask()
        async with fleet.up.admin() as admin:
            text = (await admin.request("GET", "/metrics")).body.decode()
            [a, b] = (await admin.request("GET", "/hosts")).json
        assert f'modelsplit_host_breaker_open{{host="a",model="{MODEL}"}} 1.0' in text
        assert "modelsplit_breaker_open{" not in text
        assert (a["stopped"], b["stopped"]) == ([MODEL], [])


async def test_the_one_upstream_has_none() -> None:
    async with running(QUICK) as up, up.admin() as admin:
        assert b"modelsplit_host_" not in (await admin.request("GET", "/metrics")).body
