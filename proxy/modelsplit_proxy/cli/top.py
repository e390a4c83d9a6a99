"""``modelsplit top``: one screen of what the running proxy does, drawn anew as it changes."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

from rich.console import Console
from rich.live import Live
from rich.text import Text

from modelsplit_proxy.cli import admin_client, status, top_screen, top_view
from modelsplit_proxy.cli.output import ExitCode
from modelsplit_proxy.cli.top_view import View
from modelsplit_proxy.runtime.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    from modelsplit_proxy.cli.top_view import Row
    from modelsplit_proxy.config.settings import Address

_FAILED: Final = "/requests?failed=1&since=1h&limit=20"


class Look(NamedTuple):
    """What was seen at the last look. ``trouble``: why nothing was, in a sentence; else empty."""

    stats: dict[str, Any] | None = None
    rows: tuple[Row, ...] = ()
    trouble: str = ""


class Screen:
    """The list, or one call explained. ``draw`` it; tell it of keys and of what was seen."""

    def __init__(self, admin: Address) -> None:
        self._admin = admin
        self.view = View()
        self.look = Look()
        self._text = ""

    def refresh(self) -> None:
        """Ask the proxy how things stand."""
        stats = status.ask(self._admin)
        if isinstance(stats, str):
            self.look = self.look._replace(trouble=stats)
            return
        try:
            failed = admin_client.get_list(self._admin, _FAILED)
        except admin_client.NotRunningError as error:
            self.look = self.look._replace(trouble=str(error))
            return
        with admin_client.known_fields(self._admin):
            self.look = Look(stats, tuple(top_view.rows(stats, failed)))

    def press(self, key: str) -> None:
        before = self.view.opened
        self.view = top_view.pressed(self.view, key, self.listed())
        if self.view.opened is not None and self.view.opened != before:
            self._text = self._explained(self.view.opened)

    def listed(self) -> list[Row]:
        return top_view.shown(self.look.rows, self.view)

    def draw(self, width: int, height: int) -> RenderableType:
        if self.view.helping:
            return top_screen.keys()
        if self.view.opened is not None:
            return top_screen.explanation(self._text, self.view, height)
        if self.look.stats is None:
            return Text(self.look.trouble or "asking …")
        listed = self.listed()
        drawn = top_screen.screen(self.look.stats, listed, self.view, width, height)
        return top_screen.troubled(drawn, self.look.trouble)

    def _explained(self, request_id: str) -> str:
        path = f"/requests/{quote(request_id, safe='')}?format=text"
        try:
            return admin_client.get_text(self._admin, path)
        except admin_client.NotRunningError as error:
            return str(error)


def run(admin: Address, every_s: float) -> int:
    """Draw until the viewer leaves. Raises KeyboardInterrupt."""
    console, screen, clock = Console(highlight=False), Screen(admin), SystemClock()
    screen.refresh()
    due = clock.now() + every_s
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while not screen.view.leaving:
            live.update(screen.draw(*console.size), refresh=True)
            for key in top_view.keys(pressed(max(0.0, due - clock.now()))):
                screen.press(key)
            if clock.now() >= due:
                if not screen.view.paused:
                    screen.refresh()
                due = clock.now() + every_s
    return ExitCode.OK


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Keys as they are pressed, unseen: a function that waits for one so long, "" if none came."""
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    tty.setcbreak(stdin)

    def pressed(timeout_s: float) -> str:
        ready, _, _ = select.select([stdin], [], [], timeout_s)
        return os.read(stdin, 64).decode(errors="replace") if ready else ""

    try:
        yield pressed
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
