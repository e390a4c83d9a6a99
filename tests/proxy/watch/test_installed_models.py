"""What Ollama has installed, against what the policy names."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from modelsplit_policy.capabilities import Capability, ModelFacts, Unable
from modelsplit_proxy import app
from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.watch import installed_models
from modelsplit_sim.config import SimConfig
from modelsplit_sim.server import Sim
from support.calls import call
from support.harness import in_front_of, policy, running
from support.ports import kept_port
from support.scripted import response
from support.wire import Client

if TYPE_CHECKING:
    from pathlib import Path

    from modelsplit_proxy.watch.installed_models import InstalledModels
    from support.harness import Running

pytestmark = pytest.mark.flowing_time


def test_a_hidden_model_and_missing_ones_are_told() -> None:
    found = frozenset({"planner", "qwen3:4b", "qwen3:8b", "gemma3:12b"})
    assert list(installed_models.warnings(policy().policy, found)) == [
        'alias "planner" of PLANNER hides the installed model of that name',
        "HEAVY: gpt-oss:20b is not installed; try `ollama pull gpt-oss:20b`",
    ]


@pytest.mark.parametrize("answer", [b"", b"[]", b"7", b"{}", b'{"capabilities":null}'])
def test_an_answer_about_a_model_that_names_nothing_is_no_knowledge(answer: bytes) -> None:
    assert installed_models.shown(answer) is None


async def test_the_start_up_log_names_what_a_fallback_lacks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="modelsplit")
    async with running() as up:
        await up.until(lambda: "lacks" in caplog.text)
    assert (
        "EXECUTOR: gemma3:12b lacks thinking, tools, which qwen3:8b has; "
        "calls that need it have no second model" in caplog.text
    )


async def test_of_models_that_nobody_chose_it_is_told_when_a_call_needs_them(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first start with the shipped policy concerns nobody yet."""
    caplog.set_level(logging.WARNING, logger="modelsplit")
    monkeypatch.setattr(app, "SHIPPED", "test")
    async with running() as up:
        await up.until(lambda: bool(up.app.installed.facts))
        assert "lacks" not in caplog.text
        for _ in range(2):
            assert up.app.installed.unable("gemma3:12b", [Capability.TOOLS]) is not None
            assert up.app.installed.unable("qwen3:8b", [Capability.TOOLS]) is None
    text = "a call had no second model: gemma3:12b has no tools, which it needed"
    assert caplog.text.count(text) == 1


def test_an_arm_that_lacks_what_its_role_has_is_told() -> None:
    arms = [
        {"name": "a", "model": "qwen3:8b", "weight": 1},
        {"name": "b", "model": "tiny:1b", "weight": 1},
    ]
    row = {"name": "t", "role": "EXECUTOR", "enabled": True, "sticky": "job", "arms": arms}
    rules = policy({"experiments": [row]}).policy
    talks = ModelFacts(True, frozenset({"completion", "tools"}))
    facts = {"qwen3:8b": talks, "tiny:1b": ModelFacts(True, frozenset({"completion"}))}
    [told] = installed_models.gaps(rules, facts)
    assert told == (
        "EXECUTOR: tiny:1b lacks tools, which qwen3:8b has; "
        "calls that need it are refused in that arm"
    )


