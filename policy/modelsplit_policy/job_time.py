"""Where the time of a job went: spans of its calls and tools in, parts that add up out.

Spans overlap where a client does several things at once. Each moment is counted once, for what
does most for the job then: work before waiting, and what nobody accounts for is the rest.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Part(StrEnum):
    """What a moment of a job is spent on; of several at once the first of these counts."""

    LLM = "llm"
    TOOLS = "tools"
    LOAD = "load"
    UPSTREAM_WAIT = "upstream_wait"
    QUEUE = "queue"
    REST = "rest"


class Span(NamedTuple):
    """Something that took from one moment to another. Microseconds, from any zero."""

    part: Part
    began_us: int
    ended_us: int


def attempt_spans(
    asked_us: int | None,
    seated_us: int | None,
    dispatched_us: int | None,
    ended_us: int,
    *,
    load_us: int | None,
    upstream_wait_us: int | None,
) -> Iterator[Span]:
    """One attempt of a call, in the order in which things happen: line, wait, load, answer.

    None: that moment never came; of a duration: unknown, and part of the answer.
    """
    if asked_us is not None:
        seated = ended_us if seated_us is None else min(seated_us, ended_us)
        yield Span(Part.QUEUE, asked_us, seated)
    if dispatched_us is None:
        return
    moment = dispatched_us
    for part, took_us in ((Part.UPSTREAM_WAIT, upstream_wait_us), (Part.LOAD, load_us)):
        if took_us:
            until = min(ended_us, moment + took_us)
            yield Span(part, moment, until)
            moment = until
    yield Span(Part.LLM, moment, ended_us)


def parts(began_us: int, ended_us: int, spans: Iterable[Span]) -> dict[Part, int]:
    """How long each part took, microseconds; together as long as the job."""
    out = dict.fromkeys(Part, 0)
    for part, since_us, until_us in timeline(began_us, ended_us, spans):
        out[part] += until_us - since_us
    return out


def timeline(began_us: int, ended_us: int, spans: Iterable[Span]) -> Iterator[Span]:
    """The job from its beginning to its end without a gap, each moment in one span."""
    changes: list[tuple[int, Part, int]] = []
    for part, since_us, until_us in spans:
        since, until = max(since_us, began_us), min(until_us, ended_us)
        if since < until:
            changes += ((since, part, 1), (until, part, -1))
    changes += ((began_us, Part.REST, 0), (max(began_us, ended_us), Part.REST, 0))
    changes.sort()
    active = dict.fromkeys(Part, 0)
    for (moment, part, step), (following, _, _) in pairwise(changes):
        active[part] += step
        if moment < following:
            yield Span(next((p for p in Part if active[p]), Part.REST), moment, following)


def gaps(began_us: int, ended_us: int, busy: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """When nothing of the job ran. ``busy``: beginning and end of its calls and tools."""
    out: list[tuple[int, int]] = []
    idle_since = began_us
    for since_us, until_us in (*sorted(busy), (ended_us, ended_us)):
        until = min(since_us, ended_us)
        if idle_since < until:
            out.append((idle_since, until))
        idle_since = max(idle_since, until_us)
    return out
