"""One verdict on the service, shown alike by whoever shows it."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.health import SEVERITY, Level
from modelsplit_proxy.admin import status_text
from modelsplit_proxy.cli import status
from modelsplit_proxy.cli.service_status import status_line
from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_proxy.watch import upstream_probe
from modelsplit_sim.cloud import Script
from modelsplit_sim.config import SimConfig
from modelsplit_sim.faults import Kind
from modelsplit_sim.models import DEFAULT_MODELS
from support.calls import call
from support.clouds import approve, with_a_cloud
from support.doctoring import SetClock
from support.harness import Running, running, warm

if TYPE_CHECKING:
    from pathlib import Path

ROUTE = "/api/generate"
ENDLESS = SimConfig(tokens=10**6, token_rate=200, num_parallel=8, max_loaded=4)


async def ask(up: Running, model: str, **headers: str) -> int:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with up.client() as client:
        return (await client.request("POST", ROUTE, call(ROUTE, model), sent)).status


async def seen(up: Running) -> dict[str, Any]:
    """The health that ``/stats`` tells, if everybody else tells the same."""
    # On a connection each: while it drains, it closes them.
    answers = {}
    for path in ("/stats", "/healthz", "/metrics"):
        async with up.admin() as admin:
            answers[path] = await admin.request("GET", path, None, {"Connection": "close"})
    stats, healthz = answers["/stats"].json, answers["/healthz"]
    metrics = answers["/metrics"].body.decode()
    health: dict[str, Any] = stats["health"]
    level = Level(health["level"])
    assert (healthz.status, healthz.json["health"]) == (200, health)
    assert (healthz.json["status"], healthz.json["error"]) == (
        level.lower(),
        health["cause"] or None,
    )
    assert f"\nmodelsplit_health_level {SEVERITY[level]:.1f}\n" in metrics
    if not up.app.lifecycle.draining:
        assert f"health {level};" in status_line(up.app)
    text = "\n".join(status_text.lines(stats))
    assert text.startswith((f"{level}  Ollama ", f"{level}  no Ollama answers at "))
    assert all(f"\ncause    {cause['text']}\n" in text for cause in health["causes"])
    assert (f"\nnext     {health['next']}\n" in text) == bool(health["next"])
    admin_port = Address("127.0.0.1", up.admin_port)
    code = await asyncio.to_thread(status.run, admin_port, as_json=True)
    assert code == (0 if level is Level.OK else 1)
    return health


async def test_all_is_well() -> None:
    async with running() as up:
        assert await ask(up, "planner") == 200
        health = await seen(up)
        assert health == {
            "level": "OK",
            "cause": "",
            "causes": [],
            "notes": [],
            "next": "",
            "shedding": "OK",
        }


async def test_ollama_is_away_and_comes_back() -> None:
    async with running() as up:
        await up.sim.stop()
        await up.app.probe.ask()
        up.app.monitor.look()
        health = await seen(up)
        start = f"OLLAMA_HOST={up.app.target.authority} ollama serve"
        assert (health["level"], health["next"]) == ("CRITICAL", start)
        assert len(health["causes"]) == 1
        await up.sim.start()
        await up.app.probe.ask()
        up.app.monitor.look()
        # The guard waits before it trusts; that Ollama is there is known.
        assert up.app.monitor.guard.level is Level.CRITICAL
        health = await seen(up)
        assert health["level"] == "OK"
        [note] = health["notes"]
        assert re.fullmatch(
            r"all is well since \d+ s ago; before, for \d+ s: Ollama at \S+ is not answering "
            r"\(connection refused\)",
            note["text"],
        )


async def test_what_a_cloud_failed_of_outlives_an_outage_of_ollama(tmp_path: Path) -> None:
    async with with_a_cloud(tmp_path) as (up, cloud):
        cloud.scripts += [Script(status=500) for _ in range(3)]
        assert [await ask(up, "cloud") for _ in range(3)] == [500] * 3
        told = "CLOUD: 3 of 3 calls failed in the last 5 min (status 3)"
        assert (await seen(up))["cause"] == told
        await up.sim.stop()
        await up.app.probe.ask()
        up.app.service.look()
        assert told in [cause["text"] for cause in (await seen(up))["causes"]]
        await up.sim.start()
        await up.app.probe.ask()
        up.app.service.look()
        assert (await seen(up))["cause"] == told


async def test_an_outage_tells_its_own_failed_calls_and_they_are_no_trouble_any_more() -> None:
    async with running() as up:
        up.app.service.look()
        up.sim.faults.add(Kind.STATUS, status=500, body='{"error":"died"}')
        assert await ask(up, "executor") == 500, "this one is of no outage"
        up.sim.faults.clear()
        await up.app.probe.ask()
        up.app.service.look()
        # Which was a second ago.
        looks = up.app.service._failed._copies
        looks.extend((at - 1.0, count) for at, count in [looks.pop()])
        await up.sim.stop()
        assert [await ask(up, "planner") for _ in range(4)] == [502] * 4
        up.app.service.look()
        health = await seen(up)
        [cause] = health["causes"]
        assert cause["level"] == "CRITICAL"
        assert re.fullmatch(
            r"Ollama has not answered for \d+ s; 4 calls failed since", health["notes"][0]["text"]
        )
        await up.sim.start()
        await up.until(lambda: up.app.probe.up is True)
        up.app.service.look()
        health = await seen(up)
        assert (health["level"], health["causes"]) == ("OK", []), health["causes"]
        [over] = (note["text"] for note in health["notes"])
        assert over.endswith("is not answering (connection refused); 4 calls failed meanwhile")
        up.sim.faults.add(Kind.STATUS, status=500, body='{"error":"died"}')
        assert [await ask(up, "planner") for _ in range(3)] == [500] * 3
        health = await seen(up)
        assert health["level"] == "DEGRADED", "these have failed since"
        assert health["cause"] == "PLANNER: 3 of 3 calls failed since Ollama is back (status 3)"
        assert health["notes"][0]["text"].startswith("Ollama answers again since ")


async def test_health_says_what_the_probe_says_whatever_the_guard_saw_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The guard looks once a second, and the probe hears at once."""
    caplog.set_level(logging.INFO, "modelsplit")
    async with running(curious=False) as up:
        await up.sim.stop()
        await up.app.probe.ask()
        up.app.monitor.look()
        up.app.service.look()
        assert up.app.service.level() is Level.CRITICAL
        await up.sim.start()
        await up.app.probe.ask()
        up.app.service.look()
        assert up.app.service.level() is Level.OK
    told = [line.split(":")[0].split(",")[0] for line in caplog.messages if "health is" in line]
    assert told == ["health is CRITICAL", "health is OK again"]