class Ollama:
    """Answers as one whose list says nothing of capabilities. ``asked``: for which, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.digest = "1"
        self.can = ["completion"]
        self.broken = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not self.broken:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                _, _, length = head.partition(b"content-length: ")
                body = await reader.readexactly(int(length.split()[0]) if length else 0)
                writer.write(response(orjson.dumps(self._answer(head, body))))
        writer.close()

    def _answer(self, head: bytes, body: bytes) -> dict[str, Any]:
        if head.startswith(b"get /api/tags "):
            return {"models": [{"name": "gemma3:12b", "digest": self.digest}]}
        if not head.startswith(b"post /api/show "):
            return {}
        self.asked.append(orjson.loads(body)["model"])
        return {"capabilities": self.can}


async def test_an_older_ollama_is_asked_once_for_each_model_of_the_policy() -> None:
    ollama = Ollama()
    async with await asyncio.start_server(ollama.serve, "127.0.0.1", 0) as upstream:
        target = Address("127.0.0.1", upstream.sockets[0].getsockname()[1])
        async with running(upstream=target) as up:
            known = up.app.installed
            await known.ask()
            assert known.facts["gemma3:12b"] == ModelFacts(True, frozenset({"completion"}))
            assert known.facts["qwen3:8b"] == ModelFacts(installed=False)
            assert known.unable("GEMMA3:12b", [Capability.TOOLS]) == Unable(
                "GEMMA3:12b", ("tools",)
            )
            assert known.unable("nobody:1b", [Capability.TOOLS]) is None
            assert set(ollama.asked) == {"gemma3:12b"}
            before = len(ollama.asked)
            known.want()
            await known.ask()
            assert len(ollama.asked) == before
            # Pulled again, it is another model.
            ollama.digest, ollama.can = "2", ["completion", "tools"]
            known.want()
            await known.ask()
            assert known.unable("gemma3:12b", [Capability.TOOLS]) is None
            # Without an answer what was known stays.
            ollama.broken = True
            known.want()
            await known.ask()
            assert known.facts["qwen3:8b"] == ModelFacts(installed=False)


async def test_a_model_that_comes_or_goes_through_us_is_known_soon() -> None:
    async with running(SimConfig(models=("qwen3:4b", "qwen3:8b"))) as up, up.client() as client:
        known = up.app.installed
        await up.until(lambda: bool(known.facts))
        assert not known.facts["gemma3:12b"].installed
        body = {"source": "qwen3:8b", "destination": "gemma3:12b"}
        assert (await client.request("POST", "/api/copy", body)).status == 200
        await up.until(lambda: known.facts["gemma3:12b"].installed)
        assert (
            await client.request("DELETE", "/api/delete", {"model": "gemma3:12b"})
        ).status == 200
        await up.until(lambda: not known.facts["gemma3:12b"].installed)


def not_of_its_own_accord(up: Running) -> None:
    """From now on only what somebody notices makes it ask before five minutes are over."""
    up.app.installed._wanted = False
    assert up.app.installed._due() - up.app.installed._answered == 300.0


async def delete(up: Running, model: str) -> None:
    """At Ollama itself, so that nobody here sees it."""
    async with Client(up.sim.port) as direct:
        assert (await direct.request("DELETE", "/api/delete", {"model": model})).status == 200


async def knows_all(up: Running) -> InstalledModels:
    known = up.app.installed
    await up.until(lambda: bool(known.facts) and not known.missing)
    not_of_its_own_accord(up)
    return known


async def test_a_call_that_finds_no_model_has_it_looked_for() -> None:
    async with running() as up, up.client() as client:
        known = await knows_all(up)
        await delete(up, "qwen3:4b")
        answer = await client.request("POST", "/api/chat", call("/api/chat", "planner"))
        assert answer["X-LLM-Model"] == "qwen3:8b", "the fallback"
        await up.until(lambda: known.missing == {"qwen3:4b"})


async def test_a_list_that_somebody_asks_for_tells_us_too() -> None:
    async with running() as up, up.client() as client:
        known = await knows_all(up)
        await client.request("GET", "/api/tags")
        assert not known._wanted, "it says what is known"
        await delete(up, "gpt-oss:20b")
        await client.request("GET", "/api/tags")
        await up.until(lambda: known.missing == {"gpt-oss:20b"})


async def test_a_question_about_an_alias_that_finds_nothing_tells_us_too() -> None:
    async with running() as up, up.client() as client:
        known = await knows_all(up)
        await delete(up, "qwen3:4b")
        assert (await client.request("POST", "/api/show", {"model": "planner"})).status == 200
        await up.until(lambda: known.missing == {"qwen3:4b"})


async def test_one_that_was_restarted_is_asked_what_it_has(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody calls, and it is back before it is missed: its connections have gone."""
    caplog.set_level(logging.INFO, logger="modelsplit")
    async with running() as up:
        known = await knows_all(up)
        await up.sim.stop()
        up.sim.config = replace(up.sim.config, models=("qwen3:8b", "gemma3:12b", "gpt-oss:20b"))
        await up.sim.start()
        await up.until(lambda: known.missing == {"qwen3:4b"})
        told = f"PLANNER: qwen3:4b is not installed; try `{up.pull('qwen3:4b')}`"
        assert told in caplog.text
        async with Client(up.sim.port) as direct:
            body = {"source": "qwen3:8b", "destination": "qwen3:4b"}
            assert (await direct.request("POST", "/api/copy", body)).status == 200
        await up.until(lambda: not known.missing)
        assert "what the policy names is installed now" in caplog.text


