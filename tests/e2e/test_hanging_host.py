"""One of several hosts hangs: it takes connections and says nothing."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import orjson
import pytest

from modelsplit_policy import deadlines
from modelsplit_policy.failures import Reason
from modelsplit_proxy.config import policy_file
from modelsplit_sim.config import SimConfig
from support import patience
from support.fleets import MODEL, FleetUp, fleet_up, question
from support.harness import running
from support.process import spawned

QUICK = SimConfig(tokens=1, num_parallel=4)
ONE: dict[str, Any] = {"parallel": 1, "max_concurrent": 1}
OPEN: dict[str, Any] = {"roles": {"PLANNER": {"reserved": 0}}}
# Bounds that are further away than a process on a busy machine takes for anything.
FAR: dict[str, Any] = {"load_timeout_ms": 600_000, "roles": {"CHAT": {"timeout_ms": 600_000}}}
MUTE_S = 0.4


@pytest.fixture(autouse=True)
def soon_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes half a minute takes half a second here."""
    patience.notice_soon(monkeypatch, MUTE_S)


async def hosts(fleet: FleetUp) -> dict[str, dict[str, Any]]:
    """As ``/hosts`` has them, by name."""
    async with fleet.up.admin() as admin:
        return {row["name"]: row for row in (await admin.request("GET", "/hosts")).json}


async def until_it_is_known(fleet: FleetUp, name: str, state: str) -> None:
    while (await hosts(fleet))[name]["state"] != state:
        await fleet.up.app.hosts[["a", "b"].index(name)].probe.ask()


async def until_answered(fleet: FleetUp, name: str, attempt: str | None = None) -> None:
    """By that host, in that attempt; on a busy machine another one may seem to hang for a while."""
    while True:
        answer = await fleet.ask()
        answered_there = answer.status == 200 and answer["X-LLM-Host"] == name
        if answered_there and attempt in {None, answer["X-LLM-Attempt"]}:
            return


@pytest.mark.flowing_time
async def test_who_waits_for_a_host_that_hangs_is_served_by_another_and_it_is_named() -> None:
    async with fleet_up(may_hang=("a",), a=(QUICK, {}), b=(QUICK, {"tier": 2})) as fleet:
        await fleet.load()
        fleet.ways["a"].hang()
        answer = await fleet.ask()
        assert (answer.status, answer["X-LLM-Host"], answer["X-LLM-Attempt"]) == (200, "b", "2")
        [record] = await fleet.up.calls.wait(1)
        first, second = record.attempts
        assert (first.host, second.host) == ("a", "b")
        assert first.model == second.model == MODEL
        assert first.failure is not None
        assert first.failure.reason is Reason.UPSTREAM_MUTE
        assert "Ollama of host a does not tell its version either: it hangs" in (
            first.failure.message
        )


@pytest.mark.flowing_time
async def test_it_is_left_out_until_it_answers_and_said_to_hang() -> None:
    async with fleet_up(may_hang=("a",), a=(QUICK, {}), b=(QUICK, {"tier": 2})) as fleet:
        await fleet.load()
        fleet.ways["a"].hang()
        await until_it_is_known(fleet, "a", "hangs")
        for _ in range(3):
            answer = await fleet.ask()
            assert (answer["X-LLM-Host"], answer["X-LLM-Attempt"]) == ("b", "1")
        async with fleet.up.admin() as admin:
            health = (await admin.request("GET", "/healthz")).json["health"]
            ready = await admin.request("GET", "/readyz")
        [note] = [note["text"] for note in health["notes"] if note["text"].startswith("host a ")]
        assert note.startswith("host a takes calls and answers none (no answer within")
        assert note.endswith("; its calls go to the others")
        assert ready.status == 200
        fleet.ways["a"].go_on()
        await until_it_is_known(fleet, "a", "up")
        answer = await fleet.ask()
        assert (answer["X-LLM-Host"], answer["X-LLM-Attempt"]) == ("a", "1")


@pytest.mark.flowing_time
async def test_calls_in_line_go_elsewhere_and_the_one_it_has_times_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadlines, "MUTE_S", 600.0)
    async with fleet_up(OPEN, may_hang=("a",), a=(QUICK, ONE), b=(QUICK, ONE)) as fleet:
        await fleet.load()
        fleet.ways["a"].hang()
        fleet.stall("b", times=1)
        headers = {"X-LLM-No-Fallback": "1"}
        async with fleet.up.client() as held, fleet.up.client() as busy:
            await held.ask("POST", "/api/generate", question(MODEL), headers)
            await fleet.up.until(lambda: fleet.running("a") == 1)
            assert (await fleet.begun(busy))["X-LLM-Host"] == "b"
            waiting = [asyncio.ensure_future(fleet.ask()) for _ in range(4)]
            await fleet.up.until(lambda: fleet.up.seats() == (2, 4))
            await until_it_is_known(fleet, "a", "hangs")
            monkeypatch.setattr(deadlines, "MUTE_S", MUTE_S)
            late = await held.answer()
            assert (late.status, late["X-LLM-Host"]) == (504, "a")
            assert (late.json["error_code"], late.json["reason"]) == (
                "E_TIMEOUT_LOCAL",
                "upstream_mute",
            )
            assert "Ollama of host a" in late.json["error"]
            # Its seat is free, and nobody is sent there.
            assert fleet.up.seats() == (1, 4)
        answers = await asyncio.gather(*waiting)
        assert [(answer.status, answer["X-LLM-Host"]) for answer in answers] == [(200, "b")] * 4


@pytest.mark.flowing_time
async def test_while_all_of_them_hang_calls_are_told_so() -> None:
    async with fleet_up(may_hang=("a", "b"), a=(QUICK, {}), b=(QUICK, {})) as fleet:
        await fleet.load()
        for name in "ab":
            fleet.ways[name].hang()
            await until_it_is_known(fleet, name, "hangs")
        answer = await fleet.ask()
        assert (answer.status, answer.json["reason"]) == (504, "upstream_mute")
        fleet.ways["b"].go_on()
        await until_it_is_known(fleet, "b", "up")
        assert (await fleet.ask())["X-LLM-Host"] == "b"


async def test_a_process_that_is_stopped_is_left_out_until_it_goes_on() -> None:
    async with (
        spawned("modelsplit_sim", "--model", MODEL) as one,
        spawned("modelsplit_sim", "--model", MODEL) as other,
    ):
        ports = [orjson.loads(await child.said())["port"] for child in (one, other)]
        rows = {
            name: {"url": f"http://127.0.0.1:{port}", "tier": tier}
            for name, port, tier in zip("ab", ports, (1, 2), strict=True)
        }
        async with running(None, policy_file.merge({"hosts": rows}, FAR)) as up:
            fleet = FleetUp(up, {})
            await until_answered(fleet, "a")
            one.signal(signal.SIGSTOP)
            # Sent to the one that is stopped, it goes on to the other one.
            await until_answered(fleet, "b")
            await until_it_is_known(fleet, "a", "hangs")
            await until_answered(fleet, "b", attempt="1")
            one.signal(signal.SIGCONT)
            await until_it_is_known(fleet, "a", "up")
            await until_answered(fleet, "a", attempt="1")
