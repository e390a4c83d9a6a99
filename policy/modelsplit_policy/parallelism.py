"""How many calls at once are worth running. Learned, because Ollama does not say.

Two different things make one more call at once useless:

*Slots.* Ollama runs NUM_PARALLEL calls of one model at once; one more waits inside Ollama,
where nobody orders or measures it. A finished call shows that it waited there: its total
time is more than loading, reading the prompt and writing the answer took. A call sent
beside k others of its model that shows no such wait proves k + 1 slots; one that does
shows that there are no more than k.

*Compute.* Calls that do run share the machine. A call alone needs a seconds a token; with n
at once it needs y. Say y = a (1 + c (n - 1)): c = 0 is a machine with room for all, c = 1
one where n calls run at an n-th of the speed each. That is a straight line over n - 1, so
the slope and the start of the line through what finished calls show give c, also when no
call ever ran alone. a is each model's own; c is one number for the machine, because
different models run on the same silicon. The machine's output with n at once is
T(n) = n / (1 + c (n - 1)), and the n-th call adds T(n) - T(n - 1) of a call's worth. It is
worth running while it adds at least ``WORTH``; below that it only slows the others down.

Both start from one call at a time and grow by probes: now and then one call more than is
known to be useful is let through, and what it shows moves the estimate. A probe that
shows nothing new makes the next one rarer. Neither number ever falls below one, and a
number given in the policy is not learned but obeyed.

Pure: told what happened and when, asked what may run. Times are monotonic seconds.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

# What the n-th call at once must add, in calls' worth of output. A third: below it, each
# of two calls would run at less than two thirds of its speed alone.
WORTH: Final = 0.33
# A number already in use is kept until it is clearly not worth it.
WORTH_TO_KEEP: Final = 0.25
# A wait inside Ollama is a wait: longer than scheduling noise and than a tenth of the work.
HIDDEN_MIN_S: Final = 0.1
HIDDEN_SHARE: Final = 0.1
# Fewer tokens than these say nothing about speed.
MIN_TOKENS: Final = 8
# Finished calls between two probes: at first, and at most.
PROBE_EVERY: Final = 3
PROBE_RAREST: Final = 24
# What a sample still weighs after the next one: about the last twenty count.
MEMORY: Final = 0.95
# A slot may come free in the moment a call arrives. So many in a row are no luck.
CONTRARY: Final = 3
# How widely n must vary, and over how many samples, before a line through them means much.
SPREAD: Final = 0.04
MIN_SAMPLES: Final = 3
# A sample is not used if calls that may not have been running overlap it by more than this.
DOUBT_SHARE: Final = 0.15
# Changes of the number of running calls that are remembered.
_HISTORY: Final = 1024
_MAX_MODELS: Final = 256


class Report(NamedTuple):
    """What a finished call says of itself. Seconds; None where it is silent.

    ``total_s`` spans loading, waiting, prompt and answer, as the upstream measured it.
    """

    tokens: int | None = None
    eval_s: float | None = None
    prompt_s: float | None = None
    load_s: float | None = None
    total_s: float | None = None


@dataclass(slots=True, eq=False)
class Flight:
    """One running call, begun at ``began``. ``beside``: calls of its model under way then.

    Calls that end or begin in nearly the same moment tell less, and which of two the
    upstream sees first nobody knows. ``lasting``: of those beside it, how many ran on for as
    long as a wait must last to be seen; ``around``: those beside it, and those that began
    within that time.

    ``warm``: its model was certainly loaded then. ``loading``: it was certainly not, so
    until its first byte the call may be waiting for that.
    """

    model: str
    slots: _Slots
    began: float
    beside: int
    lasting: int
    around: int
    probe: bool
    warm: bool
    loading: bool


class Fit:
    """A straight line y = start + slope x through samples, the older the lighter."""

    __slots__ = ("_w", "_x", "_xx", "_xy", "_y", "samples")

    def __init__(self) -> None:
        self.samples = 0
        self._w = self._x = self._y = self._xx = self._xy = 0.0

    def add(self, x: float, y: float) -> None:
        self.samples += 1
        self._w = self._w * MEMORY + 1
        self._x = self._x * MEMORY + x
        self._y = self._y * MEMORY + y
        self._xx = self._xx * MEMORY + x * x
        self._xy = self._xy * MEMORY + x * y

    @property
    def spread(self) -> float:
        """The weighted variance of x: how much the line can be believed."""
        return self._xx / self._w - (self._x / self._w) ** 2 if self._w else 0.0

    def relative_slope(self) -> float | None:
        """Slope over start, within 0 and 4; None while the samples say too little."""
        if self.samples < MIN_SAMPLES or self.spread < SPREAD:
            return None
        mean_x, mean_y = self._x / self._w, self._y / self._w
        slope = (self._xy / self._w - mean_x * mean_y) / self.spread
        start = mean_y - slope * mean_x
        # A start at or below zero is noise around "as slow as can be".
        return 4.0 if start <= slope / 4 else max(0.0, slope / start)


class Pace:
    """How often to probe: rarer while probes show nothing new."""

    __slots__ = ("_every", "_since")

    def __init__(self) -> None:
        self._every = PROBE_EVERY
        self._since = 0

    def count(self) -> None:
        self._since += 1

    @property
    def due(self) -> bool:
        return self._since >= self._every

    def probed(self, *, moved: bool) -> None:
        self._since = 0
        self._every = PROBE_EVERY if moved else min(PROBE_RAREST, self._every * 2)

    def soon(self) -> None:
        self._every = PROBE_EVERY


class _Slots:
    """What is known of one model, and how many of its calls run.

    ``computing``: calls that certainly compute, no more than there are slots known.
    ``in_doubt``: calls of which nobody can tell: loading, or in slots that may or may not
    exist. Both follow from the rest, through ``Parallelism._recount``.
    """

    __slots__ = (
        "computing",
        "contrary",
        "in_doubt",
        "known",
        "loading",
        "most",
        "pace",
        "ready",
        "slowness",
    )

    def __init__(self, known: int) -> None:
        self.known = known
        # Where a wait inside has been seen: surely no more slots than this.
        self.most: int | None = None
        # Calls in a row that were sent beside so many and did not wait after all.
        self.contrary = 0
        self.ready = 0
        self.loading = 0
        self.computing = 0
        self.in_doubt = 0
        self.pace = Pace()
        self.slowness = Fit()

    @property
    def running(self) -> int:
        return self.ready + self.loading


class History:
    """How many calls computed, and how many were in doubt, over the recent past.

    Areas under both curves, noted at each change: the mean over any span is then two
    look-ups and a subtraction, however much happened in it.
    """

    def __init__(self) -> None:
        self._times: list[float] = []
        self._areas: list[tuple[float, float]] = []
        self.computing = 0
        self.doubt = 0

    def mark(self, now: float, computing: int, doubt: int) -> None:
        """From ``now`` on so many more (or fewer) compute, and so many more are in doubt."""
        computed = doubted = 0.0
        if self._times:
            elapsed = now - self._times[-1]
            computed, doubted = self._areas[-1]
            computed += self.computing * elapsed
            doubted += self.doubt * elapsed
        self._times.append(now)
        self._areas.append((computed, doubted))
        self.computing += computing
        self.doubt += doubt
        if len(self._times) > _HISTORY:
            del self._times[: _HISTORY // 2]
            del self._areas[: _HISTORY // 2]

    def mean(self, since: float, until: float) -> tuple[float, float]:
        """Mean calls computing and mean calls in doubt between two moments."""
        since = max(since, self._times[0]) if self._times else until
        if until <= since:
            return 0.0, 1.0
        before, after = self._area(since), self._area(until)
        span = until - since
        return (after[0] - before[0]) / span, (after[1] - before[1]) / span

    def _area(self, at: float) -> tuple[float, float]:
        """Both areas from the beginning of the record to ``at``."""
        index = bisect_right(self._times, at) - 1
        if index < 0:
            return 0.0, 0.0
        time, (computed, doubted) = self._times[index], self._areas[index]
        if index + 1 == len(self._times):
            elapsed = at - time
            return computed + self.computing * elapsed, doubted + self.doubt * elapsed
        share = (at - time) / (self._times[index + 1] - time)
        later = self._areas[index + 1]
        return (
            computed + share * (later[0] - computed),
            doubted + share * (later[1] - doubted),
        )


class Parallelism:
    """The estimates, and who is running."""

    def __init__(self, cap: int, host: int | None, models: Mapping[str, int]) -> None:
        """``cap``: never learn beyond this. ``host`` and ``models``: given, not learned."""
        self._cap = cap
        self._given_host = host
        self._given_models = dict(models)
        self._models: dict[str, _Slots] = {}
        self._contention = 1.0
        self._host = host if host is not None else 1
        self._pace = Pace()
        self._probes = 0
        # In the order in which they began.
        self._flights: dict[Flight, None] = {}
        self._history = History()

    def __repr__(self) -> str:
        slots = ", ".join(f"{name} {s.running}/{s.known}" for name, s in self._models.items())
        return (
            f"<Parallelism host {len(self._flights)}/{self._host} "
            f"contention {self._contention:.2f} ({slots})>"
        )

    @property
    def host(self) -> int:
        """How many calls at once are worth running on the machine."""
        return self._host

    @property
    def contention(self) -> float:
        """c, as far as it is known; 1 at first."""
        return self._contention

    def slots(self, model: str) -> int:
        """How many calls at once this model is known to take."""
        known = self._models.get(model)
        return self._given_models.get(model, 1) if known is None else known.known

    def known_models(self) -> dict[str, int]:
        return {name: slots.known for name, slots in self._models.items()}

    @property
    def is_full(self) -> bool:
        """True if no call of any model fits."""
        return len(self._flights) >= self._host

    @property
    def probes_any(self) -> bool:
        """True if a probe of some model may be due."""
        return not self._probes and (not self.is_full or self._host_probe_due())

    def fits(self, model: str) -> bool:
        """True if one more call of ``model`` stays within what is known to be useful."""
        if len(self._flights) >= self._host:
            return False
        slots = self._models.get(model)
        return slots is None or slots.running < slots.known

    def may_probe(self, model: str) -> bool:
        """True if one call more than known is due, to see what it shows."""
        if self._probes:
            return False
        over_host = len(self._flights) >= self._host
        over_slots = self._running(model) >= self.slots(model)
        return (not over_host or self._host_probe_due()) and (
            not over_slots or self._slots_probe_due(model)
        )

    def start(self, model: str, now: float, *, resident: bool | None) -> Flight:
        """A call begins. ``resident``: its model is loaded; None: nobody knows."""
        slots = self._slots_of(model)
        running = slots.running
        probe = self.is_full or running >= slots.known
        flight = Flight(
            model,
            slots,
            now,
            beside=running,
            lasting=running,
            around=running,
            probe=probe,
            warm=resident is True,
            loading=resident is False,
        )
        for other in reversed(self._flights):
            if now - other.began >= HIDDEN_MIN_S:
                break
            if other.slots is slots and other.around < running:
                other.around = running
        self._probes += probe
        self._flights[flight] = None
        self._count(flight, 1, now)
        return flight

    def first_byte(self, flight: Flight, now: float) -> None:
        """The call's first byte has come: whatever it waited for is over."""
        if flight.loading and flight in self._flights:
            self._count(flight, -1, now)
            flight.loading = False
            self._count(flight, 1, now)

    def end(self, flight: Flight, now: float, held_s: float, report: Report | None) -> None:
        """A call ends after ``held_s`` seconds.

        ``report`` None: it says nothing (it failed, or its client left).
        """
        if flight not in self._flights:
            return
        before = self._host, flight.slots.known
        if report is not None:
            self._learn_slots(flight, now, report)
            self._learn_contention(flight, now, held_s, report)
        self._forget(flight, now)
        self._count(flight, -1, now)
        self._paced(flight, before)
        if len(self._models) > _MAX_MODELS:
            self._forget_idle()

    def _forget(self, flight: Flight, now: float) -> None:
        """The call is over; those that had just begun beside it are no longer."""
        for other in reversed(self._flights):
            if other is flight or now - other.began >= HIDDEN_MIN_S:
                break
            if other.slots is flight.slots:
                other.lasting -= 1
        del self._flights[flight]

    # Slots.

    def _learn_slots(self, flight: Flight, now: float, report: Report) -> None:
        if flight.model in self._given_models:
            return
        waited = _hidden_wait(report, warm=flight.warm)
        if waited is None:
            return
        slots = flight.slots
        before = slots.known, slots.most
        self._revise(slots, flight, waited=waited)
        if (slots.known, slots.most) != before:
            self._recount(slots, now)

    def _revise(self, slots: _Slots, flight: Flight, *, waited: bool) -> None:
        if waited:
            # Alone, it can have waited for anything but a slot.
            if flight.around:
                most = slots.most if slots.most is not None else flight.around
                slots.most = min(most, flight.around)
                slots.known = min(slots.known, slots.most)
                slots.contrary = 0
        elif slots.most is None or flight.beside < slots.most or self._contradicts(slots, flight):
            slots.known = max(slots.known, min(self._cap, flight.beside + 1))

    def _contradicts(self, slots: _Slots, flight: Flight) -> bool:
        """A call beside as many as there are slots did not wait: luck, until it repeats."""
        if slots.most is None or flight.lasting < slots.most:
            return False
        slots.contrary += 1
        if slots.contrary < CONTRARY:
            return False
        slots.most, slots.contrary = None, 0
        return True

    def _slots_probe_due(self, model: str) -> bool:
        slots = self._slots_of(model)
        given = model in self._given_models
        return not given and slots.known < self._cap and slots.pace.due

    # Compute.

    def _learn_contention(self, flight: Flight, now: float, held_s: float, report: Report) -> None:
        sample = _slowness(report, held_s)
        if sample is None:
            return
        seconds_per_token, span_s = sample
        at_once, doubt = self._history.mean(now - span_s, now)
        if doubt > DOUBT_SHARE or at_once < 1 - DOUBT_SHARE:
            return
        flight.slots.slowness.add(at_once - 1, seconds_per_token)
        self._choose_contention()
        self._choose_host()

    def _choose_contention(self) -> None:
        """Each model's line says c; the further its samples spread, the more it counts."""
        total = weight = 0.0
        for slots in self._models.values():
            slope = slots.slowness.relative_slope()
            if slope is not None:
                total += slope * slots.slowness.spread
                weight += slots.slowness.spread
        if weight:
            self._contention = total / weight

    def _choose_host(self) -> None:
        if self._given_host is not None:
            return
        c = self._contention
        chosen = 1
        for n in range(2, self._cap + 1):
            needed = WORTH_TO_KEEP if n <= self._host else WORTH
            if _adds(n, c) < needed:
                break
            chosen = n
        self._host = chosen

    def _host_probe_due(self) -> bool:
        return self._given_host is None and self._host < self._cap and self._pace.due

    # Probes.

    def _paced(self, flight: Flight, before: tuple[int, int]) -> None:
        slots = flight.slots
        self._pace.count()
        slots.pace.count()
        moved_host, moved_slots = self._host != before[0], slots.known != before[1]
        if moved_host:
            self._pace.soon()
        if flight.probe:
            self._probes -= 1
            # What contradicts is looked at again soon.
            news = moved_slots or slots.contrary > 0
            self._pace.probed(moved=moved_host or news)
            slots.pace.probed(moved=news)

    # Who runs, and who ran when.

    def _count(self, flight: Flight, change: int, now: float) -> None:
        """One call of the flight's kind more or fewer, from now on."""
        slots = flight.slots
        if flight.loading:
            slots.loading += change
        else:
            slots.ready += change
        self._recount(slots, now)

    def _recount(self, slots: _Slots, now: float) -> None:
        """A model's calls have changed, or what is known of its slots: so has the history."""
        computing = min(slots.known, slots.ready)
        in_doubt = slots.loading
        if slots.known != slots.most:
            in_doubt += slots.ready - computing
        self._history.mark(now, computing - slots.computing, in_doubt - slots.in_doubt)
        slots.computing, slots.in_doubt = computing, in_doubt

    def _running(self, model: str) -> int:
        known = self._models.get(model)
        return 0 if known is None else known.running

    def _slots_of(self, model: str) -> _Slots:
        slots = self._models.get(model)
        if slots is None:
            slots = self._models[model] = _Slots(self._given_models.get(model, 1))
        return slots

    def _forget_idle(self) -> None:
        """Clients choose model names: what is remembered of them is bounded."""
        idle = next((name for name, s in self._models.items() if not s.running), None)
        if idle is not None:
            del self._models[idle]


