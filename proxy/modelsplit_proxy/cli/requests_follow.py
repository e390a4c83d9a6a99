"""``modelsplit requests --follow``: each call as it ends, until Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.cli.output import CommandError, ExitCode, talk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Between two looks.
EVERY_S: Final = 1.0
# How many calls a look is at: what ends between two beyond that is not told.
LOOK_AT: Final = 1000
_RUNNING: Final = "running"

Call = dict[str, Any]


class Follower:
    """Tells the calls that have ended since the look before.

    ``latest``: the last calls, newest first; raises CommandError. ``tell``: gets those to be told,
    newest first, and is not called for none.
    """

    def __init__(
        self, latest: Callable[[], list[Call]], tell: Callable[[Sequence[Call]], None]
    ) -> None:
        self._latest = latest
        self._tell = tell
        self._told: set[str] = set()
        self._away = False

    def begin(self, limit: int) -> None:
        """Tell the last ones that have ended. CommandError: nobody answers."""
        self._show(self._latest(), limit)

    def look(self) -> None:
        """Tell what has ended since. A proxy that is away, as while it restarts, is told once."""
        try:
            calls = self._latest()
        except CommandError as error:
            if error.code is not ExitCode.NOT_RUNNING:
                raise
            if not self._away:
                talk(f"{error}; waiting for it")
            self._away = True
            return
        self._away = False
        self._show(calls, LOOK_AT)

    def _show(self, calls: list[Call], limit: int) -> None:
        ended = [call for call in calls if call["outcome"] != _RUNNING]
        new = [call for call in ended if call["request_id"] not in self._told][:limit]
        self._told = {call["request_id"] for call in ended}
        if new:
            self._tell(new)


def follow(follower: Follower, limit: int, wait: Callable[[float], None]) -> None:
    """Follow for ever; KeyboardInterrupt ends it. ``wait``: lets so many seconds pass."""
    follower.begin(limit)
    while True:
        wait(EVERY_S)
        follower.look()
