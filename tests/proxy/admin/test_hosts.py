"""Hosts on the admin port: shown, drained, let in again."""

from __future__ import annotations

import asyncio

import pytest

from modelsplit_policy.vocabulary import Host
from modelsplit_sim.config import SimConfig
from support.fleets import fleet_up
from support.harness import running

QUICK = SimConfig(tokens=1, num_parallel=4)


async def test_a_drained_host_takes_no_new_calls_until_it_is_let_in_again() -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {"tier": 2})) as fleet, fleet.up.admin() as admin:
        row = await admin.request("POST", "/hosts/a/drain")
        assert (row.status, row.json["state"], row.json["drained"]) == (200, "drained", True)
        assert (await fleet.ask())["X-LLM-Host"] == "b"
        row = await admin.request("POST", "/hosts/a/undrain")
        assert (row.status, row.json["state"]) == (200, "up")
        assert (await fleet.ask())["X-LLM-Host"] == "a"


async def test_what_a_drained_host_computes_goes_on_and_who_waits_is_served_elsewhere() -> None:
    one = {"parallel": 1, "max_concurrent": 1}
    every_seat = {"roles": {"PLANNER": {"reserved": 0}}}
    async with fleet_up(every_seat, a=(QUICK, one), b=(QUICK, one)) as fleet:
        for name in "ab":
            fleet.stall(name, times=1)
        clients = [fleet.up.client() for _ in range(2)]
        hosts = [(await fleet.begun(client))["X-LLM-Host"] for client in clients]
        waiting = asyncio.ensure_future(fleet.ask())
        await fleet.up.until(lambda: fleet.up.seats() == (2, 1))
        async with fleet.up.admin() as admin:
            row = (await admin.request("POST", "/hosts/a/drain")).json
            assert (row["state"], row["running"]) == ("draining", 1)
        await clients[hosts.index("a")].close()
        await fleet.up.until(lambda: fleet.running("a") == 0)
        assert fleet.up.seats() == (1, 1)
        await clients[hosts.index("b")].close()
        assert (await waiting)["X-LLM-Host"] == "b"
        for client in clients:
            await client.close()


async def test_where_all_hosts_are_drained_calls_are_refused_at_once() -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {})) as fleet, fleet.up.admin() as admin:
        for name in "ab":
            await admin.request("POST", f"/hosts/{name}/drain")
        answer = await fleet.ask()
        assert (answer.status, answer.json["reason"]) == (503, "draining")
        assert "every host that may run qwen3:8b is drained" in answer.json["error"]
        ready = await admin.request("GET", "/readyz")
        health = (await admin.request("GET", "/healthz")).json["health"]
        assert (ready.status, ready.json["ready"]) == (503, False)
        assert (health["level"], health["cause"]) == (
            "CRITICAL",
            "no host takes calls: a is drained, b is drained",
        )
        await admin.request("POST", "/hosts/a/undrain")
        assert (await admin.request("GET", "/readyz")).status == 200


async def test_the_hosts_are_shown_in_words_and_in_values() -> None:
    async with fleet_up(a=(QUICK, {"memory_gb": 24}), b=(QUICK, {})) as fleet:
        await fleet.ask()
        async with fleet.up.admin() as admin:
            first, second = (await admin.request("GET", "/hosts")).json
            assert (first["name"], first["state"], first["memory_gb"]) == ("a", "up", 24.0)
            assert (second["installed"], "qwen3:8b" in second["models"]) == (
                len(second["models"]),
                True,
            )
            assert second["address"] == f"http://127.0.0.1:{fleet.sims['b'].port}"
            text = (await admin.request("GET", "/hosts?format=text")).body.decode()
            assert text.splitlines()[0].startswith("HOST")
            stats = (await admin.request("GET", "/stats")).json
            assert [row["name"] for row in stats["hosts"]] == ["a", "b"]
            assert "qwen3:8b" in stats["hosts"][0]["models"]
            status = (await admin.request("GET", "/stats?format=text")).body.decode()
            assert text.splitlines()[0] in status
            snapshot = (await admin.request("GET", "/dashboard/snapshot")).json
            assert [row["name"] for row in snapshot["hosts"]] == ["a", "b"]


async def test_a_host_that_is_away_is_shown_so() -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {})) as fleet, fleet.up.admin() as admin:
        await fleet.sims["b"].stop()
        await fleet.up.until(lambda: fleet.is_known("b", up=False))
        rows = (await admin.request("GET", "/hosts")).json
        assert [row["state"] for row in rows] == ["up", "away"]
        health = (await admin.request("GET", "/stats")).json["health"]
        told = [note["text"] for note in health["notes"] if note["text"].startswith("host b ")]
        assert told == ["host b does not answer (connection refused); its calls go to the others"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Origin": "http://evil.example"}, 403), ({"Sec-Fetch-Site": "cross-site"}, 403)],
)
async def test_a_web_page_of_another_origin_drains_nothing(
    headers: dict[str, str], status: int
) -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {})) as fleet, fleet.up.admin() as admin:
        answer = await admin.request("POST", "/hosts/a/drain", None, headers)
        assert answer.status == status
        assert not fleet.up.app.admission.host(Host("a")).drained
        assert (await admin.request("GET", "/hosts/a/drain")).status == 405


async def test_there_is_no_host_of_another_name_and_none_where_the_policy_names_none() -> None:
    async with fleet_up(a=(QUICK, {}), b=(QUICK, {})) as fleet, fleet.up.admin() as admin:
        answer = await admin.request("POST", "/hosts/c/drain")
        assert (answer.status, answer.json["error"]) == (404, 'there is no host "c": a, b')
    async with running(QUICK) as up, up.admin() as admin:
        answer = await admin.request("POST", "/hosts/default/drain")
        assert answer.status == 404
        assert (await admin.request("GET", "/hosts")).json == []
        assert "hosts" not in (await admin.request("GET", "/stats")).json
