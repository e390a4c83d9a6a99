"""The manual page, made from the table of commands and settings.

``python -m modelsplit_proxy.cli.man_page`` prints it; ``docs/man/modelsplit.1`` is what it prints.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from modelsplit_proxy.cli.commands import COMMANDS
from modelsplit_proxy.config.settings import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from modelsplit_proxy.cli.command import Argument, Command
    from modelsplit_proxy.config.settings import Option

_HEAD: Final = r"""
.TH MODELSPLIT 1 "" modelsplit "User Commands"
.SH NAME
modelsplit \- a sidecar reverse proxy for Ollama
.SH SYNOPSIS
.B modelsplit
.I command
.RI [ options ]
.SH DESCRIPTION
Gives every call to Ollama a role, and with it a model, a place in the queue, a timeout and one
fallback, and can say of every call what became of it and why.
Start with
.BR "modelsplit demo" :
it needs no Ollama.
""".lstrip("\n")
_TAIL: Final = r"""
.SH ENVIRONMENT
Every setting of
.B serve
has a variable, named beside it. A flag comes before its variable, and that before the default.
.SH FILES
.TP
.I /etc/modelsplit/model-policy.json
the policy, where it exists; else the one that is shipped
.TP
.I $STATE_DIRECTORY, else ~/.local/state/modelsplit
the state: records, budgets and what was learned
.SH EXIT STATUS
0 done; 1 not, or not well; 2 wrong usage; 3 not running, not enough data, or cannot look;
69 a port or the state is taken; 78 a wrong configuration; 130 interrupted.
""".lstrip("\n")


def page(commands: Iterable[Command]) -> str:
    """The page in man(7)'s language."""
    lines = [_HEAD.rstrip("\n"), ".SH COMMANDS"]
    for command in commands:
        lines += _command(command, "")
    return "\n".join([*lines, _TAIL])


def _command(command: Command, before: str) -> Iterator[str]:
    name = f"{before}{command.name}"
    words = [_synopsis(argument) for argument in command.arguments]
    yield f".SS {_plain(' '.join([name, *words]))}"
    yield _plain(command.description)
    for argument in command.arguments:
        yield ".TP"
        yield _argument(argument)
        yield _plain(argument.options.get("help", ""))
    for option in OPTIONS:
        if option.name in command.settings:
            yield from _setting(option)
    if command.example:
        yield from (".PP", ".nf", _plain(command.example.strip()), ".fi")
    for verb in command.verbs:
        yield from _command(verb, f"{name} ")


def _setting(option: Option) -> Iterator[str]:
    value = "" if option.switch else rf" \fI{_plain(_metavar(option.name))}\fR"
    yield ".TP"
    yield rf"\fB{_plain(option.flag)}\fR{value}, ${option.variable}"
    default = f" (default {option.default})" if option.default else ""
    yield _plain(option.help + default)


def _argument(argument: Argument) -> str:
    name = argument.names[0]
    if not name.startswith("-"):
        return rf"\fI{_plain(argument.options.get('metavar', name))}\fR"
    if "action" in argument.options:
        return rf"\fB{_plain(name)}\fR"
    return rf"\fB{_plain(name)}\fR \fI{_plain(_value(argument))}\fR"


def _synopsis(argument: Argument) -> str:
    """How an argument stands in a usage line."""
    name = argument.names[0]
    if not name.startswith("-"):
        word: str = argument.options.get("metavar", name)
        return f"[{word}]" if argument.options.get("nargs") == "?" else word
    text = name if "action" in argument.options else f"{name} {_value(argument)}"
    return text if argument.options.get("required") else f"[{text}]"


def _value(argument: Argument) -> str:
    """The word for an option's value, as argparse has it."""
    options = argument.options
    if "choices" in options and "metavar" not in options:
        return "|".join(map(str, options["choices"]))
    word: str = options.get("metavar") or _metavar(argument.names[0])
    return word


def _metavar(name: str) -> str:
    return name.lstrip("-").rpartition("-")[2].upper()


def _plain(text: str) -> str:
    """Text that means itself to troff."""
    lines = text.replace("\\", r"\e").replace("-", r"\-").replace("%%", "%").splitlines()
    return "\n".join(rf"\&{line}" if line.startswith((".", "'")) else line for line in lines)


if __name__ == "__main__":
    sys.stdout.write(page(COMMANDS))
