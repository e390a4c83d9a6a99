"""An upstream's advice on asking again reaches the SDKs, which ask as often as they would it."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from clients import install
from clients.absence import absent
from clients.catalogue import Language
from modelsplit_proxy.config.settings import Address
from support.harness import running
from support.scripted import response, scripted

FOLDER = Path(__file__).parent
BODY = b'{"error":{"message":"the weekly limit is reached","type":"rate_limit_error"}}'
# What the upstream says beside its refusal, and how often it is then asked.
ADVICE = [
    (("Retry-After: 25", "x-should-retry: false"), 1),
    (("retry-after-ms: 1",), 3),
    (("retry-after-ms: 1", "x-should-retry: true"), 3),
]
LANGUAGES = [
    Language.PYTHON,
    pytest.param(Language.NODE, marks=pytest.mark.tools(*Language.NODE.programs)),
]


def _command(language: Language, room: Path) -> tuple[Path, Path]:
    places = install.places([language])
    if language in places.missing:
        absent(places.missing[language], language)
    if language is Language.PYTHON:
        return places.found[language], FOLDER / "python" / "retries.py"
    shutil.copy(FOLDER / "node" / "retries.mjs", room)
    (room / "node_modules").symlink_to(places.found[language])
    return install.node(), room / "retries.mjs"


@pytest.mark.parametrize("status", ["429 Too Many Requests", "500 Internal Server Error"])
@pytest.mark.parametrize(("advice", "asked"), ADVICE)
@pytest.mark.parametrize("language", LANGUAGES)
async def test_an_sdk_asks_as_often_as_the_upstream_advises(
    tmp_path: Path, language: Language, advice: tuple[str, ...], asked: int, status: str
) -> None:
    program, script = _command(language, tmp_path)
    async with scripted(response(BODY, *advice, status=status)) as upstream:
        async with running(upstream=Address("127.0.0.1", upstream.port)) as up:
            environment = {
                "PATH": f"{program.parent}:{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "PYTHONPATH": str(FOLDER.parent),
                "MODELSPLIT_URL": up.url,
            }
            child = await asyncio.create_subprocess_exec(
                *(program, script), cwd=tmp_path, env=environment, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await child.communicate()
        assert out.decode().split() == [status[:3]]
        assert len(upstream.asked) == asked
