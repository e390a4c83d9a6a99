"""What the service manager is told while this process runs: how it goes, and that it still ends.

Looked at once a second, from the event loop, and only where there is a manager. The status line
is sent when it has changed. While the process drains, each look also asks for time to the next
ones: what takes longer than ``TimeoutStopSec=`` is then not killed for it, as long as the loop
turns.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from modelsplit_policy.vocabulary import Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelsplit_proxy.app import App
    from modelsplit_proxy.runtime.systemd import Notifier

EVERY_S: Final = 1.0
# What each look asks for. Ten looks may come late or be lost before the manager gives up.
_EXTEND_USEC: Final = 10_000_000


class ServiceStatus:
    """Tells the manager; ``text`` is the line for people, ``ends``: the process drains."""

    def __init__(
        self, notifier: Notifier, text: Callable[[], str], ends: Callable[[], bool]
    ) -> None:
        self._notifier = notifier
        self._text = text
        self._ends = ends
        self._told = ""
        self._timer: asyncio.TimerHandle | None = None

    def start(self, every_s: float = EVERY_S) -> None:
        """Look now, and every so many seconds."""
        self._timer = asyncio.get_running_loop().call_later(every_s, self.start, every_s)
        text = self._text()
        if text != self._told:
            self._notifier.status(text)
            self._told = text
        if self._ends():
            self._notifier.extend_timeout(_EXTEND_USEC)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def status_line(app: App) -> str:
    """How it goes, in one short line: where, how well, and who runs and waits."""
    calls, admission = app.lifecycle.active, app.admission
    if app.lifecycle.draining:
        return f"draining: {calls} requests are being answered"
    running = {role: admission.running(role) for role in Role}
    waiting = {role: admission.waiting(role) for role in Role}
    return (
        f"listening on {app.address}; health {app.service.level()}; "
        f"running: {_counts(running)}; waiting: {_counts(waiting)}"
    )


def _counts(by_role: dict[Role, int]) -> str:
    return ", ".join(f"{role} {count}" for role, count in by_role.items() if count) or "none"
