"""The state file from outside: locked, damaged, killed, private; calls go on all the same."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_sim.config import SimConfig
from support.calls import call
from support.harness import running
from support.process import ollama, serving
from support.stores import execute, locked, until_failing

if TYPE_CHECKING:
    from support.process import Process
    from support.wire import Client

ROUTE = "/api/generate"
QUICK = ("--tokens", "2", "--token-rate", "1000")
SECRET = "sk-do-not-write-this-down"


async def ask(client: Client, request_id: str, prompt: str = "x") -> None:
    body = call(ROUTE, "planner") | {"prompt": prompt}
    sent = {"X-Request-Id": request_id, "Authorization": f"Bearer {SECRET}", "Cookie": SECRET}
    answer = await client.request("POST", ROUTE, body, sent)
    assert answer.status == 200


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def stats(proxy: Process) -> dict[str, Any]:
    async with proxy.admin() as admin:
        found: dict[str, Any] = (await admin.request("GET", "/stats")).json["ledger"]
    return found


async def test_calls_go_on_while_the_file_is_locked_and_their_records_land_later() -> None:
    async with running(SimConfig(tokens=2)) as up, up.client() as client, up.admin() as admin:
        state = up.app.store.path.parent
        with locked(state):
            for number in range(5):
                await ask(client, f"locked-{number}")
            until_failing(up.app.store)
            said = (await admin.request("GET", "/stats")).json["ledger"]
            assert said["error"] == "database is locked"
            assert said["waiting"] >= 1
            assert (await admin.request("GET", "/healthz")).json["ledger"] == said
            metrics = (await admin.request("GET", "/metrics")).body.decode()
            assert "modelsplit_state_error 1.0\n" in metrics
        for number in range(5):
            found = await admin.request("GET", f"/requests/locked-{number}")
            assert (found.status, found.json["outcome"]) == (200, "ok")
        said = (await admin.request("GET", "/stats")).json["ledger"]
        assert (said["error"], said["dropped"]) == (None, 0)
        assert execute(state, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
async def test_calls_go_on_while_the_disk_is_full_and_their_records_land_later(
    tmp_path: Path,
) -> None:
    """No file of the process may grow, as on a full disk."""
    async with ollama(*QUICK) as (upstream, _), serving(upstream, tmp_path) as proxy:
        limits = resource.prlimit(proxy.child.pid, resource.RLIMIT_FSIZE)
        async with proxy.client() as client, proxy.admin() as admin:
            await ask(client, "before")
            assert (await admin.request("GET", "/requests/before")).status == 200
            resource.prlimit(proxy.child.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
            for number in range(5):
                await ask(client, f"full-{number}")
            while (said := await stats(proxy))["error"] is None:
                await ask(client, "more")  # until the writer has come upon it
            assert said["dropped"] == 0
            resource.prlimit(proxy.child.pid, resource.RLIMIT_FSIZE, limits)
            while (await stats(proxy))["error"] is not None:
                await admin.request("GET", "/requests/full-4")  # waits for what is not written yet
            for number in range(5):
                assert (await admin.request("GET", f"/requests/full-{number}")).status == 200
    assert execute(tmp_path, "PRAGMA integrity_check") == [("ok",)]


async def test_a_damaged_file_is_kept_and_told(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"garbage" * 1000)
    async with ollama(*QUICK) as (upstream, _), serving(upstream, tmp_path) as proxy:
        [kept] = [path for path in files(tmp_path) if "corrupt" in path.name]
        assert kept.read_bytes() == b"garbage" * 1000
        assert (await stats(proxy))["set_aside"] == kept.name
        async with proxy.admin() as admin:
            health = (await admin.request("GET", "/healthz")).json
            assert health["ledger"]["set_aside"] == kept.name
            metrics = (await admin.request("GET", "/metrics")).body.decode()
            assert "modelsplit_state_replaced 1.0\n" in metrics
        async with proxy.client() as client:
            await ask(client, "after")


async def test_what_had_been_found_on_disk_is_there_after_a_kill(tmp_path: Path) -> None:
    async with ollama(*QUICK) as (upstream, _):
        async with serving(upstream, tmp_path) as proxy:
            async with proxy.client() as client, proxy.admin() as admin:
                for number in range(20):
                    await ask(client, f"call-{number}")
                # An answer from the file means that it is in the file.
                assert (await admin.request("GET", "/requests/call-19")).status == 200
                for number in range(20, 40):
                    await ask(client, f"call-{number}")
            proxy.signal(signal.SIGKILL)
            await proxy.ended()
        async with serving(upstream, tmp_path) as proxy, proxy.admin() as admin:
            told = await stats(proxy)
            assert (told["set_aside"], told["checked"]) == (None, True)
            found = (await admin.request("GET", "/requests?limit=1000")).json
            assert {f"call-{number}" for number in range(20)} <= {c["request_id"] for c in found}
            assert len({c["request_id"] for c in found}) == len(found)
            proxy.signal(signal.SIGTERM)
            assert await proxy.ended() == 0
    assert execute(tmp_path, "PRAGMA integrity_check") == [("ok",)]


async def test_the_file_is_private_and_holds_no_prompt_answer_or_key(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        async with ollama(*QUICK) as (upstream, _), serving(upstream, tmp_path) as proxy:
            async with proxy.client() as client, proxy.admin() as admin:
                await ask(client, "private", prompt="the butler did it")
                assert (await admin.request("GET", "/requests/private")).status == 200
            paths = files(tmp_path)
            assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
            kept = b"".join(path.read_bytes() for path in paths)
            line = json.loads(await proxy.said())
            assert line["request_id"].encode() in kept
            for secret in ("butler", SECRET):
                assert secret.encode() not in kept
    finally:
        os.umask(mask)


async def test_old_records_go_while_it_serves(tmp_path: Path) -> None:
    async with ollama(*QUICK) as (upstream, _):
        async with serving(upstream, tmp_path) as proxy, proxy.client() as client:
            await ask(client, "old")
            proxy.signal(signal.SIGTERM)
            await proxy.ended()
        options = ("--keep-records", "0")
        async with serving(upstream, tmp_path, *options) as proxy, proxy.admin() as admin:
            found: list[Any] = [1]
            while found:  # the first round comes with the start; nobody says when it is through
                found = (await admin.request("GET", "/requests")).json
