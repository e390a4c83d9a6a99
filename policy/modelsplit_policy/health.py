"""How well the service is, and whom to turn away so that it stays well.

The theory. A handful of numbers tell trouble early: how late the event loop is, how full
and how slow the lines are, how many calls timed out lately. Each is compared with two
bands, degraded and critical; the worst signal wins and is named as the cause. Getting worse
counts at once. Getting better counts only when every signal has stayed better for
``hold_s``, and a signal is better only below a second, lower threshold: a guard that let
everybody back in at the first good moment would make the next bad one.

Two levels, one for showing and one for acting:

- ``level`` is what health pages, metrics and alerts show. All signals count.
- ``shedding`` is what turns calls away. Only signals that get better when fewer calls come in
  may count, and which of them do is the policy's choice: lines and timeouts, unless it says
  otherwise. A late event loop is shown: where the machine's CPUs are busy computing answers,
  each tick waits for its turn, and a call that waits in line costs the loop nothing.

No verdict from little: a P99 of a few samples is their maximum, so one hiccup after a start
would speak for all of them; and a short line is full, and its oldest late, with every call.

An upstream that is down, or a breaker that is open, is worth an alert but no reason to
shed. Such calls fail at once by themselves and hold no seat, so turning them away would
relieve nothing, and it would hide the truth: the client would read that the service is
overloaded where the answer is that Ollama is not running.

What shedding means is the table SHEDDING. It is applied at the door. Whoever stands in line
already stays there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.vocabulary import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from modelsplit_policy.config.model import BandPolicy, HealthPolicy


class Level(StrEnum):
    OK = "OK"
    DEGRADED = "DEGRADED"
    CRITICAL = "CRITICAL"


SEVERITY: Final = MappingProxyType({Level.OK: 0, Level.DEGRADED: 1, Level.CRITICAL: 2})


class Access(StrEnum):
    """How far a new call may come in."""

    LINE = "line"
    SEAT = "seat"
    NONE = "none"


# LINE: a free seat or a place in line; SEAT: a free seat only; NONE: turned away. Least
# first: what nobody waits for goes before what other work stands on. CLOUD uses no local
# seat and is rationed by its budget.
SHEDDING: Final = MappingProxyType(
    {
        (Level.OK, Role.PLANNER): Access.LINE,
        (Level.OK, Role.EXECUTOR): Access.LINE,
        (Level.OK, Role.HEAVY): Access.LINE,
        (Level.OK, Role.CLOUD): Access.LINE,
        (Level.OK, Role.CHAT): Access.LINE,
        (Level.DEGRADED, Role.PLANNER): Access.LINE,
        (Level.DEGRADED, Role.EXECUTOR): Access.LINE,
        (Level.DEGRADED, Role.HEAVY): Access.SEAT,
        (Level.DEGRADED, Role.CLOUD): Access.LINE,
        (Level.DEGRADED, Role.CHAT): Access.SEAT,
        (Level.CRITICAL, Role.PLANNER): Access.LINE,
        (Level.CRITICAL, Role.EXECUTOR): Access.SEAT,
        (Level.CRITICAL, Role.HEAVY): Access.NONE,
        (Level.CRITICAL, Role.CLOUD): Access.LINE,
        (Level.CRITICAL, Role.CHAT): Access.NONE,
    }
)


class Signal(StrEnum):
    """What is watched. Where two are equally bad, the one named first here is the cause."""

    UPSTREAM = "upstream"
    PROVIDER_BREAKER = "provider breaker"
    MODEL_BREAKERS = "model breakers"
    LAG = "event-loop lag"
    QUEUE = "queue pressure"
    TIMEOUTS = "timeouts"
    SILENCE = "seat without an answer"


# Those that say whether Ollama is there.
AWAY: Final = frozenset({Signal.UPSTREAM, Signal.PROVIDER_BREAKER})
# Those that may shed, by the word that the policy has for each.
MAY_SHED: Final = MappingProxyType(
    {
        "event_loop_lag": Signal.LAG,
        "queue_pressure": Signal.QUEUE,
        "timeouts": Signal.TIMEOUTS,
    }
)
# A line is never full with fewer calls than this.
_LINE_MIN: Final = 8


@dataclass(frozen=True, slots=True)
class Threshold:
    """A level is entered at ``enter`` or above and left at ``leave`` or below."""

    enter: float
    leave: float

    def __post_init__(self) -> None:
        if not self.leave < self.enter:
            raise ValueError(f"a level must be left below where it is entered: {self}")


@dataclass(frozen=True, slots=True)
class Band:
    """Where one signal turns bad, and where worse."""

    degraded: Threshold
    critical: Threshold

    def __post_init__(self) -> None:
        if self.critical.enter < self.degraded.enter or self.critical.leave < self.degraded.leave:
            raise ValueError(f"critical must lie above degraded: {self}")

    def level(self, value: float, was: Level) -> Level:
        """The level of ``value`` in a signal that stood at ``was``."""
        if _stands(self.critical, value, already=was is Level.CRITICAL):
            return Level.CRITICAL
        if _stands(self.degraded, value, already=was is not Level.OK):
            return Level.DEGRADED
        return Level.OK


def _stands(edge: Threshold, value: float, *, already: bool) -> bool:
    return value > edge.leave if already else value >= edge.enter


# Yes or no: a yes is critical.
_YES: Final = Band(Threshold(1, 0), Threshold(1, 0))


@dataclass(frozen=True, slots=True)
class HealthRules:
    """The thresholds, and how long better must last to count."""

    # Seconds, p99. Beside eight busy threads on two cores it is about 40 ms, and one stall of
    # a container's CPU quota is 100 ms: that is a busy host, not a late loop. At 250 ms streams
    # stutter, at a second every timer in the process is wrong by that much.
    lag: Band = Band(Threshold(0.250, 0.150), Threshold(1.0, 0.6))
    # How many samples the p99 needs to count: three of so many are above it.
    lag_samples: int = 300
    # Share, 0 to 1. At three quarters there is still room to act; at 0.95 the next burst is
    # refused with "queue full", whoever it is from.
    queue: Band = Band(Threshold(0.75, 0.50), Threshold(0.95, 0.75))
    # Calls in ``timeouts_window_s``. One or two slow answers happen every day; five in a
    # minute are what opens a breaker, and fifteen mean that seats turn over on timeouts alone.
    timeouts: Band = Band(Threshold(5, 3), Threshold(15, 10))
    # Models. One is an incident of that model; three of the handful a box can hold are the box.
    model_breakers: Band = Band(Threshold(1, 0), Threshold(3, 1))
    timeouts_window_s: float = 60.0
    # Seconds. A long prompt takes minutes to read on a slow machine; what takes ten holds a seat
    # that the others miss, and at fifteen it is given up.
    silence: Band = Band(Threshold(600, 540), Threshold(900, 840))
    sheds: frozenset[Signal] = frozenset({Signal.QUEUE, Signal.TIMEOUTS})
    # Longer than a line's usual wait cap, so that the calls that filled it are gone.
    hold_s: float = 10.0


def rules_of(policy: HealthPolicy) -> HealthRules:
    """The same in seconds."""
    return HealthRules(
        lag=_band(policy.event_loop_lag_ms, 1000),
        lag_samples=policy.lag_samples,
        queue=_band(policy.queue_pressure),
        timeouts=_band(policy.timeouts),
        model_breakers=_band(policy.model_breakers),
        timeouts_window_s=policy.timeouts_ms / 1000,
        sheds=frozenset(MAY_SHED[word] for word in policy.sheds),
        hold_s=policy.hold_ms / 1000,
    )


def _band(policy: BandPolicy, unit: float = 1) -> Band:
    return Band(
        Threshold(policy.degraded / unit, policy.degraded_until / unit),
        Threshold(policy.critical / unit, policy.critical_until / unit),
    )


@dataclass(frozen=True, slots=True)
class QueueState:
    """One local role's line as it stands. Waits in seconds; the oldest is 0 if nobody waits."""

    role: Role
    waiting: int
    max_queue: int
    oldest_wait_s: float
    max_wait_s: float

    @property
    def pressure(self) -> float:
        """0 to 1 and above: the smaller of how full the line is and how late its oldest is.

        Both must be high. A full line that moves is a burst, which is what lines are for;
        a single call that has waited its time is a busy model, and its wait cap ends it.
        """
        return min(
            _share(self.waiting, max(self.max_queue, _LINE_MIN)),
            _share(self.oldest_wait_s, self.max_wait_s),
        )

    def __str__(self) -> str:
        return (
            f"{self.role} {self.waiting}/{self.max_queue} waiting, "
            f"oldest {self.oldest_wait_s:.1f} of {self.max_wait_s:g} s"
        )


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Signals:
    """What was measured. Seconds and counts; ``upstream_up`` None: nobody knows yet.

    ``provider_open``: the local provider's own breaker does not let calls through;
    ``models_open``: how many models' breakers do not. ``timeouts`` are those of the last
    ``HealthRules.timeouts_window_s``, without those at a deadline that the client itself had
    shortened: one impatient client must not have the others turned away. ``silence_s``: for how
    long the oldest seat is held by a call whose answer has not begun.
    """

    lag_p99_s: float = 0.0
    upstream_up: bool | None = None
    provider_open: bool = False
    models_open: int = 0
    lines: tuple[QueueState, ...] = ()
    timeouts: int = 0
    silence_s: float = 0.0
    lag_samples: int = 0


