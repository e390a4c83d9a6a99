"""A screen of text again and again."""

from __future__ import annotations

import argparse
import io
import sys

import pytest

from modelsplit_proxy.cli import watch


class Screen(io.StringIO):
    """A stdout that is a terminal."""

    def isatty(self) -> bool:
        return True


def turns(count: int) -> list[float]:
    """How long each of so many pauses is to be; then Ctrl-C is pressed."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == count:
            raise KeyboardInterrupt

    def once() -> int:
        sys.stdout.write(f"screen {len(slept)}\n")
        return 3

    with pytest.raises(KeyboardInterrupt):
        watch.repeat(once, 2.5, {"TERM": "xterm"}, sleep)
    return slept


def test_piped_screens_come_one_below_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert turns(2) == [2.5, 2.5]
    assert capsys.readouterr().out == "screen 0\n\nscreen 1\n"


def test_on_a_terminal_each_begins_at_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    turns(2)
    assert screen.getvalue() == "\x1b[H\x1b[2Jscreen 0\n\x1b[H\x1b[2Jscreen 1\n"


@pytest.mark.parametrize(("environ", "can"), [({}, False), ({"TERM": "dumb"}, False)])
def test_a_dumb_terminal_is_sent_no_codes(
    environ: dict[str, str], can: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Screen())
    assert watch.can_clear(environ) is can
    assert watch.can_clear({"TERM": "xterm"})


@pytest.mark.parametrize("raw", ["0", "-1", "x", "nan", "inf", "1e9"])
def test_a_pause_that_is_none_is_refused(raw: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not from"):
        watch.seconds(raw)
    assert watch.seconds("0.5") == 0.5
