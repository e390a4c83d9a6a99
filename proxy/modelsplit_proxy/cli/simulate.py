"""``modelsplit simulate``: replay traffic against a policy in virtual time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.config.problems import PolicyError
from modelsplit_proxy.cli import (
    simulate_advice,
    simulate_capacity,
    simulate_page,
    simulate_text,
)
from modelsplit_proxy.cli.output import CommandError, ExitCode, show, show_json, talk
from modelsplit_proxy.cli.simulate_inputs import check, recorded, task_of
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.runtime.disk_trouble import explained
from modelsplit_sim import shipped
from modelsplit_sim.host_file import host_fields
from modelsplit_sim.replay.advise import RUNS, Limits
from modelsplit_sim.replay.fit import fit
from modelsplit_sim.replay.gates import breached
from modelsplit_sim.replay.recorded import TraceError
from modelsplit_sim.replay.report import Report
from modelsplit_sim.replay.run import play

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from modelsplit_proxy.cli.simulate_inputs import Task
    from modelsplit_sim.replay.traffic import Coverage

# Below these a replay says little, and says so first.
_FEW_CALLS: Final = 200
_SHORT_S: Final = 3600.0


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Do what the flags say; the exit code. CommandError: the input is none."""
    try:
        check(args)
        return _way(args)(args, environ)
    except (TraceError, PolicyError, shipped.UnknownNameError) as error:
        raise CommandError(str(error), ExitCode.USAGE) from None


def _way(args: argparse.Namespace) -> Callable[[argparse.Namespace, Mapping[str, str]], int]:
    if args.fit:
        return _fit
    if args.capacity:
        return _capacity
    return _advise if args.advise else _replay


def _capacity(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    report = simulate_capacity.measure(task_of(args, environ), _tell)
    _end_of_line()
    show(report, simulate_capacity.lines(report), as_json=args.json)
    return ExitCode.OK


def _advise(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    task = task_of(args, environ)
    document = policy_file.document(policy_file.find_policy(args.policy, environ))
    clock = SystemClock()
    began = clock.now()
    ends = None if args.minutes is None else began + 60 * args.minutes
    limits = Limits(
        RUNS if args.budget is None else args.budget,
        tuple(args.keep or ()),
        task.seeds,
        expired=lambda: ends is not None and clock.now() > ends,
    )
    report = simulate_advice.advise(task, document, limits, args.draw, _tell)
    report["seconds"] = round(clock.now() - began, 1)
    _end_of_line()
    written = None
    if args.write is not None and report["is_better"] and report["file"] is not None:
        written = str(args.write)
        _write(args.write, simulate_advice.file_bytes(report["file"]))
    show(report, simulate_advice.lines(report, written), as_json=args.json)
    return ExitCode.OK


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        text = f"{path} cannot be written: {explained(error, path)}"
        raise CommandError(text, ExitCode.USAGE) from None


def _tell(text: str) -> None:
    """How far it is, in one line, to whoever watches a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _end_of_line() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")


def _replay(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    report = simulate(task_of(args, environ), progress=sys.stderr.isatty())
    if args.html is not None:
        _write(args.html, simulate_page.page(report).encode())
    show(report, simulate_text.lines(report), as_json=args.json)
    failed = breached(report["policies"][-1]["gates"]) if args.check else []
    return ExitCode.FAILED if failed else ExitCode.OK


def _fit(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """The host's figures go to stdout, as a file for --host-model; what to know of them is said."""
    found = fit(recorded(args, environ))
    host = host_fields(found.shape)
    figures = [figure._asdict() for figure in found.figures]
    if args.json:
        fields = {"host": host, "figures": figures, "warnings": found.warnings}
        errors = {"error_p50": found.error_p50, "error_p90": found.error_p90}
        show_json(fields | {"calls": found.calls} | errors)
        return ExitCode.OK
    show_json(host)
    for line in simulate_text.fit_lines(figures, found.warnings):
        talk(line)
    talk(
        f"of {found.calls} calls it misses the time of half by less than "
        f"{100 * found.error_p50:.1f} %, of nine in ten by less than {100 * found.error_p90:.1f} %"
    )
    return ExitCode.OK


def simulate(task: Task, *, progress: bool = False) -> dict[str, Any]:
    """Run every seed of every contender; the report as plain values."""
    report = Report(task.contenders)
    coverage: Coverage | None = None
    for seed in range(1, task.seeds + 1):
        traffic, coverage = task.source.drawn(seed)
        for contender in task.contenders:
            tell = _teller(f"seed {seed} of {task.seeds}, {contender.name}") if progress else None
            report.add(contender, play(contender, task.host, traffic, seed, tell))
    if progress:
        sys.stderr.write("\r\x1b[K")
    assert coverage is not None
    return {
        "warnings": [*_warnings(coverage), *task.warnings],
        **report.fields(),
        "host": task.host.name,
        "drift": task.host.drift,
        "coverage": coverage.fields(),
    }


def _teller(what: str) -> Callable[[float], None]:
    def tell(now: float) -> None:
        sys.stderr.write(f"\r\x1b[K{what}: {now / 3600:.1f} h")
        sys.stderr.flush()

    tell(0.0)
    return tell


def _warnings(coverage: Coverage) -> Iterator[str]:
    short = []
    if coverage.calls < _FEW_CALLS:
        short.append(f"{coverage.calls} calls, fewer than {_FEW_CALLS}")
    if coverage.seconds < _SHORT_S:
        short.append(f"{coverage.seconds / 60:.0f} minutes, less than an hour")
    if short:
        yield f"little was replayed ({'; '.join(short)}): read the figures as a hint"
    for role, count in coverage.unanswered.items():
        yield (
            f"{count} calls of {role} are left out, and so is what they would have cost: none was "
            "answered, so nobody knows how long its answers are"
        )
