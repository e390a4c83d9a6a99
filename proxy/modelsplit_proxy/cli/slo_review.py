"""``modelsplit slo review``: a person says of some answers whether they were any good.

No answer is kept here. What is shown is which call it was: the reviewer reads the text in the
caller's own logs.
"""

from __future__ import annotations

import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.slo.reviews import Reviewable, sample
from modelsplit_policy.slo.samples import Opinion, Review
from modelsplit_proxy.cli import state_access
from modelsplit_proxy.cli.command import JSON, Argument, Command, settings_of
from modelsplit_proxy.cli.output import CommandError, ExitCode, show, show_lines, talk
from modelsplit_proxy.cli.slo_state import STATE, SloState, directory_of
from modelsplit_proxy.records import slo_store
from modelsplit_proxy.records.query import read_since
from modelsplit_proxy.records.reader import AmbiguousError, RecordReader
from modelsplit_proxy.runtime import local_time
from modelsplit_proxy.runtime.clock import SystemClock, rfc3339_us
from modelsplit_proxy.runtime.text_table import table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from modelsplit_proxy.runtime.clock import Clock

_COUNT: Final = 30
_COUNT_MAX: Final = 1_000
# The newest of this many are sampled from.
_LOOKED_AT: Final = 20_000
_EXECUTOR: Final = """
SELECT request_id, started_us, job_id, purpose, model FROM calls
WHERE started_us >= ? AND context = 'EXECUTOR' AND outcome = 'ok'
    AND (? IS NULL OR purpose = ?)
    AND request_id NOT IN (SELECT request_id FROM reviews)
ORDER BY started_us DESC LIMIT ?
"""
_LETTERS: Final = MappingProxyType(
    {letter: opinion for opinion in Opinion for letter in (opinion.value, opinion.value[0])}
)
_QUESTION: Final = "good, bad or hallucinated? [g/b/h, s to skip, q to leave] "
_EXAMPLES: Final = """\
examples:
  modelsplit slo review                               show thirty, ask for each
  modelsplit slo review --purpose failure_analysis --json
  modelsplit slo review --verdict 38e2f6f8=good --verdict 90ab12cd=hallucinated
"""


