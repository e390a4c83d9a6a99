"""What the running proxy, and its records, say is wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from modelsplit_proxy.cli import doctor_running, status
from modelsplit_proxy.cli.doctor_findings import Finding, Look, Unseen
from modelsplit_proxy.config.settings import Address, read_settings, where_said
from support.doctoring import answer, causes, look
from support.harness import Running, running

CHAT = b'{"model":"planner","messages":[],"stream":false}'


async def looked(check: Any, up: Running, folder: Path) -> list[Finding | Unseen]:
    """What a check finds of a running proxy."""
    admin = Address("127.0.0.1", up.admin_port)

    def at() -> list[Finding | Unseen]:
        stats = status.ask(admin)
        assert isinstance(stats, dict)
        return [*check(look(folder, stats=stats, settings={"admin": str(admin)}))]

    return await asyncio.to_thread(at)


@pytest.mark.parametrize("said", [True, False])
def test_what_the_running_proxy_has_holds_where_nobody_says_another(
    said: bool, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.json"
    policy.touch()
    flags = {"upstream": "http://127.0.0.1:1", "policy": "/other"} if said else {}
    stats = {
        "upstream": {"address": "http://127.0.0.1:11433"},
        "policy": {"source": str(policy)},
    }
    found = doctor_running.in_force(read_settings(flags, {}), where_said(flags, {}), stats)
    assert (found.upstream.port, found.policy) == ((1, Path("/other")) if said else (11433, policy))


def test_a_proxy_with_the_shipped_policy_names_no_file() -> None:
    settings = read_settings({}, {})
    stats = {"upstream": {"address": "?:?"}, "policy": {"source": "shipped default"}}
    assert doctor_running.in_force(settings, where_said({}, {}), stats) == settings


@pytest.mark.parametrize(
    ("properties", "cause", "step"),
    [
        (
            "LoadState=loaded ActiveState=activating Result=exit-code ExecMainStatus=1 NRestarts=4",
            "modelsplit.service does not come up: activating (exit-code, status 1, 4 restarts)",
            "journalctl -u modelsplit.service -n 30",
        ),
        (
            "LoadState=loaded ActiveState=failed Result=watchdog ExecMainStatus=6 NRestarts=0",
            "modelsplit.service does not come up: failed (watchdog, status 6, 0 restarts)",
            "journalctl -u modelsplit.service -n 30",
        ),
        (
            "LoadState=loaded ActiveState=inactive UnitFileState=enabled",
            "modelsplit.service is enabled and not started",
            "sudo systemctl start modelsplit.service",
        ),
    ],
)
def test_a_unit_that_is_there_and_does_not_run_is_found(
    properties: str, cause: str, step: str, tmp_path: Path
) -> None:
    programs = {"systemctl": properties.replace(" ", "\n")}
    [found] = doctor_running.unit(look(tmp_path, programs=programs))
    assert found == Finding("unit", cause, step)


@pytest.mark.parametrize(
    "properties",
    [
        "LoadState=not-found\nActiveState=inactive\n",
        "LoadState=loaded\nActiveState=inactive\nUnitFileState=disabled\n",
        "LoadState=loaded\nActiveState=active\n",
        None,
    ],
)
def test_without_one_that_should_run_there_is_nothing_to_find(
    properties: str | None, tmp_path: Path
) -> None:
    programs = {} if properties is None else {"systemctl": properties}
    assert [*doctor_running.unit(look(tmp_path, programs=programs))] == []


async def test_its_verdict_is_told_cause_by_cause(tmp_path: Path) -> None:
    async with running() as up:
        assert await looked(doctor_running.verdict, up, tmp_path) == []
    stats = {"health": {"causes": [{"text": "the upstream is down", "next": "ollama serve"}]}}
    [found] = doctor_running.verdict(look(tmp_path, stats=stats))
    assert found == Finding("service", "the upstream is down", "ollama serve")


async def test_refused_hosts_and_origins_are_told_once_each(tmp_path: Path) -> None:
    hosts = ("gpu.example", "gpu.example:1", "gpu.example")
    async with running() as up:
        for headers in (*({"Host": host} for host in hosts), {"Origin": "https://chat.example"}):
            async with up.client() as client:
                answer = await client.request("POST", "/api/chat", CHAT, headers)
                assert answer.status == 403
        found = await looked(doctor_running.denied, up, tmp_path)
    ours = [item for item in found if isinstance(item, Finding)]
    steps = {item[2].partition("   # only if it is yours")[0] for item in ours}
    assert steps == {
        "modelsplit serve --take-over --allow-host gpu.example",
        "modelsplit serve --take-over --allow-host gpu.example:1",
        "modelsplit serve --take-over --allow-origin https://chat.example",
    }


@pytest.mark.parametrize(("slow", "told"), [(2, 0), (3, 1)])
def test_planners_that_wait_for_their_model_again_and_again_are_told(
    slow: int, told: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [{"llm_model": "qwen3:4b", "load_ms": 4000.0}] * slow
    calls += [{"llm_model": "qwen3:4b", "load_ms": 2.0}, {"load_ms": None}]
    monkeypatch.setattr(doctor_running, "get", lambda *_: answer(calls))
    found = causes([*doctor_running.loads(look(tmp_path, stats={}))])
    start = "3 of 4 PLANNER calls of the last day waited for qwen3:4b to be loaded"
    assert [text.partition(":")[0] for text in found] == [start.partition(":")[0]] * told


def test_nothing_is_asked_of_a_proxy_that_does_not_run(tmp_path: Path) -> None:
    here: Look = look(tmp_path)
    checks = (doctor_running.verdict, doctor_running.denied, doctor_running.loads)
    assert [item for check in checks for item in check(here)] == []


def test_a_shared_redis_that_nobody_asks_is_said_to_be_unseen(tmp_path: Path) -> None:
    flags = {"shared": "redis://:secret@10.0.0.5:6379/0"}
    [unseen] = doctor_running.shared(look(tmp_path, settings=flags))
    assert unseen.check == "shared"
    assert "secret" not in str(unseen)
    assert [*doctor_running.shared(look(tmp_path, settings=flags, stats={}))] == []
    assert [*doctor_running.shared(look(tmp_path))] == []
