"""The official SDKs before a cloud of either API: each route, with a stream and a tool."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from clients import install
from clients.absence import absent
from clients.catalogue import Language
from modelsplit_sim.cloud import KEY, Cloud, Script
from modelsplit_sim.config import SimConfig
from modelsplit_sim.models import ModelSpec
from modelsplit_sim.server import Sim
from support.clouds import ITS_NAME, MODEL, approve
from support.harness import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FOLDER: Final = Path(__file__).parent
_TEXT: Final = Script()
_CALL: Final = Script(tool="weather", arguments={"city": "Oslo"})
_FORM: Final = Script(tool="answer", arguments={"city": "Oslo"})
# What each call of the script is answered with, in order.
SCRIPTS: Final = (
    *(_TEXT, _TEXT, _CALL, _TEXT, _CALL, _TEXT, _FORM),
    *(_TEXT, _TEXT, _CALL),
    *(_TEXT, _CALL, _TEXT, _TEXT, _CALL),
)


@contextlib.asynccontextmanager
async def messages_api() -> AsyncIterator[dict[str, Any]]:
    async with Cloud() as cloud:
        cloud.scripts.extend(SCRIPTS)
        yield {"base_url": cloud.url, "models": {MODEL: ITS_NAME}}
        assert len(cloud.calls) == len(SCRIPTS)


@contextlib.asynccontextmanager
async def chat_completions() -> AsyncIterator[dict[str, Any]]:
    """Which a second Ollama speaks; it calls whatever tool it is offered."""
    model = ModelSpec("qwen3:4b", answer="You said: hi", capabilities=("completion", "tools"))
    async with Sim(SimConfig((model,))) as other:
        yield {"dialect": "openai", "base_url": other.url, "models": {MODEL: model.name}}
        asked = [call for call in other.calls if call.method == "POST"]
        assert {call.path for call in asked} == {"/v1/chat/completions"}
        assert len(asked) == len(SCRIPTS)


@pytest.mark.parametrize("provider", [messages_api, chat_completions])
async def test_every_sdk_gets_a_text_a_stream_and_a_tools_call(
    tmp_path: Path, provider: Any
) -> None:
    places = install.places([Language.PYTHON])
    if Language.PYTHON in places.missing:
        absent(places.missing[Language.PYTHON], "the official SDKs")
    async with provider() as row:
        seen = await seen_by_sdks(places.found[Language.PYTHON], row, tmp_path)
    text = "You said: hi"
    assert seen == {
        "responses": [text, "completed", True],
        "responses_stream": [text, "response.created", "response.completed", True],
        "responses_tool": ["weather", ["city"], True],
        "responses_tool_stream": ["weather", ["city"], True],
        "responses_form": "Place",
        "completions": [text, "text_completion", True],
        "completions_stream": text,
        "chat_tool_stream": ["weather", ["city"], "tool_calls"],
        "messages_stream": [text, "assistant", True],
        "messages_tool": ["weather", ["city"], "tool_use", True],
        "native_stream": text,
        "native_tool": ["weather", ["city"]],
    }


async def seen_by_sdks(program: Path, row: dict[str, Any], room: Path) -> dict[str, Any]:
    overlay = {"cloud": {"providers": {"anthropic": row}}, "budgets": []}
    async with running(overlay=overlay, state=room, environ={"ANTHROPIC_API_KEY": KEY}) as up:
        approve(room)
        child = await asyncio.create_subprocess_exec(
            *(program, FOLDER / "python" / "cloud_dialects.py"),
            cwd=room,
            env={"PATH": os.environ["PATH"], "HOME": str(room), "MODELSPLIT_URL": up.url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    found: dict[str, Any] = json.loads(out)
    return found
