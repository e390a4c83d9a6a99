"""How many calls at once are worth running. Learned, because Ollama does not say.

Two different things make one more call at once useless:

*Slots.* Ollama runs NUM_PARALLEL calls of one model at once; one more waits inside Ollama,
where nobody orders or measures it. A finished call shows that it waited there: its total
time is more than loading, reading the prompt and writing the answer took. A call sent
beside k others of its model that shows no such wait proves k + 1 slots; one that does
shows that there are no more than k. Beside it counts only who was at work there: a call
that failed may never have reached a runner. NUM_PARALLEL is the server's, so a model whose
calls have not waited yet is taken to have as many slots as the model that showed its own last.

*Compute.* Calls that do run share the machine (``contention``). The n-th call at once is
worth running while it adds at least a third of a call's worth of output; below that it only
slows the others down.

Both start from one call at a time and grow by probes: now and then one call more than is
known to be useful is let through, and what it shows moves the estimate. There is one probe
at a time, and the next one waits until that one's effect is known. A probe that shows
nothing new makes the next one rarer, and one that cost the others more than it gained is
not repeated for ten minutes, then for twenty, and so on. Neither number ever falls below
one, and a number given in the policy is not learned but obeyed.

A processor is a machine where two at once may do a third of the work of one; a GPU that holds
all that is loaded is not. So there (``on_gpu``) two at once are expected to cost nothing until
they are seen to, and from two on several probes may be under way together.

Pure: told what happened and when, asked what may run. Times are monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.contention import ALONE, PaceAlone, Shares
from modelsplit_policy.learned import LearnedHost, LearnedModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# A wait inside Ollama is a wait: longer than scheduling noise and than a tenth of the work.
HIDDEN_MIN_S: Final = 0.1
HIDDEN_SHARE: Final = 0.1
# Fewer tokens than these say nothing about speed.
MIN_TOKENS: Final = 8
# Finished calls between two probes of one model's slots: at first, and at most.
PROBE_EVERY: Final = 3
PROBE_RAREST: Final = 24
# Finished calls after a probe of the host that neither gained nor cost much, doubled each time.
PROBE_AGAIN: Final = 48
PROBE_AGAIN_MOST: Final = 768
# Seconds after a probe that cost more than it gained, doubled each time.
HURT_S: Final = 600.0
HURT_MOST_S: Final = 21_600.0
# A slot may come free in the moment a call arrives. So many in a row are no luck.
CONTRARY: Final = 3
# A sample is not used if calls that may not have been running overlap it by more than this.
DOUBT_SHARE: Final = 0.15
# Changes of the number of running calls that are remembered.
_HISTORY: Final = 1024
# Finished calls that are remembered until a probe has shown what they say.
_IN_DOUBT: Final = 16
_MAX_MODELS: Final = 256


class Basis(StrEnum):
    """Why so many calls at once: the policy says so, it was learned, or nothing is known yet."""

    POLICY = "policy"
    LEARNED = "learned"
    START = "start"


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
    upstream sees first nobody knows. ``around``: those beside it, and those that began
    within the time a wait must last to be seen. ``ended``: how long after its beginning each
    of those beside it ended; 0 for one that failed and may never have reached a runner.

    ``length_s``: how long it is expected to run; None: nobody knows.

    ``warm``: its model was certainly loaded then. ``loading``: it was certainly not, so
    until its first byte the call may be waiting for that.
    """

    model: str
    slots: _Slots
    began: float
    beside: int
    around: int
    probe: bool
    warm: bool
    loading: bool
    length_s: float | None = None
    over_slots: bool = False
    ended: list[float] = field(default_factory=list)

    def company(self, threshold_s: float) -> int:
        """Of those beside it, how many were at work for longer than a wait must last."""
        return self.beside - sum(after_s < threshold_s for after_s in self.ended)


class _Sample(NamedTuple):
    """A finished call that says how fast it was: so many tokens between two moments."""

    slots: _Slots
    tokens: int
    since: float
    until: float


