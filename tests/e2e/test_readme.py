"""Every command of the README does what it says, or is another program's."""

from __future__ import annotations

import json
import re
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from modelsplit_sim.config import SimConfig
from support.harness import running
from support.process import spawned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.harness import Running

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
_COMMAND = re.compile(r"^(?:    |\$ )((?:.*\\\n)*.*)$", re.MULTILINE)
_INLINE = re.compile(r"`(modelsplit [^`]+|curl http[^`]+)`")
# Not ours to run: they install, or are another program's. `tests/run` is what runs this.
OTHERS = (
    *("python3 -m venv", ".venv/bin/pip install", "uv tool install", "pipx install", "sudo "),
    *("docker ", "ollama pull", "tests/run"),
)


# The way to a cloud, which takes a stand-in for one: `test_cloud_transcripts` types it.
CLOUD = re.compile(r"^And only once a model of the cloud.*?^Name a role", re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    text, count = CLOUD.subn("", README)
    assert count == 1
    text = re.sub(r"^```(?:json|mermaid)\n.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
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
    [policy] = re.findall(r"^```json\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
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
