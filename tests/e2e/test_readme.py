"""Every command of the README does what it says, or is another program's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from modelsplit_sim.cloud import KEY, Cloud, Script
from modelsplit_sim.config import SimConfig
from support.hanging import guarded
from support.harness import running
from support.ports import kept_port
from support.process import BARE, Process, spawned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.harness import Running

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
_COMMAND = re.compile(r"^(?:    |\$ )((?:.*\\\n)*.*)$", re.MULTILINE)
_INLINE = re.compile(r"`(modelsplit [^`]+|curl http[^`]+)`")
# Not ours to run: they install, or are another program's. `tests/run` is what runs this.
OTHERS = (
    *("python3 -m venv", ". .venv/", "pip install", "sudo ", "docker ", "ollama pull", "tests/run"),
)
# Lines of code one below the other; those inside a list of examples are not indented.
_BLOCK = re.compile(r"^```sh\n(.*?)^```$|((?:^    [^\n]+\n)+)", re.DOTALL | re.MULTILINE)
_HERE = re.compile(r" <<'END'\n(.*?)^END$", re.DOTALL | re.MULTILINE)
_PICTURE = re.compile(r"^```mermaid\n.*?^```$", re.DOTALL | re.MULTILINE)


# The way to a cloud, which takes a stand-in for one: it is pasted with the other blocks.
CLOUD = re.compile(r"^And only once a model of the cloud.*?^Name a role", re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    text, count = CLOUD.subn("", README)
    assert count == 1
    text = _HERE.sub("", _PICTURE.sub("", text))
    found = [command.partition("  #")[0].strip() for command in _COMMAND.findall(text)]
    # Each once, those inside a sentence too.
    return list(dict.fromkeys(filter(None, [*found, *_INLINE.findall(text)])))


OURS = [command for command in commands() if not command.startswith(OTHERS)]


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(SimConfig(tokens=2), state=tmp_path / "state") as up:
        yield up


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader has made the files that the README speaks of."""
    monkeypatch.chdir(tmp_path)
    [policy] = _HERE.findall(CLOUD.sub("", README))
    assert len(json.loads(policy)["roles"]) == 3
    (tmp_path / "model-policy.json").write_text(policy, encoding="utf-8")
    return tmp_path


def test_the_readme_has_commands_of_ours() -> None:
    words = {command.split()[1] for command in OURS if "modelsplit " in command}
    assert {"demo", "serve", "route", "status", "requests", "check-config", "keys"} <= words
    assert sum(command.startswith("curl ") for command in OURS) >= 1


@pytest.mark.parametrize("command", [line for line in OURS if line.startswith("curl ")])
async def test_curl_is_answered(up: Running, command: str) -> None:
    words = shlex.split(command)
    path = next(word for word in words if word.startswith("http://")).split("/", 3)[3]
    client = up.admin() if ":11436/" in command else up.client()
    async with client:
        body = json.loads(words[words.index("-d") + 1]) if "-d" in words else None
        answer = await client.request("POST" if body else "GET", f"/{path}", body)
    assert answer.status == 200


@pytest.mark.parametrize("command", [line for line in OURS if " serve" in line])
async def test_serve_serves(here: Path, command: str) -> None:
    if "--keys" in command:
        make = next(line for line in OURS if " keys new " in line)
        async with spawned("modelsplit_proxy", *shlex.split(make)[1:]) as process:
            assert (await process.outcome())[0] == 0
    ports = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state", str(here / "own"))
    async with spawned("modelsplit_proxy", *shlex.split(command)[1:], *ports) as process:
        await process.talk("point a client here")
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0


