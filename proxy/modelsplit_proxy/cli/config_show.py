"""``modelsplit config show``: every setting as ``serve`` would have it, and where it comes from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.cli.command import JSON, Argument, Command, flags_of
from modelsplit_proxy.cli.output import ExitCode, show
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.config.settings import OPTIONS, read_settings, where_said
from modelsplit_proxy.runtime.text_table import table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping


# In a URL: before its host, or among its parameters.
_PASSWORDS: Final = re.compile(r"(://[^:@/\s]*:)[^/\s]*(?=@)|(password=)[^&\s]*")


def fields(flags: Mapping[str, object], environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """Name, value and origin of every setting. SettingError, PolicyError: ``serve`` would say so.

    What is empty by default is what is then done: the policy that is found, the state directory.
    Of a URL with a password all but that.
    """
    settings = read_settings(flags, environ)
    said = where_said(flags, environ)
    policy = policy_file.find_policy(settings.policy, environ)
    found = {"state": str(settings.state), "policy": str(policy or policy_file.SHIPPED)}
    rows = []
    for option in OPTIONS:
        values, origin = said[option.name]
        text = found.get(option.name) or ",".join(values)
        shown = _PASSWORDS.sub(r"\1\2***", text)
        rows.append({"name": option.name, "value": shown, "origin": origin})
    return rows


def _show(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    rows = fields(flags_of(args), environ)
    show(rows, _lines(rows, origin=args.origin), as_json=args.json)
    return ExitCode.OK


def _lines(rows: list[dict[str, Any]], *, origin: bool) -> list[str]:
    names = ("name", "value", "origin")[: 3 if origin else 2]
    cells = [[row[name] or "-" for name in names] for row in rows]
    return table([[name.upper() for name in names], *cells], "<" * len(names))


COMMAND: Final = Command(
    "config",
    "the settings as serve would have them",
    "Settings: a flag, else its variable, else the file of settings, else the default.",
    verbs=(
        Command(
            "show",
            "every setting, and where it comes from",
            "Show every setting as `serve` would have it here. With --origin, also whether the "
            "flag, the variable, the file or the default says so. A variable that looks like a "
            "setting and is none is told. Exit 0: done; 2: a setting cannot be read.",
            _show,
            (Argument("--origin", action="store_true", help="and where it comes from"), JSON),
            settings=tuple(option.name for option in OPTIONS),
            example="example: modelsplit config show --origin",
        ),
    ),
    example="example: modelsplit config show --origin",
)
