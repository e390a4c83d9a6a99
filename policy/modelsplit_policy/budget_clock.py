"""The time budgets are counted in: it never goes back and never runs ahead of what is certain.

People and NTP set the wall clock; a window measured by it opens early when the clock is put
forward, and opens twice when it is put back. So the wall clock is asked once, when a state
file begins. From then on budget time grows by what has passed:

- within one boot, by the clock that counts since the boot, suspended time included;
- from one boot to the next, by what the wall clock says has passed, but by no less than the
  time since the boot: that much has passed for certain;
- where the boot cannot be told apart from the one before (its identity may be hidden), by
  what has passed for certain either way. A machine that was off for long then opens its
  windows later than it could, never earlier.

A wall clock that was set while the machine was off cannot be told from time that passed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The machine's clocks at one moment. Seconds. ``boot``: which boot, None if hidden."""

    boot: str | None
    since_boot: float
    wall: float


@dataclass(frozen=True, slots=True)
class Anchor:
    """What the clocks read when it was ``budget_time``."""

    reading: ClockReading
    budget_time: float


def resume(anchor: Anchor | None, now: ClockReading) -> float:
    """Budget time at ``now``; without an anchor it begins, at the wall's time."""
    if anchor is None:
        return now.wall
    return anchor.budget_time + _passed(anchor.reading, now)


def drift_s(anchor: Anchor, now: ClockReading) -> float:
    """By how much the wall clock was set, either way, since the anchor of this same boot."""
    then = anchor.reading
    return abs((now.wall - then.wall) - (now.since_boot - then.since_boot))


def _passed(then: ClockReading, now: ClockReading) -> float:
    if then.boot is not None and then.boot == now.boot:
        return max(0.0, now.since_boot - then.since_boot)
    hidden = then.boot is None or now.boot is None
    if hidden and now.since_boot >= then.since_boot:
        return now.since_boot - then.since_boot
    return max(now.since_boot, now.wall - then.wall)
