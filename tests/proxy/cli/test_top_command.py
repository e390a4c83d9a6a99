"""``modelsplit top`` where nothing can be drawn: piped, dumb, without rich, or once."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.cli import top_command, watch
from modelsplit_proxy.cli.main import run
from modelsplit_proxy.runtime import extras
from support.harness import running

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def watched(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Screens are shown once each; how long they would have been apart."""
    seen: list[float] = []

    def repeat(once: Callable[[], int], every_s: float, environ: Mapping[str, str]) -> int:
        del environ
        seen.append(every_s)
        return once()

    monkeypatch.setattr(watch, "repeat", repeat)
    return seen


async def test_once_is_one_plain_screen(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as up:
        admin = f"127.0.0.1:{up.admin_port}"
        code = await asyncio.to_thread(run, ["top", "--once", "--admin", admin], {})
    out = capsys.readouterr().out
    assert code == 0
    assert out.startswith("OK  Ollama")
    assert "\x1b" not in out


async def test_piped_it_is_the_status_watched(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watched(monkeypatch)
    async with running() as up:
        admin = f"127.0.0.1:{up.admin_port}"
        arguments = ["top", "--every", "5", "--admin", admin]
        assert await asyncio.to_thread(run, arguments, {"TERM": "xterm"}) == 0
        arguments = ["status", "--watch", "--admin", admin]
        assert await asyncio.to_thread(run, arguments, {"TERM": "xterm"}) == 0
    assert seen == [5.0, 1.0]
    assert capsys.readouterr().out.count("OK  Ollama") == 2


async def test_without_rich_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watched(monkeypatch)
    monkeypatch.setattr(top_command, "_is_screen", lambda _: True)
    monkeypatch.setattr(top_command, "find_spec", lambda _: None)
    assert importlib.util.find_spec("rich")
    async with running() as up:
        admin = f"127.0.0.1:{up.admin_port}"
        assert await asyncio.to_thread(run, ["top", "--admin", admin], {}) == 0
    captured = capsys.readouterr()
    assert f"rich: {extras.adding('top')}; here is" in captured.err
    assert captured.out.startswith("OK  Ollama")
    assert seen == [1.0]


def test_a_pause_that_is_none_is_wrong_usage() -> None:
    with pytest.raises(SystemExit) as refused:
        run(["top", "--every", "0"], {})
    assert refused.value.code == 2