@pytest.mark.parametrize(
    "command",
    [line for line in OURS if not line.startswith("curl ") and " serve" not in line],
)
async def test_the_others_end_well(up: Running, here: Path, command: str) -> None:
    del here
    env = {
        "MODELSPLIT_ADMIN": f"127.0.0.1:{up.admin_port}",
        "MODELSPLIT_UPSTREAM": f"127.0.0.1:{up.sim.port}",
    }
    if command.endswith("demo --once"):
        env["MODELSPLIT_ADMIN"] = env["MODELSPLIT_LISTEN"] = "127.0.0.1:0"
        env["MODELSPLIT_ADMIN"] = "localhost:0"
    if command.endswith(" ID"):
        async with up.client() as client:
            body = {"model": "planner", "prompt": "x", "stream": False}
            known = {"X-Request-Id": "ID", "X-LLM-Job-Id": "ID"}
            await client.request("POST", "/api/generate", body, known)
            await up.calls.wait()
    async with spawned("modelsplit_proxy", *shlex.split(command)[1:], env=env) as process:
        code, _, talk = await process.outcome()
    # 3: a young process cannot judge yet; of `doctor`, 1 and 3 are about this machine.
    assert code in {"modelsplit slo": {0, 3}, "modelsplit doctor": {0, 1, 3}}.get(command, {0}), (
        talk
    )
    assert "Traceback" not in talk


# --- As it is pasted ----------------------------------------------------------------------------


def pasted() -> list[str]:
    """Every block of ours, whole, in the order of the README."""
    found = _BLOCK.findall(_PICTURE.sub("", README))
    blocks = [fenced or textwrap.dedent(indented) for fenced, indented in found]
    ours = [
        "".join(line for line in block.splitlines(keepends=True) if not line.startswith(OTHERS))
        for block in blocks
        if not block.startswith(("sudo ", "docker "))
    ]
    return [block for block in ours if block]


class Terminals:
    """Blocks are pasted into one terminal after the other; one that serves goes on doing so."""

    def __init__(self, folder: Path, env: dict[str, str], instead: dict[str, str]) -> None:
        self._folder = folder
        self._env = {**BARE, "PATH": f"{Path(sys.executable).parent}:{BARE['PATH']}", **env}
        self._instead = instead
        self._serving = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._serving.aclose()

    async def paste(self, block: str) -> str:
        """What it prints; of one that serves nothing, and it is waited for until it does."""
        for word, other in self._instead.items():
            block = block.replace(word, other)
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-ec", block),
            cwd=self._folder,
            env=self._env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        if " serve" not in block.splitlines()[-1]:
            out, talk = await guarded(shell.communicate)()
            # Of `doctor`, 1 and 3 are about this machine.
            assert shell.returncode == 0 or block.endswith("doctor\n"), (block, talk)
            return out.decode()
        self._serving.push_async_callback(_ended, shell)
        await Process(shell).talk("point a client here")
        return ""


async def _ended(shell: asyncio.subprocess.Process) -> None:
    """It and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGKILL)
    await shell.communicate()


@pytest.mark.tools("curl")
async def test_every_block_can_be_pasted_whole_one_after_the_other(tmp_path: Path) -> None:
    async with Cloud() as cloud, running(SimConfig(tokens=2)) as up:
        cloud.scripts.append(Script(text="Hello!"))
        with kept_port() as port, kept_port() as admin:
            env = {
                "MODELSPLIT_LISTEN": f"127.0.0.1:{port}",
                "MODELSPLIT_ADMIN": f"127.0.0.1:{admin}",
                "MODELSPLIT_UPSTREAM": up.sim.url,
                "HOME": str(tmp_path),
            }
            # The provider is a stand-in, and however slow the machine is, nothing runs out of time.
            instead = {
                "0.0.0.0:11435": f"127.0.0.1:{port}",
                "127.0.0.1:11435": f"127.0.0.1:{port}",
                "sk-ant-YOUR-KEY": KEY,
                '"anthropic": {': f'"anthropic": {{"base_url": "{cloud.url}", ',
                '{"extends": "default",': (
                    '{"extends": "default", "roles": {"CLOUD": {"timeout_ms": 86400000}},'
                ),
            }
            async with Terminals(tmp_path, env, instead) as terminals:
                said = {block: await terminals.paste(block) for block in pasted()}
        [answer] = [out for block, out in said.items() if '"model":"cloud"' in block]
        assert '"content":"Hello!"' in answer
        [call] = [call for call in cloud.calls if call.method == "POST"]
        assert call.header("x-api-key") == KEY


def test_no_two_blocks_write_the_same_file() -> None:
    written = re.findall(r"> (\S+\.json)$|> (\S+\.json) <<", README, re.MULTILINE)
    names = [one or other for one, other in written]
    assert len(names) == len(set(names)) == 2