async def test_an_open_question_is_told_alike_everywhere_and_an_outage_from_the_last_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(curious=False) as up:
        probe, service = up.app.probe, up.app.service
        await probe.ask()
        service.look()
        loop = asyncio.get_running_loop()
        up.sim.faults.add(Kind.HANG, path="/api/version")
        asking = asyncio.ensure_future(probe.ask())
        await up.until(lambda: bool(probe.unanswered))
        assert probe._asked is not None
        # It was asked four seconds ago, and had answered one second before.
        probe._asked, probe._answered = loop.time() - 4.0, loop.time() - 5.0
        health = await seen(up)
        assert (health["level"], health["next"]) == ("OK", up.app.target.steps.look)
        [note] = health["notes"]
        assert re.fullmatch(r"Ollama has not answered the probe for \d+ s", note["text"])
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        monkeypatch.setattr(upstream_probe, "_TIMEOUT_S", 0.01)
        await probe.ask()
        assert probe.away_since == probe._answered
        health = await seen(up)
        assert health["next"] == up.app.target.steps.restart
        told = re.fullmatch(r"Ollama has not answered for (\d+) s", health["notes"][0]["text"])
        assert told is not None
        assert int(told[1]) >= 5
        up.sim.faults.clear()
        monkeypatch.setattr(upstream_probe, "_TIMEOUT_S", 600.0)
        await probe.ask()
        health = await seen(up)
        told = re.search(r"; before, for (\d+) s: Ollama at ", health["notes"][0]["text"])
        assert told is not None
        assert int(told[1]) >= 5


