"""Every command of the command line, in the order in which help lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelsplit_proxy.cli import (
    baseline,
    budget,
    check,
    config_show,
    doctor,
    experiments,
    host,
    jobs,
    keys,
    print_files,
    requests,
    serve,
    simulate_command,
    slo,
    status,
    top_command,
)
from modelsplit_proxy.cli.command import Argument, Command, settings_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping


def _demo(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    # The stand-in would be two megabytes to a process that serves.
    from modelsplit_proxy.cli import demo  # noqa: PLC0415

    return demo.run(settings_of(args, environ), once=args.once)


_DEMO: Final = Command(
    "demo",
    "see it work without Ollama: a stand-in upstream and a little traffic",
    "Start a stand-in Ollama and the proxy in front of it, send a little mixed traffic, "
    "print each call as it happens, stay up for curl until Ctrl-C.",
    _demo,
    (Argument("--once", action="store_true", help="leave when the traffic is through"),),
    settings=("listen", "admin"),
    example="example: modelsplit demo --once",
)
COMMANDS: Final = (
    serve.COMMAND,
    _DEMO,
    status.COMMAND,
    top_command.COMMAND,
    requests.COMMAND,
    jobs.COMMAND,
    host.COMMAND,
    doctor.COMMAND,
    config_show.COMMAND,
    check.CHECK_CONFIG,
    check.ROUTE,
    simulate_command.COMMAND,
    experiments.COMMAND,
    slo.COMMAND,
    baseline.COMMAND,
    keys.COMMAND,
    budget.COMMAND,
    print_files.PRINT_UNIT,
    print_files.PRINT_POLICY,
    print_files.COMPLETION,
)