@dataclass(frozen=True, slots=True)
class HealthTransition:
    """A change of the shown level, of the shedding level, or of both; to be logged.

    Where ``old`` equals ``new``, only ``shedding`` has changed, and ``cause`` is its cause.
    """

    old: Level
    new: Level
    cause: str
    now: float
    shedding: Level


@dataclass(frozen=True, slots=True)
class _Reading:
    """One signal's value, with what to say about it. ``show`` None: it has no number."""

    signal: Signal
    value: float
    band: Band
    said: str
    show: Callable[[float], str] | None = None

    def cause(self, level: Level) -> str:
        if self.show is None:
            return self.said
        edge = self.band.critical if level is Level.CRITICAL else self.band.degraded
        # Between the two thresholds it is the lower one that explains.
        bound = f"from {self.show(edge.enter)}"
        if self.value < edge.enter:
            bound = f"until {self.show(edge.leave)}"
        return f"{self.said} ({level} {bound})"


class Trouble(NamedTuple):
    """One signal that stands at a level other than OK. ``cause``: its value in words."""

    signal: Signal
    level: Level
    cause: str


class _Track:
    """A level that rises at once and falls when what held it is ``hold_s`` ago."""

    __slots__ = ("_hold_s", "_seen", "level", "trouble")

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s
        # When each level was last measured, and what it was due to then.
        self._seen: dict[Level, tuple[float, Trouble | None]] = {}
        self.level = Level.OK
        self.trouble: Trouble | None = None

    @property
    def cause(self) -> str:
        return "" if self.trouble is None else self.trouble.cause

    def settle(self, measured: Trouble | None, now: float) -> Level:
        """Take one measurement in; return the level there was before."""
        old = self.level
        self._seen[Level.OK if measured is None else measured.level] = (now, measured)
        self.trouble = self._held(now)
        self.level = Level.OK if self.trouble is None else self.trouble.level
        return old

    def _held(self, now: float) -> Trouble | None:
        for level in (Level.CRITICAL, Level.DEGRADED):
            if level in self._seen:
                at, trouble = self._seen[level]
                if now - at < self._hold_s or now == at:
                    return trouble
        return None


