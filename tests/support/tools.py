"""The programs that some tests need: which there are, and which of them a test names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pytest

LIST: Final = Path(__file__).parents[1] / "tools.txt"


def packages(text: str) -> dict[str, str]:
    """Program -> the Debian package that has it, of a list like ``tests/tools.txt``."""
    lines = (line.split("#")[0].split() for line in text.splitlines())
    return dict(filter(None, lines))


def named(item: pytest.Item) -> Iterator[str]:
    """The programs that a test needs."""
    for mark in item.iter_markers("tools"):
        yield from mark.args


def unlisted(items: Iterable[pytest.Item], listed: Iterable[str]) -> list[str]:
    """What is wrong with the markers of these tests: a program nobody installs, or none named."""
    known = set(listed)
    wrong = []
    for item in items:
        names = set(named(item))
        if not names <= known:
            wrong.append(f"{item.nodeid}: {', '.join(sorted(names - known))}")
        elif not names and item.get_closest_marker("tools"):
            wrong.append(f"{item.nodeid} names no program")
    return wrong


def missing(programs: Iterable[str]) -> list[str]:
    """Those of the programs that are not installed here."""
    return [program for program in programs if shutil.which(program) is None]
