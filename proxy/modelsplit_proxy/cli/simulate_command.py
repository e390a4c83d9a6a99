"""The arguments of ``modelsplit simulate``; what it does is in ``simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelsplit_proxy.cli.command import JSON, Argument, Command

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

SEEDS: Final = 10

_EXAMPLES: Final = """\
examples:
  modelsplit simulate --policy new.json --against shipped --workload mission
  modelsplit simulate --policy new.json --against current.json --last 24h
  modelsplit simulate --against direct:qwen3:4b --workload swap --seeds 5
"""


def _run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    # The simulation would be megabytes to every other command.
    from modelsplit_proxy.cli import simulate  # noqa: PLC0415

    return simulate.run(args, environ)


COMMAND: Final = Command(
    "simulate",
    "try a policy on recorded or made-up traffic, in virtual time",
    "Replay traffic against a policy in virtual time: the code that decides in the proxy decides "
    "here. Exit 0: replayed; 1: with --check, a gate breaks; 2: wrong usage, or an input that "
    "cannot be read.",
    _run,
    (
        Argument("--policy", type=Path, metavar="FILE", help="default: the file serve would use"),
        Argument(
            "--against",
            metavar="FILE",
            help="another policy, `shipped`, or no proxy: `direct`, `direct:MODEL` for all roles",
        ),
        Argument("--trace", type=Path, metavar="FILE", help="what `requests --export` wrote"),
        Argument("--last", metavar="TIME", help="the calls of the last 24h, of the running proxy"),
        Argument("--workload", metavar="NAME", help="a shipped one: docs/simulate.md"),
        Argument(
            "--azure",
            action="append",
            metavar="FILE=NAME",
            help="arrivals in the Azure LLM inference format; NAME: what they ask for; repeatable",
        ),
        Argument("--thin", type=int, default=1, metavar="N", help="of --azure every N-th arrival"),
        Argument("--seeds", type=int, default=SEEDS, help=f"runs of each (default {SEEDS})"),
        Argument("--host-model", metavar="FILE", help="the host's figures, or a shipped host"),
        Argument("--hosts", type=int, metavar="N", help="the policy on N such hosts, and as it is"),
        Argument("--load", type=float, default=1.0, help="so many times the workload's arrivals"),
        Argument(
            "--closed-loop",
            choices=("jobs", "clients", "none"),
            default="jobs",
            help="whose next call waits for the last one (default jobs)",
        ),
        Argument("--retries", type=int, help="how often a client's library tries again"),
        Argument(
            "--fit", action="store_true", help="print the host's figures that the records show"
        ),
        Argument("--capacity", action="store_true", help="find the load at which the goals hold"),
        Argument("--advise", action="store_true", help="search for a change that carries more"),
        Argument(
            "--keep",
            action="append",
            choices=("models", "host", "line"),
            help="with --advise: leave these as they are; repeatable",
        ),
        Argument("--budget", type=int, metavar="RUNS", help="with --advise: runs of the search"),
        Argument("--minutes", type=float, help="with --advise: the search ends after these"),
        Argument("--draw", type=int, default=1, metavar="N", help="with --advise: its own seed"),
        Argument("--write", type=Path, metavar="FILE", help="with --advise: the changed policy"),
        Argument("--check", action="store_true", help="exit 1 if a gate of the policy breaks"),
        Argument("--html", type=Path, metavar="FILE", help="write the report with plots, too"),
        JSON,
        Argument(
            "--state", type=Path, metavar="DIR", help="with --last: read the state file there"
        ),
    ),
    settings=("admin",),
    example=_EXAMPLES,
)