async def test_the_log_tells_what_is_critical_now_though_the_level_is_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(curious=False) as up:
        await up.sim.stop()
        await up.app.probe.ask()
        up.app.service.look()
        up.sim.config = replace(up.sim.config, models=("llama3.2:1b",))
        await up.sim.start()
        await up.app.probe.ask()
        up.app.installed.want()
        await up.app.installed.ask()
        up.app.service.look()
        up.app.service.look()
    _, now = (line for line in caplog.messages if line.startswith("health is "))
    assert now.startswith("health is now CRITICAL: no role can be served: none of their models ")
    assert "; next: " in now


async def test_the_log_tells_each_change_of_the_level_that_is_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "modelsplit")
    async with running(curious=False) as up:
        for change in (None, up.sim.stop, None, up.sim.start, None):
            if change is not None:
                await change()
            await up.app.probe.ask()
            up.app.service.look()
        where = up.app.target.authority
    told = [line for line in caplog.messages if line.startswith("health is ")]
    away = f"Ollama at http://{where} is not answering (connection refused)"
    assert told == [
        f"health is CRITICAL: {away}; next: OLLAMA_HOST={where} ollama serve",
        f"health is OK again, after 0 s; it was: {away}",
    ]


async def test_none_of_the_roles_models_is_installed() -> None:
    async with running(SimConfig(models=("llama3.2:1b",))) as up:
        health = await seen(up)
        pull = f"OLLAMA_HOST=http://127.0.0.1:{up.sim.port} ollama pull"
        step = f"{pull} qwen3:4b && {pull} qwen3:8b && {pull} gemma3:12b"
        assert (health["level"], health["next"]) == ("CRITICAL", step)
        assert health["cause"] == (
            "no role can be served: none of their models is installed "
            "(qwen3:4b, qwen3:8b, gemma3:12b, gpt-oss:20b)"
        )
        async with up.admin() as admin:
            stats = (await admin.request("GET", "/stats")).json
        assert stats["missing_models"]["HEAVY"] == ["gemma3:12b", "gpt-oss:20b"]


async def test_a_fallback_that_is_not_installed_is_a_note() -> None:
    models = tuple(model for model in DEFAULT_MODELS if model.name != "gpt-oss:20b")
    async with running(SimConfig(models)) as up:
        health = await seen(up)
        pull = f"OLLAMA_HOST=http://127.0.0.1:{up.sim.port} ollama pull"
        assert (health["level"], health["next"]) == ("OK", f"{pull} gpt-oss:20b")
        assert [note["text"] for note in health["notes"]] == [
            "HEAVY has no fallback: gpt-oss:20b is not installed"
        ]


async def test_half_of_the_calls_are_refused() -> None:
    async with running(ENDLESS) as up:
        await warm(up, "qwen3:4b")
        clients = [up.client() for _ in range(2)]
        for client in clients:
            await client.ask("POST", ROUTE, call(ROUTE, "planner", stream=True))
        await up.until(lambda: up.seats() == (2, 0))
        for _ in range(10):
            assert await ask(up, "planner", X_LLM_Max_Wait_Ms="0") == 503
        health = await seen(up)
        assert health["level"] == "CRITICAL"
        assert re.fullmatch(
            r"PLANNER: 10 of 1\d calls failed in the last 5 min \(queue_timeout 10\)",
            health["cause"],
        )
        assert health["next"] == (
            "modelsplit requests --role PLANNER --failed --since 5m "
            f"--admin 127.0.0.1:{up.admin_port}"
        )
        async with up.admin() as admin:
            stats = (await admin.request("GET", "/stats")).json
        planner = stats["recent"]["roles"]["PLANNER"]
        assert (planner["failed"], planner["reasons"]) == (10, {"queue_timeout": 10})
        assert [row["state"] for row in stats["running"]] == ["streaming"] * 2
        for client in clients:
            client.reset()
        await up.until(lambda: up.seats() == (0, 0))