class HealthGuard:
    """The level of the whole, and who may come in at it."""

    def __init__(self, rules: HealthRules) -> None:
        self._rules = rules
        self._levels = dict.fromkeys(Signal, Level.OK)
        self._shown = _Track(rules.hold_s)
        self._acted = _Track(rules.hold_s)
        # The signals that stand badly by the last measurement, the worst first.
        self.troubles: tuple[Trouble, ...] = ()

    def __repr__(self) -> str:
        cause = f": {self.cause}" if self.cause else ""
        return f"<HealthGuard {self.level}, shedding {self.shedding}{cause}>"

    @property
    def level(self) -> Level:
        """The level to show."""
        return self._shown.level

    @property
    def cause(self) -> str:
        """What the shown level is due to, with its number; empty at OK."""
        return self._shown.cause

    @property
    def held(self) -> Trouble | None:
        """What the shown level is due to, where that is over and only not for long enough."""
        shown = self._shown.trouble
        return None if shown is None or shown in self.troubles else shown

    @property
    def is_away(self) -> bool:
        """Whether the shown level is due to that Ollama is not there, or was not until now."""
        trouble = self._shown.trouble
        return trouble is not None and trouble.signal in AWAY

    @property
    def shedding(self) -> Level:
        """The level to act on."""
        return self._acted.level

    @property
    def shedding_cause(self) -> str:
        """What the shedding level is due to, with its number; empty at OK."""
        return self._acted.cause

    def may_queue(self, role: Role) -> bool:
        """Whether a new call of ``role`` that finds no free seat may wait for one."""
        return SHEDDING[self.shedding, role] is Access.LINE

    def may_enter(self, role: Role) -> bool:
        """Whether a new call of ``role`` may take a free seat."""
        return SHEDDING[self.shedding, role] is not Access.NONE

    def update(self, signals: Signals, now: float) -> HealthTransition | None:
        """Take new measurements in; None: neither level has changed."""
        readings = tuple(_readings(signals, self._rules))
        for reading in readings:
            was = self._levels[reading.signal]
            self._levels[reading.signal] = reading.band.level(reading.value, was)
        causes = self._shown.cause, self._acted.cause
        self.troubles = self._troubles(readings)
        shown = self._shown.settle(next(iter(self.troubles), None), now)
        load = (trouble for trouble in self.troubles if trouble.signal in self._rules.sheds)
        acted = self._acted.settle(next(load, None), now)
        if shown is not self.level:
            cause = self._why(self._shown, shown, causes[0])
        elif acted is not self.shedding:
            cause = self._why(self._acted, acted, causes[1])
        else:
            return None
        return HealthTransition(shown, self.level, cause, now, self.shedding)

    def _troubles(self, readings: tuple[_Reading, ...]) -> tuple[Trouble, ...]:
        levels = ((reading, self._levels[reading.signal]) for reading in readings)
        troubles = [
            Trouble(reading.signal, level, reading.cause(level))
            for reading, level in levels
            if level is not Level.OK
        ]
        return tuple(sorted(troubles, key=lambda trouble: -SEVERITY[trouble.level]))

    def _why(self, track: _Track, old: Level, old_cause: str) -> str:
        """Rising: what is bad. Falling: what has passed, and what is still bad."""
        if SEVERITY[track.level] > SEVERITY[old]:
            return track.cause
        passed = f"better for {self._rules.hold_s:g} s, was: {old_cause}"
        return f"{passed}; still: {track.cause}" if track.cause else passed


