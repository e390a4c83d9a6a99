"""Whether the process was there, minute by minute, by its heartbeats.

A minute counts as present if there is a heartbeat in it. What is missing between the last
heartbeat of a process that drained and the first one of the next is a restart in good order
and set apart, if it was short; anything else that is missing was downtime, up to now. What
was before the first heartbeat is not known and not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelsplit_policy.slo.heartbeat import Heartbeat

MINUTE_US: Final = 60_000_000
RESTART_MINUTES: Final = 10
"""A stop in good order that lasts longer is no restart."""


@dataclass(frozen=True, slots=True)
class Uptime:
    """Minutes: with a heartbeat; without one; without one, in a restart in good order.

    ``down_at_us``: when each stretch of downtime began, the longest first.
    """

    present: int
    missing: int
    apart: int
    down_at_us: tuple[int, ...] = ()


def uptime(heartbeats: Sequence[Heartbeat], since_us: int, now_us: int) -> Uptime:
    """``heartbeats``: by time. The minute of ``now_us`` is not over and does not count."""
    last_minute = now_us // MINUTE_US
    first_minute = -(-since_us // MINUTE_US)
    beats = {
        beat.at_us // MINUTE_US: beat
        for beat in heartbeats
        if first_minute <= beat.at_us // MINUTE_US < last_minute
    }
    if not beats:
        return Uptime(0, 0, 0)
    gaps: list[tuple[int, int]] = []
    apart = 0
    for minute, following in pairwise((*sorted(beats), last_minute)):
        gap = following - minute - 1
        # A gap that lasts until now is no restart: nobody is back yet.
        restart = beats[minute].drained and gap <= RESTART_MINUTES
        if gap and restart:
            apart += gap
        elif gap:
            gaps.append((gap, minute + 1))
    down_at = tuple(minute * MINUTE_US for _, minute in sorted(gaps, reverse=True))
    return Uptime(len(beats), sum(gap for gap, _ in gaps), apart, down_at)