async def test_a_line_is_full() -> None:
    overlay = {"roles": {"HEAVY": {"max_queue": 1}}}
    async with running(ENDLESS, overlay) as up:
        clients = [up.client() for _ in range(2)]
        for client in clients:
            await client.ask("POST", ROUTE, call(ROUTE, "heavy", stream=True))
        await up.until(lambda: up.seats() == (1, 1))
        health = await seen(up)
        assert (health["level"], health["cause"]) == (
            *("DEGRADED", "HEAVY's line is full: 1 of 1 wait"),
        )
        for client in clients:
            client.reset()
        await up.until(lambda: up.seats() == (0, 0))


async def test_a_runner_hangs() -> None:
    async with running() as up, up.client() as client:
        await warm(up, "gpt-oss:20b")
        up.sim.faults.add(Kind.HANG, model="gpt-oss:20b", path=ROUTE)
        sent = {"X-Request-Id": "hangs"}
        await client.ask("POST", ROUTE, call(ROUTE, "gpt-oss:20b"), sent)
        await up.until(
            lambda: bool(up.app.live.calls()) and up.app.live.calls()[0].silent_s is not None
        )
        assert (await seen(up))["level"] == "OK"
        [record] = up.app.live._records.values()
        moment = record.attempts[-1].dispatched
        assert moment is not None
        # It stands still: all who tell of it do so at the same moment.
        up.app.live._clock = SetClock(moment + 61.0)
        health = await seen(up)
        assert health["level"] == "DEGRADED"
        assert (
            health["cause"]
            == "a call of CHAT has had no answer from gpt-oss:20b for 61 s: it may hang"
        )
        assert health["next"].startswith("modelsplit requests hangs ")
        client.reset()
        await up.until(lambda: up.seats() == (0, 0))


async def test_that_the_state_was_read_at_the_start_is_no_recovery() -> None:
    async with running() as up:
        await up.until(lambda: up.app.budget_keeper.is_open)
        up.app.budget_keeper._is_open = False
        assert "it has not been read yet" in up.app.service.verdict().cause
        up.app.budget_keeper._is_open = True
        found = up.app.service.verdict()
        assert (found.level, found.notes) == (Level.OK, ())


async def test_it_drains() -> None:
    async with running(ENDLESS) as up:
        up.app.lifecycle.draining = True
        health = await seen(up)
        assert (health["level"], health["cause"]) == (
            *("CRITICAL", "it drains: 0 requests being answered, new ones are refused"),
        )
        up.app.lifecycle.draining = False


async def test_the_state_file_was_damaged(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"garbage" * 1000)
    async with running(state=tmp_path) as up:
        await up.until(lambda: up.app.budget_keeper.is_open)
        health = await seen(up)
        why = "the state file was damaged"
        assert (health["level"], health["next"]) == (
            "DEGRADED",
            f'modelsplit budget reset --reason "{why}" --admin 127.0.0.1:{up.admin_port}',
        )
        assert health["cause"].endswith("so budgets are taken as used up: heavy-20b, cloud")
        assert health["notes"][0]["text"].startswith("the state file was damaged at the start: it")


async def test_since_when_the_level_is_seen_as_it_is() -> None:
    async with running() as up:
        service = up.app.service
        service._seen = None
        assert service.since() is None
        assert service.level() is Level.OK
        since = service.since()
        assert since is not None
        service.level()
        assert service.since() == since
        up.app.lifecycle.draining = True
        assert service.level() is not Level.OK
        later = service.since()
        assert later is not None
        assert later >= since
        assert service._seen is not None
        assert service._seen[0] is not Level.OK


async def test_a_cloud_without_a_key_is_told_at_the_start_and_wherever_health_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "modelsplit")
    cause = (
        "anthropic has no key, so none of its models can be asked: $ANTHROPIC_API_KEY is not set"
    )
    async with with_a_cloud(tmp_path, approved=None, key="") as (up, _):
        assert [text for text in caplog.messages if text.startswith(f"{cause}; next: read -rs ")]
        health = await seen(up)
        assert (health["level"], [note["text"] for note in health["notes"]]) == ("OK", [cause])
        approve(tmp_path)
        await up.app.budget_keeper.look()
        health = await seen(up)
        assert (health["level"], health["cause"]) == ("DEGRADED", cause)