def _command(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if not 1 <= args.count <= _COUNT_MAX:
        raise CommandError(
            f"--count {args.count} is not between 1 and {_COUNT_MAX}", ExitCode.USAGE
        )
    verdicts = [_verdict(word) for word in args.verdict or ()]
    clock = SystemClock()
    since_us = read_since({"since": args.since}, clock.wall())
    state = SloState(directory_of(args, settings_of(args, environ)), clock)
    if verdicts:
        return _keep_named(state, clock, verdicts, as_json=args.json)
    asked = (since_us, args.purpose, args.purpose, _LOOKED_AT)
    calls = [Reviewable(*row) for row in state.read(_EXECUTOR, asked)]
    chosen = sample(calls, args.count)
    if not args.json and sys.stdin.isatty():
        return _ask(state, clock, chosen)
    show([_fields(call) for call in chosen], _lines(chosen), as_json=args.json)
    if not chosen:
        talk("no answered call of the context EXECUTOR waits for a review in this time")
    return ExitCode.OK


def _verdict(word: str) -> tuple[str, Opinion]:
    """``ID=good``. Raises CommandError."""
    request_id, equals, opinion = word.partition("=")
    if not equals or not request_id or opinion not in set(Opinion):
        known = ", ".join(Opinion)
        text = f'--verdict "{word[:60]}" is not ID=VERDICT; the verdicts are {known}'
        raise CommandError(text, ExitCode.USAGE)
    return request_id, Opinion(opinion)


def _keep_named(
    state: SloState, clock: Clock, verdicts: Sequence[tuple[str, Opinion]], *, as_json: bool
) -> int:
    """All of them or none: a mistyped id must not leave half of them unsaid."""
    reviews = [_review(state, request_id, opinion) for request_id, opinion in verdicts]
    _keep(state, clock, reviews)
    kept = [
        {"request_id": review.request_id, "verdict": str(review.opinion)} for review, _ in reviews
    ]
    show(kept, [f"{entry['request_id']}  {entry['verdict']}" for entry in kept], as_json=as_json)
    return ExitCode.OK


def _review(state: SloState, request_id: str, opinion: Opinion) -> tuple[Review, str | None]:
    """The review of one call and what the call was for."""
    try:
        fields = RecordReader(state.read).find(request_id)
    except AmbiguousError as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
    if fields is None:
        text = f'no call has the request id "{request_id[:128]}"'
        raise CommandError(text, ExitCode.USAGE)
    if fields["llm_context"] != "EXECUTOR":
        text = f"{fields['request_id']} is no call of the context EXECUTOR: it counts for no gate"
        raise CommandError(text, ExitCode.USAGE)
    whole_id = fields["request_id"]
    [(called_us, purpose)] = state.read(
        "SELECT started_us, purpose FROM calls WHERE request_id = ? ORDER BY id DESC LIMIT 1",
        (whole_id,),
    )
    return Review(whole_id, called_us, opinion), purpose


def _keep(state: SloState, clock: Clock, reviews: Sequence[tuple[Review, str | None]]) -> None:
    at_us = round(clock.wall() * 1e6)
    with state_access.writing(state.directory, clock) as db:
        for review, purpose in reviews:
            slo_store.keep_review(db, review, at_us, purpose)


def _ask(state: SloState, clock: Clock, chosen: Sequence[Reviewable]) -> int:
    """One after the other; each verdict is kept at once."""
    show_lines([f"{len(chosen)} calls; find each answer in the caller's own logs by its id", ""])
    for number, call in enumerate(chosen, 1):
        show_lines([f"{number}. {' '.join(_cells(call))}"])
        opinion = _answer()
        if opinion is None:
            break
        if isinstance(opinion, Opinion):
            review = Review(call.request_id, call.started_us, opinion)
            _keep(state, clock, [(review, call.purpose)])
    return ExitCode.OK


def _answer() -> Opinion | str | None:
    """A verdict, ``s`` for none, None to leave."""
    while True:
        sys.stderr.write(_QUESTION)
        sys.stderr.flush()
        word = sys.stdin.readline()
        letter = word.strip().lower()
        if not word or letter == "q":
            return None
        if letter == "s":
            return letter
        if letter in _LETTERS:
            return _LETTERS[letter]


def _fields(call: Reviewable) -> dict[str, Any]:
    return {
        "request_id": call.request_id,
        "job_id": call.job_id,
        "started_at": rfc3339_us(call.started_us),
        "purpose": call.purpose,
        "llm_model": call.model,
    }


def _cells(call: Reviewable) -> tuple[str, ...]:
    when = rfc3339_us(call.started_us)[:19] + "Z"
    job = f"job {call.job_id}" if call.job_id is not None else "no job"
    return when, call.request_id, job, call.purpose or "no purpose", call.model or ""


def _lines(chosen: Sequence[Reviewable]) -> Iterator[str]:
    if chosen:
        yield from table([_cells(call) for call in chosen], "<<<<<")


COMMAND: Final = Command(
    "review",
    "judge answers of EXECUTOR calls by hand",
    "Show answered calls of the context EXECUTOR, as many of each purpose, that nobody has "
    "reviewed yet, and take a verdict for each. No text of them is kept: read it in the "
    "caller's own logs. Exit 0: done; 2: wrong usage, no such call; 3: no state file.",
    _command,
    (
        Argument(
            "--since",
            type=local_time.zoned,
            metavar="TIME",
            default="7d",
            help="calls that came since (default 7d)",
        ),
        Argument("--count", type=int, metavar="N", default=_COUNT, help="how many (default 30)"),
        Argument("--purpose", help="calls for this purpose only"),
        Argument(
            "--verdict",
            action="append",
            metavar="ID=VERDICT",
            help="say it of one call and ask nothing: good, bad or hallucinated; repeatable",
        ),
        JSON,
        STATE,
    ),
    settings=("admin",),
    example=_EXAMPLES,
)
