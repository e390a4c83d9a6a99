"""``modelsplit slo``: whether the objectives hold, and reviews by hand."""

from __future__ import annotations

import http.client
import sys
from pathlib import Path
from shlex import quote
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from modelsplit_policy.config.problems import PolicyError
from modelsplit_policy.slo.report import Verdict
from modelsplit_proxy.admin.slo import read_gates, read_window_s
from modelsplit_proxy.cli import admin_client, slo_review
from modelsplit_proxy.cli.command import JSON, Argument, Command, settings_of
from modelsplit_proxy.cli.output import CommandError, ExitCode, show_json, show_lines, talk
from modelsplit_proxy.cli.slo_state import STATE, SloState, directory_of
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.config.settings import other_than_default
from modelsplit_proxy.records import slo_junit, slo_report
from modelsplit_proxy.records.slo_judge import LIMIT_S
from modelsplit_proxy.records.slo_reading import report_of
from modelsplit_proxy.runtime import local_time
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.runtime.disk_trouble import explained

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from modelsplit_proxy.config.settings import Settings

_EXIT: Final[Mapping[str, ExitCode]] = MappingProxyType(
    {
        Verdict.PASS: ExitCode.OK,
        Verdict.NOT_JUDGED: ExitCode.OK,
        Verdict.BREACH: ExitCode.FAILED,
        Verdict.NOT_ENOUGH_DATA: ExitCode.NOT_ENOUGH_DATA,
    }
)
_EXAMPLES: Final = """\
examples:
  modelsplit slo                              every gate, and its targets
  modelsplit slo --gate 2 --since 24h         one gate, over a day
  modelsplit slo --gate 1 --junit slo.xml     for a build server
  modelsplit slo --state /var/lib/modelsplit  without a running proxy
  modelsplit slo review                       judge answers by hand, for gate 3
"""


def _command(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = settings_of(args, environ)
    clock = SystemClock()
    # Wrong words are told before anything is asked.
    read_gates(args.gate)
    words = {"since": args.since} if args.since is not None else {}
    read_window_s(words, clock.wall())
    fields, where = _fields(args, settings, environ)
    if args.junit is not None:
        _write(args.junit, slo_junit.junit(fields))
    if args.json:
        show_json(fields)
    elif args.markdown:
        show_lines(slo_report.markdown(fields))
    elif args.junit != "-":
        show_lines(slo_report.lines(fields, where))
    return _EXIT[fields["verdict"]]


def _fields(
    args: argparse.Namespace, settings: Settings, environ: Mapping[str, str]
) -> tuple[dict[str, Any], str]:
    """By the running proxy and its policy; else, or where the flag says, from the file itself.

    Beside it, the flag that has other commands look there; empty: they do.
    """
    if args.state is None and args.policy is None:
        try:
            asked_at = other_than_default(settings.admin)
            return _asked(args, settings), f"--admin {asked_at}" if asked_at else ""
        except admin_client.NotRunningError:
            talk(f"no modelsplit answers at http://{settings.admin}; its file is read instead")
    directory = directory_of(args, settings)
    return _read(args, directory, environ), f"--state {quote(str(directory))}"


def _asked(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    words = {"gate": args.gate, "since": args.since}
    query = urlencode({name: word for name, word in words.items() if word is not None})
    status, fields = admin_client.get(settings.admin, f"/slo?{query}", 2 * LIMIT_S)
    if status != http.client.OK or "gates" not in fields:
        text = fields.get("error", f"the answer was a {status}")
        code = ExitCode.USAGE if status == http.client.BAD_REQUEST else ExitCode.NOT_ENOUGH_DATA
        raise CommandError(f"{text}", code)
    if not args.json:
        with admin_client.known_fields(settings.admin):
            # Every field is read once, before anything is written.
            list(slo_report.lines(fields))
    return fields


def _read(args: argparse.Namespace, directory: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        policy = policy_file.load(policy_file.find_policy(args.policy, environ)).policy
    except PolicyError as error:
        # 1 is a breach, and nothing was judged.
        raise CommandError(str(error), ExitCode.USAGE) from None
    clock = SystemClock()
    state = SloState(directory, clock)
    words = {"since": args.since} if args.since is not None else {}
    since_s, gates = read_window_s(words, clock.wall()), read_gates(args.gate)
    return slo_report.fields(report_of(state.read, policy.slo, clock, since_s, gates))


def _write(name: str, content: bytes) -> None:
    if name == "-":
        sys.stdout.buffer.write(content)
        return
    try:
        Path(name).write_bytes(content)
    except OSError as error:
        text = f"the report cannot be written to {name}: {explained(error, Path(name))}"
        raise CommandError(text, ExitCode.USAGE) from None


COMMAND: Final = Command(
    "slo",
    "whether the objectives hold, gate by gate",
    "Judge the policy's objectives by the kept records, of the running proxy or of its file. "
    "Exit 0: pass; 1: a breach; 2: wrong usage; 3: not enough data.",
    _command,
    (
        Argument("--gate", metavar="N", help="one gate, 0 to 4; default: all, and the targets"),
        Argument(
            "--since",
            type=local_time.zoned,
            metavar="TIME",
            help="look back so far, as 24h, in every objective",
        ),
        JSON,
        Argument("--junit", metavar="FILE", help="also as JUnit's XML into a file; -: to stdout"),
        Argument("--markdown", action="store_true", help="as Markdown"),
        STATE,
        Argument("--policy", type=Path, metavar="FILE", help="judge the file by another policy"),
    ),
    settings=("admin",),
    example=_EXAMPLES,
    verbs=(slo_review.COMMAND,),
)
