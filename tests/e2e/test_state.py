"""The state file from outside: locked, damaged, killed, private; calls go on all the same."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_sim.config import SimConfig
from support.calls import call
from support.harness import running
from support.process import ollama, serving, spawned
from support.stores import execute, locked, until_failing
from support.unfinished import PATIENT, begin, piece, unfinished
from support.wire import Client

if TYPE_CHECKING:
    from support.process import Process


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
            up.app.store._urgent_s = 0.01  # how long /stats may wait for it
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
    async with (
        ollama(*QUICK) as (upstream, _),
        serving(upstream, tmp_path, patient=False) as proxy,
    ):
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


# -- one state, one process ------------------------------------------------------------------------


def unshare() -> tuple[str, ...]:
    """A wrapper that gives a process a view of its own of all processes; empty: not here."""
    command = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
    try:
        done = subprocess.run([*command, "true"], check=False, capture_output=True)
    except FileNotFoundError:
        return ()
    return () if done.returncode else command


UNSHARE = unshare()
FREE_PORTS = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")


async def second(state: Path, *options: str) -> tuple[int, str, str]:
    """The outcome of one that should not have been started."""
    arguments = ("modelsplit_proxy", "serve", *FREE_PORTS, "--state", str(state), *options)
    async with spawned(*arguments) as process:
        return await process.outcome()


async def test_a_second_one_is_told_who_serves_and_the_first_goes_on_counting(
    tmp_path: Path,
) -> None:
    async with ollama(*QUICK) as (upstream, _), serving(upstream, tmp_path) as proxy:
        code, out, talk = await second(tmp_path)
        assert (code, out) == (69, "")
        assert talk == (
            f"modelsplit: another modelsplit already serves from the state directory {tmp_path}: "
            f"process {proxy.child.pid}; stop it, have it drain first with --take-over, or give "
            f"this one a --state of its own, as in --state {tmp_path}-2\n"
        )
        # Whatever else is taken too: that it runs already is what there is to know.
        busy = ("--listen", f"127.0.0.1:{proxy.port}", "--admin", f"127.0.0.1:{proxy.admin_port}")
        told = (await second(tmp_path, *busy))[2]
        assert f"process {proxy.child.pid};" in told
        for flag in (f"--state {tmp_path}-2", "--listen 127.0.0.1:", "--admin 127.0.0.1:"):
            assert flag in told.partition(", as in ")[2]
        link = tmp_path / "link"
        link.symlink_to(tmp_path)
        assert (await second(link))[0] == 69
        async with proxy.client() as client, proxy.admin() as admin:
            body = call(ROUTE, "gpt-oss:20b") | {"prompt": "x"}  # a budget counts it
            assert (await client.request("POST", ROUTE, body)).status == 200
            assert (await admin.request("GET", "/healthz")).json["status"] == "ok"
        proxy.signal(signal.SIGTERM)
        assert await proxy.ended() == 0
    assert execute(tmp_path, "SELECT count(*) FROM budget_charges") == [(1,)]


async def test_commands_work_beside_the_one_that_serves(tmp_path: Path) -> None:
    async with ollama(*QUICK) as (upstream, _), serving(upstream, tmp_path) as proxy:
        async with proxy.client() as client, proxy.admin() as admin:
            await ask(client, "seen")
            assert (await admin.request("GET", "/requests/seen")).status == 200
        state = ("--state", str(tmp_path))
        who = ("--by", "kim", "--reason", "a test")
        for command in (
            ("requests", "seen", *state),
            ("budget", "show", *state),
            ("budget", "approve", "--usd", "1", "--days", "1", *who, *state),
            ("budget", "revoke", *who, *state),
        ):
            async with spawned("modelsplit_proxy", *command) as process:
                code, _, talk = await process.outcome()
                assert code == 0
                where = f"modelsplit: state file {tmp_path / FILE_NAME} (by --state)\n"
                # An approval also warns of what its cloud would still be refused for.
            told = "".join(
                line for line in talk.splitlines(keepends=True) if "warning: " not in line
            )
            assert told == ("" if command[0] == "requests" else where)
        async with proxy.admin() as admin:
            assert (await admin.request("GET", "/healthz")).json["status"] == "ok"


async def test_a_kill_frees_the_state(tmp_path: Path) -> None:
    async with ollama(*QUICK) as (upstream, _):
        async with serving(upstream, tmp_path) as proxy:
            proxy.signal(signal.SIGKILL)
            await proxy.ended()
        async with serving(upstream, tmp_path) as proxy, proxy.client() as client:
            await ask(client, "after")


@pytest.mark.parametrize("draining", [False, True], ids=["serves", "drains already"])
async def test_take_over_lets_answers_end_and_then_counts_on(
    tmp_path: Path, *, draining: bool
) -> None:
    """Also of one that drains already: to ask it would be its second SIGTERM, which cuts."""
    async with (
        unfinished() as (port, upstream),
        serving(port, tmp_path, *PATIENT) as old,
        old.client() as client,
    ):
        await begin(client)
        if draining:
            old.signal(signal.SIGTERM)
            await old.talk("draining")
            assert f"process {old.child.pid}, which is ending; wait " in (await second(tmp_path))[2]
        options = ("--take-over", "--state", str(tmp_path), *PATIENT)
        arguments = ("serve", *FREE_PORTS, "--upstream", f"127.0.0.1:{port}", *options)
        async with spawned("modelsplit_proxy", *arguments) as new:
            line = await new.talk("process")
            assert line == (
                f"modelsplit: process {old.child.pid} has the state and drains; waiting 610 s at "
                "most\n"
            )
            if not draining:
                await old.talk("draining")
            upstream.finish.set()
            assert client.reader is not None
            assert piece(done=True) in await client.reader.read()
            assert await old.ended() == 0
            await new.talk(" listens on ")
            assert f"process {new.child.pid};" in (await second(tmp_path))[2]
    assert execute(tmp_path, "SELECT outcome FROM calls") == [("ok",)]


async def test_who_connects_while_the_one_before_drains_waits_and_is_answered(
    tmp_path: Path,
) -> None:
    async with (
        unfinished() as (port, upstream),
        serving(port, tmp_path, *PATIENT) as old,
        old.client() as client,
    ):
        await begin(client)
        here = ("--listen", f"127.0.0.1:{old.port}", "--admin", "127.0.0.1:0", "--take-over")
        options = ("--upstream", f"127.0.0.1:{port}", "--state", str(tmp_path), *PATIENT)
        async with spawned("modelsplit_proxy", "serve", *here, *options) as new:
            await new.talk(f"127.0.0.1:{old.port} is held")
            async with Client(port=old.port) as late:
                asking = asyncio.create_task(late.request("GET", "/api/version"))
                upstream.finish.set()
                assert client.reader is not None
                assert piece(done=True) in await client.reader.read()
                assert await old.ended() == 0
                assert (await asking).status == 200
            await new.talk(" listens on ")


async def test_take_over_by_the_environment(tmp_path: Path) -> None:
    switch = {"MODELSPLIT_TAKE_OVER": "yes"}
    async with (
        ollama(*QUICK) as (upstream, _),
        serving(upstream, tmp_path) as old,
        serving(upstream, tmp_path, env=switch) as new,
        new.client() as client,
    ):
        assert await old.ended() == 0
        await ask(client, "new")


async def test_take_over_with_nobody_there_just_starts(tmp_path: Path) -> None:
    state = tmp_path / "new"
    async with ollama(*QUICK) as (upstream, _), serving(upstream, state, "--take-over") as proxy:
        async with proxy.client() as client:
            await ask(client, "first")
        assert stat.S_IMODE(state.stat().st_mode) == 0o700


async def test_one_in_another_container_is_neither_named_nor_asked(tmp_path: Path) -> None:
    if not UNSHARE:
        pytest.skip("no process may have a view of its own here")
    async with ollama(*QUICK) as (upstream, _), serving(upstream, tmp_path) as proxy:
        arguments = ("modelsplit_proxy", "serve", *FREE_PORTS, "--state", str(tmp_path))
        async with spawned(*arguments, "--take-over", wrapper=UNSHARE) as process:
            code, _, talk = await process.outcome()
        assert code == 69
        assert "which process cannot be seen from here" in talk
        async with proxy.client() as client:
            await ask(client, "still")
