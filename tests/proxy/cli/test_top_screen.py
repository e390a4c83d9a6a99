"""How ``modelsplit top`` looks, as text."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from modelsplit_proxy.cli import status, top_screen
from modelsplit_proxy.cli.top_view import KEYS, Row, View
from modelsplit_proxy.config.settings import Address
from support.harness import running

if TYPE_CHECKING:
    from rich.console import RenderableType

HOSTILE = "[red]x[/red] \x1b[31m\x07\u202e"


def drawn(renderable: RenderableType, width: int = 120, height: int = 40) -> str:
    console = Console(width=width, height=height, file=io.StringIO(), highlight=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def row(number: int, **changes: Any) -> Row:
    made = Row(
        *(f"id-{number:04}", "running", "streaming", "PLANNER", "qwen3:4b", "10.0.0.1"),
        *(1500.0, 14.25, ""),
    )
    return made._replace(**changes)


@pytest.fixture
async def stats() -> dict[str, Any]:
    async with running() as up:
        found = await asyncio.to_thread(status.ask, Address("127.0.0.1", up.admin_port))
    assert isinstance(found, dict)
    return found


def test_it_says_how_the_service_does_and_who_is_there(stats: dict[str, Any]) -> None:
    text = drawn(top_screen.screen(stats, [row(1)], View(), 120, 40))
    lines = [line.split() for line in text.splitlines()]
    assert lines[0][:3] == ["OK", "Ollama", "0.33.0-rc2"]
    assert ["PLANNER", "·" * 10, "0/2", "0/64", "0", "0", "-", "-"] in lines
    assert "cloud: 0 of 5 USD in 1d" in text
    assert ["streaming", "PLANNER", "qwen3:4b", "10.0.0.1", "1.5", "s", "14.2", "id-0001"] in lines
    assert "q quit" in text


@pytest.mark.parametrize(("width", "height"), [(60, 20), (80, 24), (100, 30), (250, 70)])
def test_it_fits_the_terminal(stats: dict[str, Any], width: int, height: int) -> None:
    rows = [row(number, note="x" * 300, model="m" * 300) for number in range(300)]
    text = drawn(top_screen.screen(stats, rows, View(chosen=299), width, height), width, height)
    assert max(map(len, text.splitlines())) <= width
    assert "id-0299" in text
    if height >= 24:
        assert len(text.splitlines()) <= height


def test_what_others_call_themselves_is_text(stats: dict[str, Any]) -> None:
    rows = [row(1, model=HOSTILE, client=HOSTILE, id=HOSTILE, note=HOSTILE)]
    causes = [{"text": HOSTILE}]
    hostile = stats | {"health": stats["health"] | {"causes": causes, "next": HOSTILE}}
    for text in (
        drawn(top_screen.screen(hostile, rows, View(words=HOSTILE), 200, 40)),
        drawn(top_screen.explanation(f"{HOSTILE}\n{HOSTILE}", View(), 10)),
        drawn(top_screen.troubled("", HOSTILE)),
    ):
        assert "[red]" in text
        assert not {"\x1b", "\x07", "\u202e"} & set(text)


def test_nobody_there_and_nobody_who_fits_are_told_apart(stats: dict[str, Any]) -> None:
    assert "nobody runs, waits or failed" in drawn(top_screen.screen(stats, [], View(), 120, 40))
    none_fits = top_screen.screen(stats, [], View(words="x"), 120, 40)
    assert "nothing fits the filter" in drawn(none_fits)
    assert "filter: x" in drawn(none_fits)


def test_a_pause_and_a_filter_being_typed_are_seen(stats: dict[str, Any]) -> None:
    view = View(paused=True, typing=True, words="pla")
    text = drawn(top_screen.screen(stats, [], view, 120, 40))
    assert "paused" in text
    assert "filter: pla█" in text


def test_an_explanation_is_scrolled_and_never_away() -> None:
    text = "\n".join(f"line {number}" for number in range(100))
    assert "line 50" in drawn(top_screen.explanation(text, View(scroll=50), 12))
    assert "line 99" in drawn(top_screen.explanation(text, View(scroll=5000), 12))


def test_every_key_is_told() -> None:
    text = drawn(top_screen.keys())
    assert all(what in text for _, what in KEYS)


def test_what_nobody_knows_of_a_budget_is_not_told_as_room(stats: dict[str, Any]) -> None:
    budgets = [row | {"known": False} for row in stats["spending"]["budgets"]]
    away = stats | {"spending": stats["spending"] | {"budgets": budgets}}
    for height in (12, 60):
        text = drawn(top_screen.screen(away, [], View(), 120, height), 120, height)
        assert "? of 10 calls" in text or "?/10 calls" in text