class Pace:
    """How often to probe a model's slots: at once after one more was found, else ever rarer.

    ``since``: calls that have ended since the last probe.
    """

    __slots__ = ("_every", "since")

    def __init__(self) -> None:
        self._every = 1
        self.since = 0

    @property
    def due(self) -> bool:
        return self.since >= self._every

    def probed(self, *, more: bool, moved: bool) -> None:
        """A probe has ended: it found ``more`` slots, or ``moved`` what is known otherwise."""
        self.since = 0
        if more:
            self._every = 0
        elif moved:
            self._every = PROBE_EVERY
        else:
            self._every = min(PROBE_RAREST, max(PROBE_EVERY, self._every * 2))


class _Slots:
    """What is known of one model, and how many of its calls run.

    ``computing``: calls that certainly compute, no more than there are slots known.
    ``in_doubt``: calls of which nobody can tell: loading, or in slots that may or may not
    exist. Both follow from the rest, through ``Parallelism._count``.
    """

    __slots__ = (
        "alone",
        "computing",
        "contrary",
        "in_doubt",
        "known",
        "loading",
        "most",
        "pace",
        "ready",
        "running",
    )

    def __init__(self, known: int) -> None:
        self.known = known
        # Where a wait inside has been seen: surely no more slots than this.
        self.most: int | None = None
        # Calls in a row that were sent beside so many and did not wait after all.
        self.contrary = 0
        self.ready = 0
        self.running = 0
        self.loading = 0
        self.computing = 0
        self.in_doubt = 0
        self.pace = Pace()
        self.alone = PaceAlone()


class History:
    """How many calls computed, and how many were in doubt, over the recent past."""

    def __init__(self) -> None:
        self._changes: deque[tuple[float, int, int]] = deque(maxlen=_HISTORY)
        self.computing = 0
        self.doubt = 0
        self._most = 0

    def mark(self, now: float, computing: int, doubt: int) -> None:
        """From ``now`` on so many more (or fewer) compute, and so many more are in doubt."""
        self.computing += computing
        self.doubt += doubt
        self._most = max(self._most, self.computing + self.doubt)
        self._changes.append((now, self.computing, self.doubt))

    def times(self, since: float, until: float, *, sure: bool) -> list[float] | None:
        """Seconds with n computing, for each n, between two moments.

        ``sure``: those that were in doubt did compute. None: too much of it is in doubt, or
        forgotten.
        """
        times = [0.0] * (self._most + 1)
        doubt_s, end = 0.0, until
        for began, computing, doubt in reversed(self._changes):
            if began < end:
                last = began <= since
                span_s = end - since if last else end - began
                times[computing + doubt if sure else computing] += span_s
                if doubt and not sure:
                    doubt_s += span_s
                end = since if last else began
                if last:
                    break
        return None if doubt_s + (end - since) > DOUBT_SHARE * (until - since) else times


class _HostProbes:
    """When one call more than is worth running may be tried, to see what it shows.

    ``out``: the probe that is under way. ``beside``: who ran when it began: its effect is
    known when it has ended well, or they have all ended.
    """

    __slots__ = ("_again", "_hurt_s", "_not_before", "_since", "beside", "level", "out")

    def __init__(self) -> None:
        self.out: Flight | None = None
        self.beside: set[Flight] = set()
        self.level = 0
        self._since = 1 << 30
        self._again = PROBE_AGAIN
        self._hurt_s = HURT_S
        self._not_before = -1e18

    def due(self, now: float) -> bool:
        return self.settled and self._since >= self._again and now >= self._not_before

    def goes_on(self, now: float) -> bool:
        """True if the last one gained, or showed too little to tell: another may follow at once."""
        return self._again == 0 and now >= self._not_before

    @property
    def settled(self) -> bool:
        """True if no probe is under way whose effect is not yet known."""
        return self.out is None and not self.beside

    def quiet(self, now: float) -> tuple[float, float]:
        """For how long from now no probe may hurt, and for how long after the next that does."""
        return max(0.0, self._not_before - now), self._hurt_s

    def recall(self, quiet_s: float, hurt_s: float, now: float) -> None:
        """What earlier probes have shown."""
        self._not_before = max(self._not_before, now + quiet_s)
        self._hurt_s = min(HURT_MOST_S, max(self._hurt_s, hurt_s))

    def began(self, flight: Flight, beside: Iterable[Flight], level: int) -> None:
        self.out = flight
        self.beside = set(beside)
        self.level = level

    def ended(self, flight: Flight, *, taught: bool) -> bool:
        """A call has ended. True: what the probe did is known now."""
        self._since += 1
        if flight is self.out:
            self.out = None
            if taught:
                self.beside.clear()
            return not self.beside
        if flight in self.beside:
            self.beside.discard(flight)
            return not self.beside and self.out is None
        return False

    def showed(self, now: float, *, gained: bool, hurt: bool | None) -> None:
        """What it did: made one more worth running, cost more than it gained, or neither.

        ``hurt`` None: it showed too little to tell. The next may follow at once.
        """
        self._since = 0
        if hurt is False and not gained:
            self._again = min(PROBE_AGAIN_MOST, max(PROBE_AGAIN, self._again * 2))
            return
        self._again = 0
        if gained:
            self._hurt_s = HURT_S
        elif hurt:
            self._not_before = now + self._hurt_s
            self._hurt_s = min(HURT_MOST_S, self._hurt_s * 2)


