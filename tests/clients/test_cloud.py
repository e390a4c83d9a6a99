"""The official packages before a cloud, as docs/cloud.md shows them: a tool, then a stream.

Each snippet of that page runs as it stands there, in a process of its own, before a real
``modelsplit serve`` and the stand-in of the Messages API.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from clients import install, readme
from clients.absence import absent
from clients.catalogue import Language
from modelsplit_sim.cloud import KEY, Cloud, Script
from modelsplit_sim.server import Sim
from support.clouds import ITS_NAME, approve, cloud_policy
from support.hanging import guarded
from support.process import serving

if TYPE_CHECKING:
    from pathlib import Path

    from clients.readme import Snippet

SNIPPETS = readme.snippets("cloud.md", "Clients")
LANGUAGES = {"python": Language.PYTHON, "javascript": Language.NODE}
PACKAGES = ("openai (Python)", "anthropic (Python)", "ollama (Python)")
MODULES = ("openai (npm)", "@anthropic-ai/sdk", "ollama (npm)")
CALL = Script(tool="weather", arguments={"city": "Bern"})
TEXT = "It is 7 degrees in Bern."


def marked(title: str) -> Any:
    needs = LANGUAGES[SNIPPETS[title].language].programs
    return pytest.param(title, marks=[pytest.mark.tools(*needs)] if needs else [])


def test_each_of_them_is_shown() -> None:
    assert set(SNIPPETS) == {*PACKAGES, *MODULES}


@pytest.mark.parametrize("title", [marked(title) for title in (*PACKAGES, *MODULES)])
async def test_it_gets_a_tool_and_a_stream(title: str, tmp_path: Path) -> None:
    snippet = SNIPPETS[title]
    language = LANGUAGES[snippet.language]
    places = install.places([language])
    if language in places.missing:
        absent(places.missing[language], title)
    state, policy = tmp_path / "state", tmp_path / "policy.json"
    async with Cloud() as cloud, Sim() as ollama:
        cloud.scripts += [CALL, Script(text=TEXT)]
        patient = {"roles": {"CLOUD": {"timeout_ms": 86_400_000}}}
        given = {"extends": "default", **cloud_policy(cloud.url), **patient}
        policy.write_text(json.dumps(given))
        options, env = ("--policy", str(policy)), {"ANTHROPIC_API_KEY": KEY}
        async with serving(ollama.port, state, *options, env=env) as proxy:
            approve(state)
            url = f"http://127.0.0.1:{proxy.port}"
            printed = await run(snippet, places.found[language], url, tmp_path)
        called, streamed = cloud.calls
    assert printed == snippet.printed
    assert printed[1] == TEXT
    assert [called.json["model"], streamed.json["model"]] == [ITS_NAME, ITS_NAME]
    assert [tool["name"] for tool in called.json["tools"]] == ["weather"]
    assert not called.json.get("stream")
    assert streamed.json["stream"] is True
    result = streamed.json["messages"][-1]["content"][0]
    assert (result["type"], "7 degrees" in json.dumps(result)) == ("tool_result", True)
    asked = {call.path for call in ollama.calls}
    assert not asked & {"/api/chat", "/v1/chat/completions", "/v1/messages"}


async def run(snippet: Snippet, place: Path, url: str, folder: Path) -> list[str]:
    """The lines that it prints. A script of Node's must stand beside its packages."""
    code = snippet.code.replace(readme.ADDRESS, url)
    program, script = place, folder / "snippet.py"
    if snippet.language == "javascript":
        program, script = install.node(), folder / "snippet.mjs"
        (folder / "node_modules").symlink_to(place)
    script.write_text(code)
    child = await asyncio.create_subprocess_exec(
        *(program, script),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(folder)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await guarded(child.communicate)()
    assert child.returncode == 0, out.decode()
    return out.decode().splitlines()
