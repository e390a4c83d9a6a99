"""A key that sings: wherever something is told, it must not be.

``test_cloud`` looks into answers, pages and files of a proxy in this process; here is a process of
its own, with all that its operators' commands print, and what a bug would write.
"""

from __future__ import annotations

import asyncio
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_proxy.providers.answer import AnswerStream
from modelsplit_sim.cloud import Cloud, Script
from modelsplit_sim.server import Sim
from support.clouds import approve, cloud_policy, with_a_cloud
from support.hanging import guarded
from support.process import serving, spawned

if TYPE_CHECKING:
    from support.process import Process

CANARY = "sk-ant-canary-7f3a9c1e5b"
NATIVE = "/api/chat"
SCRIPTS = (
    Script(),
    Script(status=401, message=f"invalid x-api-key {CANARY}"),
    Script(status=400, message=f"bad {CANARY}"),
    Script(status=413, message=f"large {CANARY}"),
    Script(status=429, message=f"slow down, {CANARY}", headers=(("retry-after", "1"),)),
    Script(status=500, message=f"worse {CANARY}", headers=(("x-api-key", CANARY),)),
    Script(text="a long answer indeed", fault="cut"),
    Script(text="a long answer indeed", fault="reset"),
)
PAGES = (
    "/",
    "/stats",
    "/stats?format=text",
    "/metrics",
    "/policy",
    "/requests",
    "/healthz",
    "/slo",
)
COMMANDS = (
    ("status", "--json"),
    ("status",),
    ("requests", "--json"),
    ("requests",),
    ("budget", "show"),
    ("budget", "egress", "--json"),
    ("budget", "egress"),
    ("route", "cloud"),
)


def ask(*, stream: bool) -> dict[str, Any]:
    return {"model": "cloud", "stream": stream, "messages": [{"role": "user", "content": "hi"}]}


def others_see(proxy: Process) -> list[bytes]:
    """What any user of the machine can read of the process."""
    there = Path("/proc") / str(proxy.child.pid)
    return [(there / name).read_bytes() for name in ("cmdline", "comm", "status")]


@pytest.mark.parametrize("by", ["file", "variable", "credential"])
async def test_nothing_that_is_told_has_the_key(tmp_path: Path, by: str) -> None:
    state, policy, bundle = tmp_path / "state", tmp_path / "policy.json", tmp_path / "d.tar.gz"
    async with Cloud(key=CANARY) as cloud, Sim() as ollama:
        row: dict[str, Any] = {}
        env: dict[str, str] = {}
        if by == "variable":
            env = {"ANTHROPIC_API_KEY": CANARY}
        else:
            file = tmp_path / ("key" if by == "file" else "modelsplit-cloud-anthropic")
            file.write_text(f"{CANARY}\n")
            file.chmod(0o600)
            row = {"key_file": str(file)} if by == "file" else {}
            env = {} if by == "file" else {"CREDENTIALS_DIRECTORY": str(tmp_path)}
        given = {"extends": "default", "budgets": [], **cloud_policy(cloud.url, provider=row)}
        given |= {"roles": {"CLOUD": {"timeout_ms": 86_400_000}}}
        policy.write_text(json.dumps(given))
        seen: list[bytes] = []
        options = ("--policy", str(policy))
        async with serving(ollama.port, state, *options, env=env) as proxy:
            approve(state)
            async with proxy.client() as client, proxy.admin() as admin:
                for script in SCRIPTS:
                    cloud.scripts.append(script)
                    answer = await client.request("POST", NATIVE, ask(stream=True))
                    seen += [answer.body, repr(answer.headers).encode()]
                for page in PAGES:
                    answer = await admin.request("GET", page)
                    seen += [answer.body, repr(answer.headers).encode()]
                newest = (await admin.request("GET", "/requests")).json[-1]["request_id"]
            there = ("--admin", f"127.0.0.1:{proxy.admin_port}")
            for command in (*COMMANDS, ("requests", newest)):
                seen += await printed(*command, *there, env=env)
            upstream = ("--upstream", f"127.0.0.1:{ollama.port}")
            seen += await printed("check-config", *options[1:], "--online", *upstream, env=env)
            doctor = ("doctor", *options, *upstream, *there, "--bundle", str(bundle))
            seen += await printed(*doctor, env=env)
            seen += others_see(proxy)
            proxy.child.terminate()
            _, out, talk = await proxy.outcome()
            seen += [out.encode(), talk.encode()]
        seen += await asyncio.to_thread(kept, bundle, state)
        assert {call.header("x-api-key") for call in cloud.calls} == {CANARY}
        assert len([call for call in cloud.calls if call.method == "POST"]) == len(SCRIPTS)
    assert not [piece for piece in seen if CANARY.encode() in piece]


async def printed(*command: str, env: dict[str, str]) -> list[bytes]:
    """What a command says on both ways."""
    async with spawned("modelsplit_proxy", *command, env=env) as process:
        _, out, talk = await guarded(process.outcome)()
    return [out.encode(), talk.encode()]


def kept(bundle: Path, state: Path) -> list[bytes]:
    """What is in the archive for a bug report, and in the files of the state."""
    found = [path.read_bytes() for path in state.rglob("*") if path.is_file()]
    with tarfile.open(bundle) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            found.append(file.read())
    return found


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bug_of_ours_writes_no_key_into_the_log(
    tmp_path: Path, stream: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the cause of the cause, and all that stands in the frames that are told."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(AnswerStream, "feed", broken)
    monkeypatch.setattr("modelsplit_proxy.providers.answer.whole", broken)
    async with with_a_cloud(tmp_path, key=CANARY) as (up, cloud), up.client() as client:
        cloud.key = CANARY
        answer = await client.request("POST", NATIVE, ask(stream=stream))
        assert answer.status >= 500
        assert CANARY not in answer.body.decode()
        assert CANARY not in repr(up.lines)
    assert "a bug" in caplog.text
    assert CANARY not in caplog.text
    assert not [
        record
        for record in caplog.records
        if record.exc_info is not None
        and CANARY in "".join(map(repr, chain_of(record.exc_info[1])))
    ]


def chain_of(error: BaseException | None) -> list[Any]:
    """An exception, its causes, and their arguments."""
    found: list[Any] = []
    while error is not None:
        found += [error, error.args, vars(error)]
        error = error.__cause__ or error.__context__
    return found