class Parallelism:
    """The estimates, and who is running.

    ``host``: how many calls at once are worth running on the machine.
    """

    def __init__(self, cap: int, host: int | None, models: Mapping[str, int]) -> None:
        """``cap``: never learn beyond this. ``host`` and ``models``: given, not learned."""
        self._cap = cap
        # All that is loaded lies in the memory of a GPU. Told, not learned.
        self.on_gpu = False
        self._given_host = host
        self._given_models = dict(models)
        self._models: dict[str, _Slots] = {}
        self.shares = Shares(cap)
        self.host = host if host is not None else 1
        self._host_probes = _HostProbes()
        self._slot_probes = 0
        # What the model takes that was the last to show its slots.
        self._usual_slots = 1
        # Calls that ended beside a probe of slots, and which of them computed is not known yet.
        self._in_doubt: deque[_Sample] = deque(maxlen=_IN_DOUBT)
        # How often something was learned.
        self.lessons = 0
        # In the order in which they began.
        self._flights: dict[Flight, None] = {}
        self._history = History()

    def __repr__(self) -> str:
        slots = ", ".join(f"{name} {s.running}/{s.known}" for name, s in self._models.items())
        return (
            f"<Parallelism host {len(self._flights)}/{self.host} "
            f"contention {self.contention:.2f} ({slots})>"
        )

    @property
    def basis(self) -> Basis:
        """What ``host`` rests on."""
        if self._given_host is not None:
            return Basis.POLICY
        return Basis.START if self.shares.contention() is None else Basis.LEARNED

    @property
    def contention(self) -> float:
        """By how much each call more slows the others: 0 not at all, 1 by its whole share.

        1 while nothing is known.
        """
        known = self.shares.contention()
        return 1.0 if known is None else known

    def slots(self, model: str) -> int:
        """How many calls at once this model is known to take."""
        known = self._models.get(model)
        return self._given_models.get(model, 1) if known is None else known.known

    def known_models(self) -> dict[str, int]:
        return {name: slots.known for name, slots in self._models.items()}

    @property
    def inside(self) -> int:
        """How many of those that run certainly wait inside the upstream for a slot."""
        return sum(
            slots.running - slots.known
            for slots in self._models.values()
            if slots.known == slots.most and slots.running > slots.known
        )

    @property
    def is_full(self) -> bool:
        """True if no call of any model fits."""
        return len(self._flights) >= self.host

    @property
    def company_harms(self) -> bool | None:
        """Whether those that run take more from each other than their number gains.

        None: nobody knows.
        """
        running = len(self._flights)
        if running <= self.host:
            return False
        return True if self._given_host is not None else self.shares.harms(running)

    @property
    def trusts_company(self) -> bool:
        """True if two at once are known to pay, or nothing is known of them on a GPU."""
        if self.host > 1:
            return True
        return self.on_gpu and self._given_host is None and self.shares.harms(2) is None

    @property
    def may_collapse(self) -> bool:
        """True until two at once are known, or on a GPU expected, to do no less than one."""
        return not self.trusts_company and self.shares.harms(2) is not False

    @property
    def is_beyond(self) -> bool:
        """True if more calls run than is known to be useful: of all, or of one model."""
        if len(self._flights) > self.host:
            return True
        return any(slots.running > slots.known for slots in self._models.values())

    @property
    def running(self) -> int:
        return len(self._flights)

    @property
    def settled(self) -> bool:
        """True if no probe is under way whose effect is not yet known."""
        return self._host_probes.settled and not self._slot_probes

    def fits(self, model: str) -> bool:
        """True if one more call of ``model`` stays within what is known to be useful."""
        if len(self._flights) >= self.host:
            return False
        slots = self._models.get(model)
        return slots is None or slots.running < slots.known

    def probes_any(self, now: float) -> bool:
        """True if a probe of some model may be due."""
        return self._may_look and (not self.is_full or self._host_probe_due(now))

    @property
    def _may_look(self) -> bool:
        """True if no probe is under way, or one more would cost nothing: see ``on_gpu``."""
        if self.settled or not self._flights:
            return self.settled
        return self.on_gpu and self.shares.harms(len(self._flights) + 1) is not True

    def probe_due(self, model: str, now: float) -> bool:
        """True if one call more than known is due, to see what it shows."""
        if not self._may_look:
            return False
        over_host = len(self._flights) >= self.host
        over_slots = self._running(model) >= self.slots(model)
        if not (over_host or over_slots) or (over_host and not self._can_learn(model)):
            return False
        return (not over_host or self._host_probe_due(now)) and (
            not over_slots or self._slots_probe_due(model)
        )

    def _can_learn(self, model: str) -> bool:
        """True if the pace alone is known of one of those that a probe would bring together."""
        slots = self._models.get(model)
        if slots is not None and slots.alone.seconds is not None:
            return True
        return any(flight.slots.alone.seconds is not None for flight in self._flights)

    def harms(self, model: str) -> bool | None:
        """Whether one more call of ``model`` costs the others more than it gains.

        None: nobody knows. One for which there is no slot gains nothing.
        """
        harms: bool | None = False
        running = len(self._flights)
        if running and running >= self.host:
            harms = True if self._given_host is not None else self.shares.harms(running + 1)
        slots = self._models.get(model)
        if harms or slots is None or slots.running < slots.known:
            return harms
        given = model in self._given_models
        return True if given or slots.known == slots.most else None

    def left_s(self, now: float) -> float | None:
        """How long the one of those that run that takes longest is still expected to run.

        None: of one of them nobody knows. One that has run longer than expected has a quarter
        of that left.
        """
        left_s = 0.0
        for flight in self._flights:
            if flight.length_s is None:
                return None
            rest_s = max(flight.began + flight.length_s - now, flight.length_s / 4)
            left_s = max(left_s, rest_s)
        return left_s

    def last_half_in_s(self, length_s: float, now: float) -> float | None:
        """How long until one more call would run beside the others for no more than half of it.

        Half of the shorter: of the call, which takes ``length_s``, or of those that run. At
        most 0: now. None: how long those take is not known. The end of one that takes more than
        twice as long is not known well enough, and never comes near.
        """
        left_s = self.left_s(now)
        if left_s is None:
            return None
        longest_s = max((flight.length_s or 0.0 for flight in self._flights), default=0.0)
        return left_s - min(length_s, longest_s) / 2

    def start(
        self, model: str, now: float, *, resident: bool | None, length_s: float | None = None
    ) -> Flight:
        """A call begins.

        ``resident``: its model is loaded; ``length_s``: what such calls take on average. None:
        nobody knows.
        """
        slots = self._slots_of(model)
        running = slots.running
        over_host = len(self._flights) >= self.host
        probe = over_host or running >= slots.known
        flight = Flight(
            model,
            slots,
            now,
            beside=running,
            around=running,
            probe=probe,
            warm=resident is True,
            loading=resident is False,
            length_s=length_s,
        )
        for other in reversed(self._flights):
            if now - other.began >= HIDDEN_MIN_S:
                break
            if other.slots is slots and other.around < running:
                other.around = running
        if probe:
            self._slot_probes += running >= slots.known
            flight.over_slots = running >= slots.known
            if over_host and self._host_probes.settled:
                self._host_probes.began(flight, self._flights, len(self._flights) + 1)
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
        before = self.host, flight.slots.known
        taught = False
        if report is not None:
            self._learn_slots(flight, report)
            taught = self._learn_contention(flight, now, held_s, report, before[1])
        if flight.over_slots:
            taught = self._out_of_doubt(sure=flight.slots.known > before[1]) or taught
        self._forget(flight, now, worked=report is not None)
        self._count(flight, -1, now)
        self._paced(flight, now, before, taught=taught)
        if len(self._models) > _MAX_MODELS:
            self._forget_idle()

    def _forget(self, flight: Flight, now: float, *, worked: bool) -> None:
        """The call is over; those that began beside it hear when, and whether it worked."""
        del self._flights[flight]
        slots = flight.slots
        if slots.running > 1:
            for other in self._flights:
                if other.slots is slots and other.began >= flight.began:
                    other.ended.append(now - other.began if worked else 0.0)

    # Slots.

    def _learn_slots(self, flight: Flight, report: Report) -> None:
        if flight.model in self._given_models:
            return
        hidden = _hidden_wait(report, warm=flight.warm)
        if hidden is None:
            return
        slots = flight.slots
        before = slots.known, slots.most
        self._revise(slots, flight, *hidden)
        if (slots.known, slots.most) != before:
            self._usual_slots = slots.known
            self.lessons += 1

    def _revise(self, slots: _Slots, flight: Flight, hidden_s: float, threshold_s: float) -> None:
        if hidden_s > threshold_s:
            # Alone, it can have waited for anything but a slot.
            if flight.around:
                most = slots.most if slots.most is not None else flight.around
                slots.most = min(most, flight.around)
                slots.known = min(slots.known, slots.most)
                slots.contrary = 0
            return
        company = flight.company(threshold_s)
        if slots.most is None and slots.known < self._usual_slots:
            slots.known = self._usual_slots
        if slots.most is None or company < slots.most or self._contradicts(slots, company):
            slots.known = max(slots.known, min(self._cap, company + 1))

    def _contradicts(self, slots: _Slots, company: int) -> bool:
        """A call beside as many as there are slots did not wait: luck, until it repeats."""
        if slots.most is None or company < slots.most:
            return False
        slots.contrary += 1
        if slots.contrary < CONTRARY:
            return False
        slots.most, slots.contrary = None, 0
        return True

    def _slots_probe_due(self, model: str) -> bool:
        slots = self._slots_of(model)
        if model in self._given_models or slots.known >= self._cap or not slots.pace.due:
            return False
        return slots.running <= slots.known

    # What outlives the process.

    def learned(self, now: float) -> LearnedHost:
        """What is known of the host."""
        return LearnedHost(*self.shares.learned(), *self._host_probes.quiet(now))

    def learned_models(self) -> dict[str, LearnedModel]:
        """What is known of the models that have shown anything."""
        return {
            name: LearnedModel(slots.known, slots.most, slots.alone.seconds)
            for name, slots in self._models.items()
            if name not in self._given_models and slots.alone.seconds is not None
        }

    def recall(self, host: LearnedHost, now: float) -> None:
        """What was known before; what has been seen since counts for more."""
        self.shares.recall(host.work, host.time)
        self._host_probes.recall(host.quiet_s, host.hurt_s, now)
        self._choose_host()

    def recall_model(self, name: str, model: LearnedModel) -> None:
        """The same of a model, unless something is known of it already."""
        slots = self._slots_of(name)
        if name in self._given_models or slots.most is not None or slots.alone.seconds is not None:
            return
        if model.seconds is not None:
            slots.alone.learn(model.seconds)
        slots.most = model.most
        slots.known = max(slots.known, min(self._cap, model.slots))
        self._usual_slots = max(self._usual_slots, slots.known)

    # Compute.

    def _learn_contention(
        self, flight: Flight, now: float, held_s: float, report: Report, slots_before: int
    ) -> bool:
        """True if the call said something of company."""
        sample = _slowness(report, held_s)
        if sample is None:
            return False
        tokens, span_s = sample
        slots = flight.slots
        times = self._history.times(now - span_s, now, sure=slots.known > slots_before)
        if times is None:
            if self._slot_probes and not flight.over_slots:
                self._in_doubt.append(_Sample(slots, tokens, now - span_s, now))
            return False
        return self._learn_times(slots, tokens, span_s, times)

    def _learn_times(self, slots: _Slots, tokens: int, span_s: float, times: list[float]) -> bool:
        """A call of so many tokens took ``span_s``, ``times[n]`` of it with n at once."""
        self.lessons += 1
        if len(times) == 2 or times[1] >= ALONE * span_s:
            slots.alone.learn(span_s / tokens)
            return False
        alone = slots.alone.seconds
        if alone is None:
            self._guess_alone(slots, tokens, times)
            return False
        self.shares.learn(tokens * alone, times)
        self._choose_host()
        return True

    def _out_of_doubt(self, *, sure: bool) -> bool:
        """A probe of slots has ended; ``sure``: there was one more, so all have computed.

        True if those that ended beside it said something of company.
        """
        taught = False
        while self._in_doubt:
            slots, tokens, since, until = self._in_doubt.popleft()
            times = self._history.times(since, until, sure=True) if sure else None
            if times is not None:
                taught = self._learn_times(slots, tokens, until - since, times) or taught
        return taught

    def _guess_alone(self, slots: _Slots, tokens: int, times: list[float]) -> None:
        """A model whose calls have never been alone: its pace by the shares that are known."""
        work_s = 0.0
        for n, time_s in enumerate(times):
            share = self.shares.share(n)
            if share is None and time_s:
                return
            work_s += (share or 0.0) * time_s
        if work_s > 0:
            slots.alone.learn(work_s / tokens)

    def _choose_host(self) -> None:
        if self._given_host is None:
            self.host = self.shares.worth(self.host)

    def _host_probe_due(self, now: float) -> bool:
        if self._given_host is not None or self.host >= self._cap:
            return False
        probes = self._host_probes
        return probes.due(now) or (self.on_gpu and self.host > 1 and probes.goes_on(now))

    # Probes.

    def _paced(self, flight: Flight, now: float, before: tuple[int, int], *, taught: bool) -> None:
        slots, probes = flight.slots, self._host_probes
        slots.pace.since += 1
        if probes.ended(flight, taught=taught):
            level = probes.level
            probes.showed(now, gained=self.host >= level, hurt=self.shares.harms(level))
        if flight.over_slots:
            self._slot_probes -= 1
            # What contradicts is looked at again soon.
            moved = slots.known != before[1] or slots.contrary > 0
            slots.pace.probed(more=slots.known > before[1], moved=moved)

    # Who runs, and who ran when.

    def _count(self, flight: Flight, change: int, now: float) -> None:
        """One call of the flight's kind more or fewer, from now on.

        What is known of its model's slots may have changed as well: so does the history.
        """
        slots = flight.slots
        slots.running += change
        if flight.loading:
            slots.loading += change
        else:
            slots.ready += change
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


def _hidden_wait(report: Report, *, warm: bool) -> tuple[float, float] | None:
    """How long the call waited inside the upstream, and from when on that counts as waiting.

    None: it does not say enough to tell. A model that was loaded needs no loading: whatever
    is called so was waiting too.
    """
    if report.total_s is None or report.eval_s is None or report.prompt_s is None:
        return None
    work_s = report.eval_s + report.prompt_s
    load_s = 0.0 if warm else report.load_s or 0.0
    return report.total_s - load_s - work_s, max(HIDDEN_MIN_S, HIDDEN_SHARE * work_s)


def _slowness(report: Report, held_s: float) -> tuple[int, float] | None:
    """Tokens, and the seconds all of them took at the end of the call's life.

    Without durations of its own (the OpenAI and Anthropic dialects give none) the call's
    whole time stands in for them: coarser, and it lets a wait inside the upstream show as
    contention, which is the same advice: do not send more.
    """
    if report.tokens is None or report.tokens < MIN_TOKENS:
        return None
    span_s = report.eval_s if report.eval_s is not None else held_s
    return (report.tokens, span_s) if span_s > 0 else None
