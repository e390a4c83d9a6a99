"""``modelsplit status``: one screen of what the running proxy is doing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.health import Level
from modelsplit_proxy.admin import status_text
from modelsplit_proxy.cli import admin_client, watch
from modelsplit_proxy.cli.command import JSON, Argument, Command, settings_of
from modelsplit_proxy.cli.output import ExitCode, show, talk

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from modelsplit_proxy.config.settings import Address


def run(admin: Address, *, as_json: bool) -> int:
    """Ask the admin listener and print the answer; returns the exit code."""
    stats = ask(admin)
    if isinstance(stats, str):
        talk(stats)
        return ExitCode.NOT_RUNNING
    with admin_client.known_fields(admin):
        lines = [] if as_json else [*status_text.lines(stats)]
        level = stats["health"]["level"]
    show(stats, lines, as_json=as_json)
    return ExitCode.OK if level == Level.OK else ExitCode.FAILED


def _command(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    once = partial(run, settings_of(args, environ).admin, as_json=args.json)
    return watch.repeat(once, args.every, environ) if args.watch else once()


COMMAND: Final = Command(
    "status",
    "what the running proxy is doing",
    "One screen of how the running proxy does, why, and what to do next. "
    "Exit 0: OK; 1: DEGRADED or CRITICAL; 3: not running.",
    _command,
    (
        JSON,
        Argument("--watch", action="store_true", help="again and again, until Ctrl-C"),
        watch.EVERY,
    ),
    settings=("admin",),
    example="example: modelsplit status --watch --every 5",
)


def ask(admin: Address) -> dict[str, Any] | str:
    """What ``/stats`` says, or a sentence why it cannot be had."""
    try:
        status, stats = admin_client.get(admin, "/stats")
    except admin_client.NotRunningError as error:
        return str(error)
    if status != 200 or "roles" not in stats:
        return f"http://{admin}/stats answered {status}, not as we do{admin_client.STRANGER}"
    return stats
