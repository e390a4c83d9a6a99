"""``modelsplit experiments``: what the arms of an experiment have shown so far."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from modelsplit_proxy.cli import admin_client
from modelsplit_proxy.cli.command import JSON, Argument, Command, settings_of
from modelsplit_proxy.cli.output import ExitCode, show, talk
from modelsplit_proxy.records import experiment_report
from modelsplit_proxy.runtime import local_time

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from modelsplit_proxy.config.settings import Address

# Many calls are read, sorted and compared, for several experiments.
_TIMEOUT_S: Final = 60.0


def run(admin: Address, name: str | None, since: str | None, *, as_json: bool) -> int:
    """Ask the admin listener and print the report; returns the exit code."""
    asked = {"name": name, "since": since}
    query = urlencode({key: value for key, value in asked.items() if value is not None})
    try:
        status, fields = admin_client.get(admin, f"/experiments?{query}", _TIMEOUT_S)
    except admin_client.NotRunningError as error:
        talk(str(error))
        return ExitCode.NOT_RUNNING
    if status != 200:
        talk(fields.get("error", f"the answer was a {status}"))
        return ExitCode.USAGE if status == http.client.BAD_REQUEST else ExitCode.FAILED
    show(fields, experiment_report.lines(fields), as_json=as_json)
    return ExitCode.OK


def _command(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    admin = settings_of(args, environ).admin
    return run(admin, args.name, args.since, as_json=args.json)


COMMAND: Final = Command(
    "experiments",
    "what the arms of an experiment have shown so far",
    "Compare the arms of an experiment, with intervals. "
    "Exit 0: told; 1: no such experiment; 2: wrong usage; 3: not running.",
    _command,
    (
        Argument("name", nargs="?", metavar="NAME", help="default: all of them"),
        Argument(
            "--since", type=local_time.zoned, metavar="TIME", help="a time ago, as 7d, or a date"
        ),
        JSON,
    ),
    settings=("admin",),
    example="example: modelsplit experiments planner-size --since 7d",
)