def _readings(signals: Signals, rules: HealthRules) -> Iterator[_Reading]:
    """Every signal's value, in the order in which Signal names them."""
    down = signals.upstream_up is False
    yield _Reading(Signal.UPSTREAM, float(down), _YES, "the upstream is down")
    text = "the provider's breaker is open"
    yield _Reading(Signal.PROVIDER_BREAKER, float(signals.provider_open), _YES, text)
    text = f"breakers open for {_count(signals.models_open, 'model')}"
    yield _Reading(Signal.MODEL_BREAKERS, signals.models_open, rules.model_breakers, text, _plain)
    text = f"event-loop lag p99 {_ms(signals.lag_p99_s)}"
    # With too few samples it is not known.
    lag_s = signals.lag_p99_s if signals.lag_samples >= rules.lag_samples else 0.0
    yield _Reading(Signal.LAG, lag_s, rules.lag, text, _ms)
    line = max(signals.lines, key=lambda queue: queue.pressure, default=None)
    pressure = 0.0 if line is None else line.pressure
    text = f"queue pressure {_plain(pressure)}, {line}"
    yield _Reading(Signal.QUEUE, pressure, rules.queue, text, _plain)
    text = f"{_count(signals.timeouts, 'timeout')} in {rules.timeouts_window_s:g} s"
    yield _Reading(Signal.TIMEOUTS, signals.timeouts, rules.timeouts, text, _plain)
    text = f"a seat is held for {signals.silence_s:.0f} s by a call whose answer has not begun"
    yield _Reading(Signal.SILENCE, signals.silence_s, rules.silence, text, _seconds)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _seconds(seconds: float) -> str:
    return f"{seconds:g} s"


def _plain(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
