"""The state file for commands about objectives: read beside a running proxy or without one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.cli import state_access, status
from modelsplit_proxy.cli.command import Argument
from modelsplit_proxy.cli.output import CommandError, ExitCode
from modelsplit_proxy.cli.record_source import opened
from modelsplit_proxy.storage import state_file
from modelsplit_proxy.storage.state_file import FILE_NAME, StoreError

if TYPE_CHECKING:
    import argparse

    from modelsplit_proxy.config.settings import Settings
    from modelsplit_proxy.runtime.clock import Clock

STATE: Final = Argument(
    "--state", type=Path, metavar="DIR", help="the state file there, whoever runs"
)


def directory_of(args: argparse.Namespace, settings: Settings) -> Path:
    """Where the state is: as the flag says, else of the proxy that runs, else where one would."""
    if args.state is not None:
        return Path(args.state)
    stats = status.ask(settings.admin)
    return Path(stats["spending"]["state"]) if isinstance(stats, dict) else settings.state


class SloState:
    """A state file that is there; CommandError with exit code 3 if it cannot be read."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.directory = directory
        self._path = directory / FILE_NAME
        self._clock = clock
        try:
            there = state_access.is_there(directory)
            if there:
                opened(directory, clock)
        except StoreError as error:
            raise CommandError(str(error), ExitCode.NOT_ENOUGH_DATA) from None
        if not there:
            text = f"not enough data: no state file there: {self._path}"
            raise CommandError(text, ExitCode.NOT_ENOUGH_DATA)

    def read(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """The rows of one query. CommandError with exit code 3 if it cannot be read."""
        try:
            return state_file.read(self._path, self._clock, query, values)
        except StoreError as error:
            raise CommandError(str(error), ExitCode.NOT_ENOUGH_DATA) from None
