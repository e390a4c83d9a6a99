"""How commands speak and end: stdout is data, stderr is talk, the exit code is the answer."""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable


class ExitCode(IntEnum):
    """Every exit code. 3 is LSB's "not running"; 69 and 78 are those of sysexits(3).

    Of objectives, 3 is that there is not enough data; of ``doctor``, that something could not be
    looked at: aliases.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    NOT_ENOUGH_DATA = 3
    CANNOT_LOOK = 3
    UNAVAILABLE = 69
    CONFIG = 78
    INTERRUPTED = 130


class CommandError(Exception):
    """A command cannot do what was asked. The text says why; ``code`` is the exit code."""

    def __init__(self, text: str, code: ExitCode) -> None:
        super().__init__(text)
        self.code = code


def talk(text: str) -> None:
    """Say something to whoever watches."""
    sys.stderr.write(f"modelsplit: {text}\n")


def show(value: Any, lines: Iterable[str], *, as_json: bool) -> None:
    """Print the answer: ``value`` as JSON, or ``lines`` for people."""
    if as_json:
        show_json(value)
    else:
        show_lines(lines)


def show_json(value: Any) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")


def show_lines(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
