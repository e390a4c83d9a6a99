"""The command line: arguments in, an exit code out."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from modelsplit_policy.config.problems import PolicyError
from modelsplit_policy.near_names import near
from modelsplit_proxy.app import PortBusyError
from modelsplit_proxy.cli import serve
from modelsplit_proxy.cli.command import add, flags
from modelsplit_proxy.cli.output import CommandError, ExitCode, talk
from modelsplit_proxy.config.settings import SettingError, unknown_variables
from modelsplit_proxy.records.query_error import QueryError
from modelsplit_proxy.runtime import streams
from modelsplit_proxy.runtime.streams import OutputError
from modelsplit_proxy.storage.state_file import NoStateError, StoreError
from modelsplit_proxy.storage.state_lock import StateBusyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.cli.command import Command


# Who asked so asked wrongly.
_USAGE = (SettingError, QueryError, NoStateError)


def run(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Run one command; returns its exit code. SystemExit after help and wrong usage."""
    try:
        try:
            return _run(arguments, environ)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone, as in `modelsplit route x | head -0`.
        streams.drop_output()
        return ExitCode.OK
    except OutputError as error:
        streams.drop_output()
        talk(f"the output cannot be written: {error}")
        return ExitCode.FAILED


def _run(arguments: list[str], environ: Mapping[str, str]) -> int:
    commands = _commands(arguments)
    parser = build_parser(commands)
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        asked: argparse.ArgumentParser = getattr(args, "parser", parser)
        meant = _meant(commands, args.command, unknown[0])
        asked.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
    if args.command is None:
        parser.print_help(sys.stderr)
        return ExitCode.USAGE
    if args.command != serve.COMMAND.name:  # it has a log to tell them in
        for text in unknown_variables(environ):
            talk(f"warning: {text}")
    try:
        code: int = args.run(args, environ)
    except CommandError as error:
        talk(str(error))
        return error.code
    except (PortBusyError, StateBusyError) as error:
        talk(str(error))
        return ExitCode.UNAVAILABLE
    except (SettingError, QueryError, PolicyError, StoreError) as error:
        for line in str(error).splitlines() if isinstance(error, SettingError) else [str(error)]:
            talk(line)
        return _code_of(error, args.command)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return code


def _code_of(error: Exception, command: str) -> ExitCode:
    """A service that cannot be configured says so as sysexits does; a question was just wrong."""
    if command in {"serve", "demo"}:
        return ExitCode.CONFIG
    return ExitCode.USAGE if isinstance(error, _USAGE) else ExitCode.FAILED


def _meant(commands: tuple[Command, ...], name: str | None, word: str) -> str:
    """Which flag of that command may have been meant by ``word``, in words; empty: none."""
    known = [flag for command in commands if command.name == name for flag in flags(command)]
    meant = near(word.partition("=")[0], known)
    return "" if meant is None else f"; did you mean {meant}?"


def _commands(arguments: list[str]) -> tuple[Command, ...]:
    """All of them, or the one that is asked for where it stays in memory for months."""
    if arguments[:1] == [serve.COMMAND.name]:
        return (serve.COMMAND,)
    # Half a megabyte that a process that serves has no use for.
    from modelsplit_proxy.cli.commands import COMMANDS  # noqa: PLC0415

    return COMMANDS


class _Parser(argparse.ArgumentParser):
    """Tells which command, verb or choice may have been meant, where one is misspelt."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = () if action.choices is None else map(str, action.choices)
        meant = None if action.choices is None or value in action.choices else near(value, choices)
        if meant is not None:
            raise argparse.ArgumentError(action, f"there is no {value!r}; did you mean {meant!r}?")
        super()._check_value(action, value)


def build_parser(commands: tuple[Command, ...]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="modelsplit",
        description="A sidecar reverse proxy for Ollama: roles, one queue, one fallback.",
        epilog="Start with `modelsplit demo`: it needs no Ollama.",
    )
    parser.add_argument(
        "--version", action="version", version=f"modelsplit {version('modelsplit')}"
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in commands:
        add(subparsers, command)
    return parser
