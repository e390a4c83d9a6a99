"""What a command is: its words, its arguments and what it does, as one value.

``main`` makes the parser from a table of these. A new command is a module with one such
value, and its place in that table.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from modelsplit_proxy.config.settings import OPTIONS, read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.config.settings import Option, Settings


class Run(Protocol):
    """Does it; returns the exit code. Raises what ``main`` knows how to tell."""

    def __call__(self, args: argparse.Namespace, environ: Mapping[str, str]) -> int: ...


class Argument:
    """One call of argparse's ``add_argument``, kept for later."""

    def __init__(self, *names: str, **options: Any) -> None:
        self.names = names
        self.options = options


JSON = Argument("--json", action="store_true", help="machine-readable output")


@dataclass(frozen=True, slots=True)
class Command:
    """One command, or one verb of a command.

    ``run`` None: one of its verbs must do it; else a verb may. ``settings``: which of the
    process's settings it takes as flags. ``example``: what its help ends with. ``verbs``: the
    words one of which must, or may, follow; they have their own arguments.
    """

    name: str
    help: str
    description: str
    run: Run | None = None
    arguments: tuple[Argument, ...] = ()
    settings: tuple[str, ...] = ()
    example: str | None = None
    verbs: tuple[Command, ...] = ()


def add(commands: Any, command: Command, dest: str = "verb") -> None:
    """Add a command to argparse's sub-parsers, with its verbs under ``dest``."""
    parser = commands.add_parser(
        command.name,
        help=command.help,
        description=command.description,
        epilog=command.example,
        formatter_class=_Formatter,
    )
    # Whose usage is told where an argument is unknown.
    parser.set_defaults(parser=parser, run=command.run or partial(_want_a_verb, command))
    for argument in command.arguments:
        parser.add_argument(*argument.names, **argument.options)
    for option in OPTIONS:
        if option.name in command.settings:
            _add_setting(parser, option)
    if command.verbs:
        word = dest.upper() if command.run is None else f"[{dest.upper()}]"
        verbs = parser.add_subparsers(dest=dest, metavar=word)
        for verb in command.verbs:
            add(verbs, verb)


def _want_a_verb(command: Command, args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Name those that there are, and end with wrong usage."""
    del environ
    parser: argparse.ArgumentParser = args.parser
    parser.error(f"which one? {', '.join(verb.name for verb in command.verbs)}")


class _Formatter(argparse.HelpFormatter):
    """Text of several lines keeps them, as examples do; text of one is wrapped."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return "".join(indent + line for line in text.splitlines(keepends=True))
        return super()._fill_text(text, width, indent)


def flags(command: Command) -> list[str]:
    """Those of the command, its settings and its verbs, as they are typed."""
    own = [name for argument in command.arguments for name in argument.names if name[0] == "-"]
    own += [option.flag for option in OPTIONS if option.name in command.settings]
    return [*own, *(flag for verb in command.verbs for flag in flags(verb))]


def settings_of(args: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """The settings as the flags and the environment say. Raises SettingError."""
    return read_settings(flags_of(args), environ)


def flags_of(args: argparse.Namespace) -> dict[str, object]:
    """The settings that were said as flags, by their names; None: not said."""
    return {option.name: getattr(args, _attribute(option), None) for option in OPTIONS}


def _add_setting(parser: argparse.ArgumentParser, option: Option) -> None:
    if option.switch:
        parser.add_argument(option.flag, action="store_const", const="yes", help=option.help)
        return
    default = f" (default {option.default})" if option.default else ""
    parser.add_argument(
        option.flag,
        dest=_attribute(option),
        action="append" if option.repeatable else "store",
        metavar=option.name.rpartition("-")[2].upper(),
        help=f"{option.help}{default}",
    )


def _attribute(option: Option) -> str:
    return option.name.replace("-", "_")
