"""The terminals of docs/cloud.md, typed as they stand there."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clients import readme
from modelsplit_sim.cloud import KEY, Cloud, Script
from modelsplit_sim.server import Sim
from support.clouds import ITS_NAME, approve, with_a_cloud
from support.ports import kept_port
from support.typed import blocks, in_form, steps, terminal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.typed import Terminal

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cloud.md").read_text(encoding="utf-8")
# However slow the machine is, nothing runs out of time.
PATIENT = '{"CLOUD": {"timeout_ms": 86400000}}'


@contextlib.asynccontextmanager
async def before_a_cloud(folder: Path) -> AsyncIterator[tuple[Terminal, Cloud]]:
    """The provider of the pages is the stand-in, their addresses are free ones, their key good."""
    async with Cloud() as cloud, Sim() as ollama:
        with kept_port() as port, kept_port() as admin:
            env = {
                "MODELSPLIT_LISTEN": f"127.0.0.1:{port}",
                "MODELSPLIT_ADMIN": f"127.0.0.1:{admin}",
                "MODELSPLIT_UPSTREAM": ollama.url,
                "MODELSPLIT_STATE": str(folder / "state"),
                "HOME": str(folder),
            }
            instead = {
                "sk-ant-…": KEY,
                readme.ADDRESS: f"http://127.0.0.1:{port}",
                '"anthropic": {': f'"anthropic": {{"base_url": "{cloud.url}", ',
                '{"extends": "default",': f'{{"extends": "default", "roles": {PATIENT},',
            }
            async with terminal(folder, env, instead) as typed:
                yield typed, cloud


def shown(text: str) -> str:
    """Without the digest of a policy that names a stand-in."""
    return re.sub(r"ok \(\w{12}\)", "ok", in_form(text))


@pytest.mark.tools("curl")
async def test_from_nothing_to_an_approved_call(tmp_path: Path) -> None:
    [block] = blocks(PAGE, "From nothing to an approved call")
    async with before_a_cloud(tmp_path) as (typed, cloud):
        cloud.scripts.append(Script(text="Hello! How can I help?"))
        for command, prints in steps(block):
            assert shown(await typed.type(command)).startswith(shown(prints)), command
        [call] = [call for call in cloud.calls if call.method == "POST"]
        assert (call.json["model"], call.header("x-api-key")) == (ITS_NAME, KEY)


@pytest.mark.tools("curl")
async def test_the_tenth_call_of_a_day_and_what_has_left(tmp_path: Path) -> None:
    [opening] = blocks(PAGE, "From nothing to an approved call")
    [block] = blocks(PAGE, "What has left")
    async with before_a_cloud(tmp_path) as (typed, cloud):
        for command, _ in steps(opening)[:-1]:
            await typed.type(command)
        for command, prints in steps(block):
            assert shown(await typed.type(command)) == shown(prints), command
        assert len([call for call in cloud.calls if call.method == "POST"]) == 9


# `ollama run cloud`: what that command sends, taken from one of version 0.33, and what it makes of
# the answers. It says who it is, and takes what comes.
HEAD = {
    "User-Agent": "ollama/0.33.0 (amd64 linux) Go/go1.26.8",
    "Accept": "application/x-ndjson",
    "Content-Type": "application/json",
    "Accept-Encoding": "gzip",
}
SHOW = (
    b'{"model":"cloud","system":"","template":"","verbose":false,"options":null,"name":""}',
    b'{"model":"","system":"","template":"","verbose":false,"options":null,"name":"cloud"}',
)
ONCE = b'{"model":"cloud","prompt":"%b","suffix":"","system":"","template":"","options":{}}'
TALKS = b'{"model":"cloud","messages":[{"role":"user","content":"%b"}],"options":{}}'


async def test_what_ollama_run_cloud_asks_and_prints(tmp_path: Path) -> None:
    [block] = [block for block in blocks(PAGE, "Clients") if "ollama run cloud" in block]
    [(command, refused), (again, answered)] = steps(block)
    assert command == again
    question = command.partition('"')[2].rstrip('"').encode()
    async with with_a_cloud(tmp_path, approved=None) as (up, cloud), up.client() as client:
        assert (await client.request("HEAD", "/", None, HEAD)).status == 200
        for body in SHOW:
            about = await client.request("POST", "/api/show", body, HEAD)
            # "Connecting to '…' on '…'": it then asks for no loading.
            assert about.json["remote_model"] == ITS_NAME
            assert about.json["remote_host"] == cloud.url
        no = await client.request("POST", "/api/generate", ONCE % question, HEAD)
        said = f"Error: {no.status} {no.phrase}: {no.json['error']}"
        at = f" --admin 127.0.0.1:{up.admin_port}"
        assert said.replace(at, "") == refused.strip()
        approve(tmp_path)
        for route, body in (("/api/generate", ONCE), ("/api/chat", TALKS)):
            cloud.scripts.append(Script(text="It is 7 degrees in Bern."))
            answer = await client.request("POST", route, body % question, HEAD)
            pieces = [
                row.get("response") or row.get("message", {}).get("content", "")
                for row in answer.lines
            ]
            assert "".join(pieces) == answered.strip()
            assert answer.lines[-1]["done"] is True
        assert {call.json["model"] for call in cloud.calls} == {ITS_NAME}