async def test_what_has_answered_is_known_to_be_there_at_once() -> None:
    async with running(SimConfig(models=("qwen3:8b",))) as up, up.client() as client:
        known = up.app.installed
        await up.until(lambda: bool(known.facts))
        async with Client(up.sim.port) as direct:
            body = {"source": "qwen3:8b", "destination": "qwen3:4b"}
            await direct.request("POST", "/api/copy", body)
        known._wanted = False
        assert "qwen3:4b" in known.missing
        answer = await client.request("POST", "/api/chat", call("/api/chat", "planner"))
        assert answer["X-LLM-Model"] == "qwen3:4b"
        await up.calls.wait()
        assert "qwen3:4b" not in known.missing
        assert "PLANNER" not in up.app.service.verdict().cause


async def test_one_that_comes_late_is_asked_what_it_has_at_once() -> None:
    with kept_port() as port:
        async with in_front_of(port) as up:
            known = up.app.installed
            await up.until(lambda: not known.is_answered)
            sim = Sim(SimConfig(models=("qwen3:8b",)))
            await sim.start(port)
            await up.until(lambda: "qwen3:4b" in known.missing)
            await sim.stop()


async def test_what_is_not_answered_is_asked_again_soon() -> None:
    async with running() as up:
        known = await knows_all(up)
        await up.sim.stop()
        known.want()
        await known.ask()
        known._wanted = False
        assert known._due() - known._answered == 10.0
        assert known.facts, "what was known stays"


async def test_what_is_missing_is_looked_for_more_often() -> None:
    """Whoever is told `ollama pull` may pull at Ollama itself."""
    async with running(SimConfig(models=("qwen3:4b", "qwen3:8b"))) as up:
        known = up.app.installed
        await up.until(lambda: bool(known.facts))
        known._wanted = False
        assert known._due() - known._answered == 10.0
        known._learn(dict.fromkeys(known.facts, ModelFacts(installed=True)))
        assert known._due() - known._answered == 300.0


async def test_the_start_up_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="modelsplit")
    models = SimConfig(models=("planner", "qwen3:4b", "qwen3:8b", "gemma3:12b", "gpt-oss:20b"))
    async with running(models) as up:
        await up.until(lambda: "hides the installed model" in caplog.text)


async def test_what_is_stored_here_and_runs_elsewhere_is_known(tmp_path: Path) -> None:
    rows = [
        {"name": "My-Coder:latest", "digest": "a", "remote_host": "https://ollama.com:443"},
        {"name": "other", "digest": "b", "remote_model": "x"},
        {"name": "gpt-oss:120b-cloud", "digest": "c", "remote_host": "https://ollama.com:443"},
        {"name": "qwen3:4b", "digest": "d"},
    ]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(orjson.dumps({"models": rows})))
        writer.close()

    async with (
        await asyncio.start_server(answer, "127.0.0.1", 0) as server,
        in_front_of(server.sockets[0].getsockname()[1], state=tmp_path, curious=False) as up,
    ):
        await up.app.installed.ask()
        # One that is called by a name of the cloud is the cloud's already.
        assert up.app.installed.elsewhere == {"my-coder", "other"}
