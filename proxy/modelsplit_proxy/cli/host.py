"""``modelsplit host``: the hosts behind a running proxy, and whether they take new calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from modelsplit_proxy.admin import host_rows
from modelsplit_proxy.cli import admin_client
from modelsplit_proxy.cli.command import JSON, Argument, Command
from modelsplit_proxy.cli.output import CommandError, ExitCode, show, talk
from modelsplit_proxy.config.settings import read_settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from modelsplit_proxy.config.settings import Address

_NONE: Final = "the policy names no hosts: there is the one upstream"
_EXAMPLES: Final = """\
examples:
  modelsplit host list
  modelsplit host drain big      before it is switched off
  modelsplit host undrain big
"""


def _admin(args: argparse.Namespace, environ: Mapping[str, str]) -> Address:
    return read_settings({"admin": args.admin}, environ).admin


def _list(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    admin = _admin(args, environ)
    try:
        rows = admin_client.get_list(admin, "/hosts")
    except admin_client.NotRunningError as error:
        raise CommandError(str(error), ExitCode.NOT_RUNNING) from None
    with admin_client.known_fields(admin):
        show(rows, host_rows.lines(rows) if rows else (), as_json=args.json)
    if not rows and not args.json:
        talk(_NONE)
    return ExitCode.OK


def _drain(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return _write(args, environ, "drain")


def _undrain(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return _write(args, environ, "undrain")


def _write(args: argparse.Namespace, environ: Mapping[str, str], verb: str) -> int:
    admin = _admin(args, environ)
    try:
        status, row = admin_client.post(admin, f"/hosts/{quote(args.name, safe='')}/{verb}")
    except admin_client.NotRunningError as error:
        raise CommandError(str(error), ExitCode.NOT_RUNNING) from None
    if status != 200:
        raise CommandError(str(row.get("error", f"the answer was a {status}")), ExitCode.FAILED)
    with admin_client.known_fields(admin):
        show(row, [_told(row)], as_json=args.json)
    return ExitCode.OK


def _told(row: Mapping[str, object]) -> str:
    if not row["drained"]:
        return f"{row['name']} takes calls again"
    left = f"; {row['running']} still run there" if row["running"] else ""
    return f"{row['name']} takes no new calls{left}"


_NAME: Final = Argument("name", metavar="NAME", help="the host, by its name in the policy")

COMMAND: Final = Command(
    "host",
    "the hosts behind the proxy: list them, drain one before it is switched off",
    "The hosts that the policy names, as a running proxy knows them. "
    "Exit 0: done; 1: no such host; 2: wrong usage; 3: not running.",
    verbs=(
        Command(
            "list",
            "how each host stands: state, calls, what it has loaded",
            "How each host stands. Exit 0: told; 2: wrong usage; 3: not running.",
            _list,
            (JSON,),
            settings=("admin",),
            example="example: modelsplit host list",
        ),
        Command(
            "drain",
            "have a host take no new calls; those it has go on",
            "Have a host take no new calls, until undrain or a restart; those it has go on. "
            "Exit 0: done; 1: no such host; 2: wrong usage; 3: not running.",
            _drain,
            (_NAME, JSON),
            settings=("admin",),
            example="example: modelsplit host drain big",
        ),
        Command(
            "undrain",
            "have a drained host take calls again",
            "Have a drained host take calls again. "
            "Exit 0: done; 1: no such host; 2: wrong usage; 3: not running.",
            _undrain,
            (_NAME, JSON),
            settings=("admin",),
            example="example: modelsplit host undrain big",
        ),
    ),
    example=_EXAMPLES,
)
