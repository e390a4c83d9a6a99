"""The arguments of ``modelsplit top``; what it draws is in ``top``, with an optional package."""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from modelsplit_proxy.cli import status, watch
from modelsplit_proxy.cli.command import Argument, Command, settings_of
from modelsplit_proxy.cli.output import talk
from modelsplit_proxy.runtime import extras

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

_EXAMPLES: Final = """\
keys: q quits, space pauses, s sorts, / filters, arrows choose, enter explains,
? lists them

examples:
  modelsplit top
  modelsplit top --every 5
  modelsplit top --once
"""
_PLAIN: Final = "keys and colours need the package rich: {}; here is `modelsplit status --watch`"


def _run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    admin = settings_of(args, environ).admin
    if args.once or args.json:
        return status.run(admin, as_json=args.json)
    if not _is_screen(environ):
        return watch.repeat(partial(status.run, admin, as_json=False), args.every, environ)
    if find_spec("rich") is None:
        talk(_PLAIN.format(extras.adding("top")))
        return watch.repeat(partial(status.run, admin, as_json=False), args.every, environ)
    # An optional package, and a tenth of a second.
    from modelsplit_proxy.cli import top  # noqa: PLC0415

    return top.run(admin, args.every)


def _is_screen(environ: Mapping[str, str]) -> bool:
    """Whether somebody sits there who presses keys, before a terminal that can be drawn on."""
    return sys.stdin.isatty() and watch.can_clear(environ)


COMMAND: Final = Command(
    "top",
    "what the running proxy is doing, as it changes",
    "One screen, drawn anew each second: verdict, roles, who runs, waits and failed. Piped, or in "
    "a terminal that cannot be drawn on, it is `status --watch`.",
    _run,
    (
        watch.EVERY,
        Argument("--once", action="store_true", help="one plain screen, as status"),
        Argument("--json", action="store_true", help="once, as `status --json`"),
    ),
    settings=("admin",),
    example=_EXAMPLES,
)