def _hidden_wait(report: Report, *, warm: bool) -> bool | None:
    """Did the call wait inside the upstream? None: it does not say enough to tell.

    A model that was loaded needs no loading: whatever is called so was waiting too.
    """
    if report.total_s is None or report.eval_s is None or report.prompt_s is None:
        return None
    work_s = report.eval_s + report.prompt_s
    load_s = 0.0 if warm else report.load_s or 0.0
    hidden_s = report.total_s - load_s - work_s
    return hidden_s > max(HIDDEN_MIN_S, HIDDEN_SHARE * work_s)


def _slowness(report: Report, held_s: float) -> tuple[float, float] | None:
    """Seconds a token and the seconds all of them took, at the end of the call's life.

    Without durations of its own (the OpenAI and Anthropic dialects give none) the call's
    whole time stands in for them: coarser, and it lets a wait inside the upstream show as
    contention, which is the same advice: do not send more.
    """
    if report.tokens is None or report.tokens < MIN_TOKENS:
        return None
    span_s = report.eval_s if report.eval_s is not None else held_s
    return (span_s / report.tokens, span_s) if span_s > 0 else None


def _output(n: int, c: float) -> float:
    return n / (1 + c * (n - 1))


def _adds(n: int, c: float) -> float:
    """What the n-th call at once adds to the machine's output, in calls' worth."""
    return _output(n, c) - _output(n - 1, c)
