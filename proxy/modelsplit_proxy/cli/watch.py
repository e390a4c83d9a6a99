"""A screen of text shown again and again, by a command that answers once."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Final

from modelsplit_proxy.cli.command import Argument

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

EVERY_S: Final = 1.0
_SHORTEST_S: Final = 0.1
_LONGEST_S: Final = 86_400.0
# To the top left corner; then, behind what is drawn, to the end of the screen.
_HOME: Final = "\x1b[H\x1b[2J"


def seconds(raw: str) -> float:
    """How long from one to the next, of a flag. Raises what argparse tells."""
    try:
        value = float(raw)
    except ValueError:
        value = 0.0
    if not _SHORTEST_S <= value <= _LONGEST_S:
        raise argparse.ArgumentTypeError(f"{raw} is not from {_SHORTEST_S:g} to {_LONGEST_S:g} s")
    return value


EVERY: Final = Argument(
    "--every",
    type=seconds,
    default=EVERY_S,
    metavar="SECONDS",
    help="from one look to the next (default 1)",
)


def can_clear(environ: Mapping[str, str]) -> bool:
    """Whether stdout is a terminal that knows how to begin anew."""
    return sys.stdout.isatty() and environ.get("TERM", "dumb") != "dumb"


def repeat(
    once: Callable[[], int],
    every_s: float,
    environ: Mapping[str, str],
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Show a screen again and again until the reader goes or presses Ctrl-C.

    ``once`` prints it and returns an exit code, and one that says it cannot does not end it:
    a proxy that is started again is shown again. Where nothing can be cleared, screens come
    one below the other. Raises KeyboardInterrupt.
    """
    clears, is_first = can_clear(environ), True
    while True:
        if clears:
            sys.stdout.write(_HOME)
        elif not is_first:
            sys.stdout.write("\n")
        is_first = False
        once()
        sys.stdout.flush()
        sleep(every_s)
