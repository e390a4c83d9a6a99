"""Whether a process grows: by the floor of what it holds, early and late in its run.

What a process holds goes up and down with the load. What leaks raises the least that it ever
holds. So the least of the last quarter of a run is compared with the least of its second
quarter; the first one is for warming up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modelsplit_policy.slo.heartbeat import Heartbeat

RUN_HOURS: Final = 6
"""A process that has run for less tells nothing."""
_HOUR_US: Final = 3_600_000_000


class Growth(NamedTuple):
    """``share``: by how much the floor grew, 0.1 for ten per cent; None: nothing is told.

    ``hours``: how long the last process has run within the window. ``n``: heartbeats of it.
    ``early``, ``late``: the least that it held then.
    """

    share: float | None
    hours: float
    n: int
    early: int = 0
    late: int = 0


def last_run(heartbeats: Sequence[Heartbeat]) -> list[Heartbeat]:
    """The heartbeats of the process that spoke last."""
    if not heartbeats:
        return []
    run = heartbeats[-1].run
    return [beat for beat in heartbeats if beat.run == run]


def growth(
    beats: Sequence[Heartbeat], read: Callable[[Heartbeat], int | None], slack: int
) -> Growth:
    """``beats``: of one process, by time. ``slack``: growth by so much is none."""
    if not beats:
        return Growth(None, 0.0, 0)
    begin, end = beats[0].at_us, beats[-1].at_us
    quarter_us = (end - begin) / 4
    early = _floor(beats, read, begin + quarter_us, begin + 2 * quarter_us)
    late = _floor(beats, read, begin + 3 * quarter_us, end)
    hours = (end - begin) / _HOUR_US
    if early is None or late is None or hours < RUN_HOURS:
        return Growth(None, hours, len(beats))
    share = max(0, late - early - slack) / max(1, early)
    return Growth(share, hours, len(beats), early, late)


def _floor(
    beats: Sequence[Heartbeat],
    read: Callable[[Heartbeat], int | None],
    since_us: float,
    until_us: float,
) -> int | None:
    values = (read(beat) for beat in beats if since_us <= beat.at_us <= until_us)
    return min((value for value in values if value is not None), default=None)
