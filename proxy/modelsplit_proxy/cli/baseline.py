"""``modelsplit baseline``: what objectives are compared with."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.quantity import in_digits
from modelsplit_policy.slo.baseline import TooLittleError, baseline_of
from modelsplit_policy.slo.samples import DOCUMENT_BASELINE, Baseline
from modelsplit_proxy.admin.slo import read_window_s
from modelsplit_proxy.cli import state_access
from modelsplit_proxy.cli.command import JSON, Argument, Command, settings_of
from modelsplit_proxy.cli.output import CommandError, ExitCode, show
from modelsplit_proxy.cli.slo_state import STATE, SloState, directory_of
from modelsplit_proxy.records import slo_store
from modelsplit_proxy.records.slo_data import SloData
from modelsplit_proxy.runtime import local_time
from modelsplit_proxy.runtime.clock import SystemClock, rfc3339_us
from modelsplit_proxy.runtime.disk_trouble import explained

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from modelsplit_proxy.config.settings import Settings

_EXAMPLES: Final = """\
examples:
  modelsplit baseline record --since 7d      what the last week was like
  modelsplit baseline import --timeouts 26 --planner-p95-ms 10000
  modelsplit baseline show --json > before.json
  modelsplit baseline import before.json     of another host
"""
_SOURCE_MAX: Final = 100
# Option, field, and what it says.
_NUMBERS: Final = (
    ("--timeouts", "timeouts", "planner calls with a timeout, in the window"),
    ("--timeouts-window-s", "timeouts_window_s", "that window in seconds (default 18000)"),
    ("--planner-p95-ms", "planner_p95_ms", "P95 of the planner's latency in milliseconds"),
    ("--jobs", "jobs", "jobs that ended"),
    ("--jobs-ok", "jobs_ok", "how many of them ended well"),
    ("--reviews", "reviews", "answers that were reviewed"),
    ("--hallucinated", "hallucinated", "how many of them were hallucinated"),
)
_WHOLE: Final = frozenset({"timeouts_window_s", "jobs", "jobs_ok", "reviews", "hallucinated"})
# A window of none and a latency of none are no baseline.
_LEAST: Final = MappingProxyType({"timeouts_window_s": 1, "planner_p95_ms": 1})
_MOST: Final = 1_000_000_000


def _show(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    state = _state(args, settings_of(args, environ))
    return _tell(SloData(state.read).baseline() or DOCUMENT_BASELINE, as_json=args.json)


def _record(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    clock = SystemClock()
    state = _state(args, settings_of(args, environ))
    now_us = round(clock.wall() * 1e6)
    since_s = read_window_s({"since": args.since}, clock.wall()) or 0
    since_us = now_us - since_s * 1_000_000
    begin, end = (f"{rfc3339_us(moment)[:16]}Z" for moment in (since_us, now_us))
    source = args.source or f"records of {begin} to {end}"
    samples = SloData(state.read).samples(since_us, now_us)
    try:
        baseline = baseline_of(samples, since_us, now_us, source[:_SOURCE_MAX])
    except TooLittleError as error:
        raise CommandError(f"not enough data: {error}", ExitCode.NOT_ENOUGH_DATA) from None
    return _keep(state, baseline, as_json=args.json)


def _import(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    typed = {
        field: value for _, field, _ in _NUMBERS if (value := getattr(args, field)) is not None
    }
    if (args.file is None) == (not typed):
        text = "give a FILE that `baseline show --json` wrote, or the numbers as flags"
        raise CommandError(text, ExitCode.USAGE)
    raw = typed if args.file is None else _from_file(args.file)
    if args.source is not None:
        raw = raw | {"source": args.source}
    baseline = _checked({"source": "typed in"} | raw)
    if not raw.keys() - {"source"}:
        raise CommandError(f"{args.file} has no number of a baseline in it", ExitCode.USAGE)
    return _keep(_state(args, settings_of(args, environ)), baseline, as_json=args.json)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        raw = orjson.loads(path.read_bytes())
    except OSError as error:
        text = f"{path} cannot be read: {explained(error, path)}"
        raise CommandError(text, ExitCode.USAGE) from None
    except orjson.JSONDecodeError as error:
        raise CommandError(f"{path} is not JSON: {error}", ExitCode.USAGE) from None
    if not isinstance(raw, dict):
        raise CommandError(f"{path} is no JSON object", ExitCode.USAGE)
    return raw


def _checked(raw: dict[str, Any]) -> Baseline:
    """What is left out is as shipped. Raises CommandError."""
    known = {field.name for field in dataclasses.fields(Baseline)}
    for name, value in raw.items():
        if name not in known:
            text = f'"{name[:40]}" is unknown here; use {", ".join(sorted(known))}'
            raise CommandError(text, ExitCode.USAGE)
        wrong = _wrong(name, value)
        if wrong is not None:
            text = f"{name} cannot be {str(value)[:40]!r}; give {wrong}"
            raise CommandError(text, ExitCode.USAGE)
    baseline = dataclasses.replace(DOCUMENT_BASELINE, **raw)
    for part, whole in (("jobs_ok", "jobs"), ("hallucinated", "reviews")):
        most = getattr(baseline, whole)
        if getattr(baseline, part) > most:
            text = f"{part} {getattr(baseline, part)} is more than {whole}, which is {most}"
            raise CommandError(text, ExitCode.USAGE)
    return baseline


def _wrong(name: str, value: object) -> str | None:
    """What such a field has to be; None: ``value`` is that."""
    if name == "source":
        is_text = isinstance(value, str) and 0 < len(value) <= _SOURCE_MAX and value.isprintable()
        return None if is_text else f"1 to {_SOURCE_MAX} characters in one line"
    is_whole, least = name in _WHOLE, _LEAST.get(name, 0)
    is_number = isinstance(value, int if is_whole else int | float) and not isinstance(value, bool)
    if is_number and math.isfinite(value) and least <= value <= _MOST:  # type: ignore[arg-type, operator]
        return None
    return f"a {'whole ' * is_whole}number from {least} to {_MOST}"


def _state(args: argparse.Namespace, settings: Settings) -> SloState:
    return SloState(directory_of(args, settings), SystemClock())


def _keep(state: SloState, baseline: Baseline, *, as_json: bool) -> int:
    clock = SystemClock()
    with state_access.writing(state.directory, clock) as db:
        slo_store.keep_baseline(db, baseline, round(clock.wall() * 1e6))
    return _tell(baseline, as_json=as_json)


def _tell(baseline: Baseline, *, as_json: bool) -> int:
    show(dataclasses.asdict(baseline), _lines(baseline), as_json=as_json)
    return ExitCode.OK


def _lines(baseline: Baseline) -> Iterator[str]:
    yield f"baseline      {baseline.source}"
    hours = baseline.timeouts_window_s / 3600
    yield f"timeouts      {in_digits(baseline.timeouts)} planner calls in {hours:g} h"
    yield f"planner P95   {baseline.planner_p95_ms / 1000:g} s"
    yield f"jobs          {_of(baseline.jobs_ok, baseline.jobs, 'ended well')}"
    yield f"reviews       {_of(baseline.hallucinated, baseline.reviews, 'hallucinated')}"


def _of(count: int, n: int, words: str) -> str:
    return f"{count} of {n} {words}" if n else "none to compare with"


_SOURCE: Final = Argument("--source", metavar="TEXT", help="where it is from, in words")
COMMAND: Final = Command(
    "baseline",
    "what objectives are compared with",
    "Keep what objectives that say of_baseline are compared with. Without one it is the mission "
    "document's. Exit 0: done; 2: wrong usage; 3: not enough data, or no state file.",
    example=_EXAMPLES,
    verbs=(
        Command(
            "record",
            "take it from a window of records",
            "Take the baseline from the records of a window that ends now.",
            _record,
            (
                Argument(
                    "--since",
                    type=local_time.zoned,
                    metavar="TIME",
                    default="7d",
                    help="from then on (default 7d)",
                ),
                _SOURCE,
                JSON,
                STATE,
            ),
            settings=("admin",),
            example="example: modelsplit baseline record --since 7d",
        ),
        Command(
            "show",
            "the baseline in force",
            "Show the baseline in force.",
            _show,
            (JSON, STATE),
            settings=("admin",),
            example="example: modelsplit baseline show --json > before.json",
        ),
        Command(
            "import",
            "type it in, or read it from a file",
            "Take the baseline from flags, or from a file that `show --json` wrote. What is left "
            "out is as in the shipped figures.",
            _import,
            (
                Argument("file", nargs="?", type=Path, metavar="FILE", help="of `show --json`"),
                *(
                    Argument(
                        option,
                        dest=field,
                        type=int if field in _WHOLE else float,
                        metavar="N",
                        help=text,
                    )
                    for option, field, text in _NUMBERS
                ),
                _SOURCE,
                JSON,
                STATE,
            ),
            settings=("admin",),
            example="example: modelsplit baseline import before.json",
        ),
    ),
)
