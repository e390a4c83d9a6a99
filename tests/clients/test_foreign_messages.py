"""A cloud whose Messages API nobody here wrote: LiteLLM's, over the stand-in Ollama.

What the stand-in of the Messages API does was written by those who wrote what is tested with it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from clients import install
from clients.absence import absent
from clients.catalogue import Language
from modelsplit_sim.config import SimConfig
from modelsplit_sim.server import Sim
from support.clouds import MODEL, approve, cloud_policy
from support.harness import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.wire import Answer, Client

SCRIPT = Path(__file__).parent / "python" / "litellm_messages.py"
TURNS = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "What next?"},
]
TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}}
TOOLS = {"tools": [{"type": "function", "function": TOOL}]}
TOKENS = 6
PATIENT = {"roles": {"CLOUD": {"timeout_ms": 86_400_000}}}
ENVIRON = {"ANTHROPIC_API_KEY": "sk-of-nobody-0123456789"}
CHAT, COMPLETIONS, MESSAGES = "/api/chat", "/v1/chat/completions", "/v1/messages"


@pytest.fixture(scope="module")
def litellm() -> Iterator[int]:
    """LiteLLM's Messages API: its port. No test waits while it is imported, which takes long."""
    places = install.places([Language.PYTHON])
    if Language.PYTHON in places.missing:
        absent(places.missing[Language.PYTHON], "litellm")
    # It would fetch its price list from the network when it is imported.
    env = {"PATH": os.environ["PATH"], "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with subprocess.Popen(
        (places.found[Language.PYTHON], SCRIPT),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdout is not None
        try:
            yield int(child.stdout.readline())
        finally:
            child.kill()


def over(litellm: int, ollama: Sim, model: str) -> dict[str, Any]:
    """A policy whose cloud is LiteLLM over an Ollama's ``model``."""
    url = f"http://127.0.0.1:{litellm}/{ollama.port}"
    return cloud_policy(url, provider={"models": {MODEL: model}})


def rows(answer: Answer) -> list[dict[str, Any]]:
    """The objects of an answer, whole or streamed."""
    lines = [line.removeprefix(b"data: ") for line in answer.body.splitlines()]
    return [orjson.loads(line) for line in lines if line.startswith(b"{")]


def message(row: dict[str, Any]) -> dict[str, Any]:
    choice = (row.get("choices") or [{}])[0]
    found: dict[str, Any] = row.get("message") or choice.get("message") or choice.get("delta") or {}
    return found


async def texts(client: Client, route: str, **more: Any) -> tuple[str, str]:
    """What is said, whole and as a stream."""
    said = []
    for stream in (False, True):
        body = {"model": "cloud", "messages": TURNS, "stream": stream, **more}
        answer = await client.request("POST", route, body)
        assert answer.status == 200, answer.body
        said.append("".join(message(row).get("content") or "" for row in rows(answer)))
    return said[0], said[1]


async def test_its_answers_are_read_as_those_of_any_provider(tmp_path: Path, litellm: int) -> None:
    async with Sim(SimConfig(tokens=TOKENS)) as ollama:
        policy = over(litellm, ollama, "qwen3:4b")
        async with running(overlay=policy | PATIENT, state=tmp_path, environ=ENVIRON) as up:
            approve(tmp_path)
            async with up.client() as client:
                for route in (CHAT, COMPLETIONS):
                    whole, streamed = await texts(client, route)
                    assert whole == streamed != ""
                for route in (CHAT, COMPLETIONS):
                    body = {"model": "cloud", "messages": TURNS, "stream": False, **TOOLS}
                    answer = await client.request("POST", route, body)
                    [call] = message(rows(answer)[0])["tool_calls"]
                    assert call["function"]["name"] == "weather"
                body = {"model": "cloud", "messages": TURNS[1:], "max_tokens": TOKENS}
                own = await client.request("POST", MESSAGES, body)
                assert own.json["content"][0]["type"] == "text"
            records = await up.calls.wait(7)
            assert {record.status for record in records} == {200}
            assert all(record.usage.output_tokens for record in records)
            assert not any(record.usage.estimated for record in records)
            asked = [call for call in ollama.calls if call.method == "POST"]
            assert all(b"What next?" in call.body for call in asked)
            assert b"Be short." in asked[0].body


async def test_its_refusal_is_told_in_the_clients_dialect(tmp_path: Path, litellm: int) -> None:
    async with Sim() as ollama:
        policy = over(litellm, ollama, "no-such:1b")
        async with running(overlay=policy | PATIENT, state=tmp_path, environ=ENVIRON) as up:
            approve(tmp_path)
            async with up.client() as client:
                body = {"model": "cloud", "messages": TURNS, "stream": False}
                answer = await client.request("POST", CHAT, body)
            assert (answer["X-LLM-Provider"], answer.status >= 400) == ("CLOUD", True)
            assert answer.json["llm_model"] == MODEL
