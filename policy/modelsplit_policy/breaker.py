"""Who is not worth asking just now: a circuit breaker per provider and per model.

The theory. An upstream that failed the last five calls will most likely fail the sixth, and
a call that is refused at once, with the reason, serves its client better than one that
fails slowly. So failures in a row open a breaker; an open breaker refuses; after a while it
lets exactly one call through, the trial, and that call's ending decides. Nothing probes:
only live calls teach a breaker, so it knows what calls know, with one upstream as with many.

Two questions, two breakers. A call asks its provider "are you there?" and its model "do you
work?". Each ending says which of the two it answers (its Scope):

- Not reached: the provider failed. Its open time is fixed and short, because trying costs
  one connect, and service must resume within a second of the upstream's return. Whom it
  refuses is told what the last call failed of: one outage has one code.
- Reached, and then a 5xx, a timeout, a broken or unfinished answer: the model failed, and
  the provider, having been reached, is well. A model's open time doubles with every failed
  trial, because such a trial may hold a seat for minutes.
- A client that left, a refusal of ours, a queue, what the request did: nobody's failure
  (``blame``). Busy is not broken.

Many failures may be the request's doing, and nobody can tell from one. So each comes with its
pair: a digest of who asked what. A breaker opens on failures of at least ``pairs`` of them, or
where one was among them that no request can cause. Its trial goes to a pair that has not failed
there, if one comes: a call like those that failed gets it only when nobody else has come for as
long again.

Whoever asks the provider otherwise, and finds it there, says so (``answered``): what kept
its breaker open was that nobody listened, so it closes. A provider that was away and is back
starts with a clean slate, its models too: it is another process now.

A HALF_OPEN breaker has one trial out, always; a trial that taught nothing gives its place
back, and the breaker is OPEN with its time already served, so that the next call may try.

Endings are matched to admissions. Every step of a breaker begins a new generation, an
admission remembers the generation it was given in, and an ending from another generation is
void: a call that began before the outage says nothing about what came after. The exception
is small: a model's breaker without failures is not kept, so after a recovery such a
straggler counts as one failure of five.

Methods change the state and return what changed; the caller logs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.blame import CERTAIN, USUAL, Blame, Circumstances, blame
from modelsplit_policy.bounded_memo import BoundedMemo
from modelsplit_policy.failures import Failure
from modelsplit_policy.overload import still_failing, stopped
from modelsplit_policy.vocabulary import DEFAULT_HOST

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelsplit_policy.config.model import BreakersPolicy
    from modelsplit_policy.vocabulary import Host, Provider

    # Asked for a call's pair where it matters; None: nobody knows it.
    Pair = Callable[[], int] | None

# Model names come from clients. Beyond this many, the one that failed longest ago goes.
MODELS_MAX: Final = 256
# Pairs remembered of one breaker: far more than make it open.
_PAIRS_MAX: Final = 64


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerEvent(StrEnum):
    TRIP = "trip"
    TRY = "try"
    SUCCEED = "succeed"
    FAIL = "fail"
    GIVE_BACK = "give_back"
    FORGET = "forget"


TRANSITIONS: Final = MappingProxyType(
    {
        (BreakerState.CLOSED, BreakerEvent.TRIP): BreakerState.OPEN,
        (BreakerState.OPEN, BreakerEvent.TRY): BreakerState.HALF_OPEN,
        (BreakerState.HALF_OPEN, BreakerEvent.SUCCEED): BreakerState.CLOSED,
        (BreakerState.HALF_OPEN, BreakerEvent.FAIL): BreakerState.OPEN,
        (BreakerState.HALF_OPEN, BreakerEvent.GIVE_BACK): BreakerState.OPEN,
        (BreakerState.OPEN, BreakerEvent.FORGET): BreakerState.CLOSED,
        (BreakerState.HALF_OPEN, BreakerEvent.FORGET): BreakerState.CLOSED,
    }
)


class Outcome(StrEnum):
    """What an ending says about the upstream. IGNORE: nothing."""

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORE = "ignore"


class Scope(StrEnum):
    """Which question an ending answers. MODEL: the provider was reached in any case."""

    PROVIDER = "provider"
    MODEL = "model"


# What each ending teaches (the provider's breaker, the model's breaker).
LESSONS: Final = MappingProxyType(
    {
        (Outcome.SUCCESS, Scope.PROVIDER): (Outcome.SUCCESS, Outcome.IGNORE),
        (Outcome.SUCCESS, Scope.MODEL): (Outcome.SUCCESS, Outcome.SUCCESS),
        (Outcome.FAILURE, Scope.PROVIDER): (Outcome.FAILURE, Outcome.IGNORE),
        (Outcome.FAILURE, Scope.MODEL): (Outcome.SUCCESS, Outcome.FAILURE),
        (Outcome.IGNORE, Scope.PROVIDER): (Outcome.IGNORE, Outcome.IGNORE),
        (Outcome.IGNORE, Scope.MODEL): (Outcome.SUCCESS, Outcome.IGNORE),
    }
)
_OF_A_TRIAL: Final = MappingProxyType(
    {
        Outcome.SUCCESS: BreakerEvent.SUCCEED,
        Outcome.FAILURE: BreakerEvent.FAIL,
        Outcome.IGNORE: BreakerEvent.GIVE_BACK,
    }
)


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a breaker opens, and for how long. Seconds.

    ``failures`` in a row open it, from ``pairs`` of client and body at least: Olla's and
    LiteLLM's range is 3 to 5, and one client's retry loop should not shut a model off for
    everyone. ``open_s`` is the
    first open time and a provider's only one; ``open_max_s`` bounds what a model's doubles
    to. A streak whose last failure is older than ``memory_s`` starts afresh, and so does an
    open breaker that nobody has tried for that long: old news is no news.
    """

    failures: int = 5
    pairs: int = 2
    open_s: float = 1.0
    open_max_s: float = 10.0
    memory_s: float = 60.0

    def __post_init__(self) -> None:
        if (
            min(self.failures, self.pairs) < 1
            or not 0 < self.open_s <= self.open_max_s
            or self.memory_s <= 0
        ):
            raise ValueError(f"these make no circuit breaker: {self}")


def rules_of(policy: BreakersPolicy) -> BreakerRules:
    """The same in seconds."""
    open_s = policy.open_ms / 1000
    return BreakerRules(
        policy.failures,
        policy.pairs,
        open_s,
        max(open_s, policy.open_max_ms / 1000),
        policy.memory_ms / 1000,
    )


class BreakerKey(NamedTuple):
    """Whose breaker. ``model`` None: the provider's own. Each host has its own of both."""

    provider: Provider
    model: str | None = None
    host: Host = DEFAULT_HOST

    def __str__(self) -> str:
        text = self.provider if self.model is None else f"{self.provider}/{self.model}"
        return text if self.host == DEFAULT_HOST else f"{text} at {self.host}"


@dataclass(frozen=True, slots=True)
class BreakerTransition:
    """One breaker's step, with its cause in words; to be logged."""

    key: BreakerKey
    old: BreakerState
    new: BreakerState
    why: str


class Allowed(NamedTuple):
    """Go ahead. To be handed to ``Breakers.call_ended`` exactly once, whatever happens.

    ``trial``: a breaker waits for this call's ending. ``marks`` are the breakers that were
    asked, the provider's first, each with its generation.
    """

    trial: bool
    marks: tuple[tuple[BreakerKey, int], ...]
    transitions: tuple[BreakerTransition, ...] = ()


Verdict = Allowed | Failure


@dataclass(frozen=True, slots=True)
class BreakerView:
    """One breaker as statistics show it. ``trial_in_s`` is 0 where a call may go now."""

    key: BreakerKey
    state: BreakerState
    failures: int
    trial_in_s: float
    why: str


class _Breaker:
    """One breaker. ``trial_at`` means something only while it is OPEN."""

    __slots__ = (
        "certain",
        "failed_at",
        "failure",
        "failures",
        "generation",
        "key",
        "last",
        "open_s",
        "pairs",
        "state",
        "trial_at",
    )

    def __init__(self, key: BreakerKey, generation: int) -> None:
        self.key = key
        self.state = BreakerState.CLOSED
        self.failures = 0
        # Who asked what in those that a request may have caused; and whether one was not so.
        self.pairs: set[int] = set()
        self.certain = False
        self.last = ""
        self.failure: Failure | None = None
        self.failed_at = 0.0
        self.open_s = 0.0
        self.trial_at = 0.0
        self.generation = generation

    @property
    def why(self) -> str:
        """In words, as in: 5 failures in a row, last: connection refused."""
        if not self.failures:
            return ""
        count = "1 failure" if self.failures == 1 else f"{self.failures} failures in a row"
        return f"{count}, last: {self.last}" if self.last else count

    def is_old(self, now: float, memory_s: float) -> bool:
        """Nothing was learnt for so long that it counts no more. A trial under way counts."""
        if self.state is BreakerState.HALF_OPEN:
            return False
        return now - max(self.failed_at, self.trial_at) > memory_s

    def count(self, now: float, why: str, pair: int | None, failure: Failure | None) -> None:
        self.failures += 1
        self.failure = failure
        if pair is None:
            self.certain = True
        elif len(self.pairs) < _PAIRS_MAX:
            self.pairs.add(pair)
        self.failed_at = now
        self.last = why

    def rest(self, now: float, open_s: float) -> None:
        self.open_s = open_s
        self.trial_at = now + open_s

    def clear(self) -> None:
        self.failures = 0
        self.pairs.clear()
        self.certain = False
        self.last = ""
        self.failure = None


class Breakers:
    """All breakers. ``now`` is seconds of one monotonic clock throughout."""

    def __init__(self, rules: BreakerRules) -> None:
        self._rules = rules
        self._generation = 0
        # Those with failures, in the order of the last one: the first is the one to forget.
        # While it is empty, which is nearly always, there is nothing to ask and nothing that
        # a success could teach.
        self._kept: dict[BreakerKey, _Breaker] = {}
        # The generations of providers' breakers that are not kept.
        self._providers: dict[BreakerKey, int] = {}
        # What every call is told while none is kept.
        self._calm: BoundedMemo[tuple[Provider, str | None, Host], Allowed] = BoundedMemo()

    def __repr__(self) -> str:
        rows = ", ".join(
            f"{breaker.key} {breaker.state}{why and f' ({why})'}"
            for breaker in self._kept.values()
            if (why := breaker.why) or breaker.state is not BreakerState.CLOSED
        )
        return f"<Breakers {rows or 'all closed'}>"

    def check(
        self,
        provider: Provider,
        model: str | None,
        now: float,
        host: Host = DEFAULT_HOST,
        pair: Pair = None,
    ) -> Failure | None:
        """What ``admit`` would refuse now, without taking a trial: to ask before queueing."""
        return self._refusal(_keys(provider, model, host), now, pair) if self._kept else None

    def wait_s(
        self, provider: Provider, model: str, now: float, host: Host = DEFAULT_HOST
    ) -> float:
        """For how long calls are refused there; 0 or less: they are not. A guess at most."""
        if not self._kept:
            return 0.0
        return max(self._wait_s(key, now) for key in _keys(provider, model, host))

    def admit(
        self,
        provider: Provider,
        model: str | None,
        now: float,
        host: Host = DEFAULT_HOST,
        pair: Pair = None,
    ) -> Verdict:
        """Let a call through, or not; to ask when the call is about to be sent.

        ``pair``: asked for who asks what, where that matters; None: nobody knows.

        A call past an open breaker whose time is served is that breaker's trial. Both
        breakers must agree before either gives its trial away.
        """
        if not self._kept:
            known = self._calm.get((provider, model, host))
            return known or self._all_closed(provider, model, host)
        keys = _keys(provider, model, host)
        refused = self._refusal(keys, now, pair)
        if refused is not None:
            return refused
        steps = tuple(chain.from_iterable(self._enter(key, now) for key in keys))
        marks = tuple((key, self._generation_of(key)) for key in keys)
        trial = any(step.new is BreakerState.HALF_OPEN for step in steps)
        return Allowed(trial, marks, steps)

    def _all_closed(self, provider: Provider, model: str | None, host: Host) -> Allowed:
        keys = _keys(provider, model, host)
        allowed = Allowed(False, tuple((key, self._providers.get(key, 0)) for key in keys))
        return self._calm.keep(model or "", (provider, model, host), allowed)

    def _refusal(self, keys: tuple[BreakerKey, ...], now: float, pair: Pair) -> Failure | None:
        """What the breaker of ``keys`` says that refuses longest; None: they let a call pass.

        A provider that is not there is told rather than what its models did before.
        """
        waits = [(self._wait_s(key, now, pair), key) for key in keys]
        wait_s, key = max(waits, key=lambda wait: wait[0])
        if wait_s <= 0:
            return None
        provider = self._kept.get(keys[0])
        if waits[0][0] > 0 and provider is not None and provider.failure is not None:
            return still_failing(provider.failure, wait_s)
        return stopped(str(key), self._kept[key].why, wait_s)

    def reached(self, admitted: Allowed, now: float) -> tuple[BreakerTransition, ...]:
        """The upstream has begun to answer: its provider is there, however the call ends.

        Not an ending. Without it a provider's trial would last as long as its answer, and
        everyone else would be refused meanwhile.
        """
        if not self._kept:
            return ()
        key, generation = admitted.marks[0]
        return self._learn(key, generation, Outcome.SUCCESS, now, "the upstream answered")

    def call_ended(
        self,
        admitted: Allowed,
        failure: Failure | None,
        now: float,
        *,
        completed: bool,
        circumstances: Circumstances = USUAL,
        pair: Pair = None,
    ) -> tuple[BreakerTransition, ...]:
        """Learn from how the call ended.

        ``failure``: what went wrong, None: nothing. ``completed``: its client has the whole
        answer; where it has not and nothing went wrong, it was the client that left.
        ``pair``: asked for who asked what; None: nobody knows, and it counts as another.
        """
        if failure is None and not self._kept:
            return ()
        client_gone = failure is None and not completed
        outcome, scope = outcome_of(failure, client_gone, circumstances)
        why = "" if failure is None else f"{failure.code} {failure.reason}"
        whose = None
        if outcome is Outcome.FAILURE and failure is not None and pair is not None:
            whose = None if blame(failure, circumstances) in CERTAIN else pair()
        return self.ended(admitted, outcome, scope, now, why, whose, failure)

    def ended(
        self,
        admitted: Allowed,
        outcome: Outcome,
        scope: Scope,
        now: float,
        why: str = "",
        pair: int | None = None,
        failure: Failure | None = None,
    ) -> tuple[BreakerTransition, ...]:
        """Learn from how the call ended; ``why`` is its cause in a few words.

        ``pair``: who asked what, where the request may have caused it; None: it cannot have.
        ``failure``: what those are told whom the provider's breaker refuses; None: that it does.
        """
        if not self._kept and outcome is not Outcome.FAILURE:
            return ()
        lessons = zip(admitted.marks, LESSONS[outcome, scope], strict=False)
        return tuple(
            chain.from_iterable(
                self._learn(key, generation, lesson, now, why, pair, failure)
                for (key, generation), lesson in lessons
            )
        )

    def answered(
        self, provider: Provider, host: Host = DEFAULT_HOST, *, returned: bool = False
    ) -> tuple[BreakerTransition, ...]:
        """Somebody has asked the provider something else, and it is there.

        ``returned``: it had been away. Then nothing that failed before counts any more; else
        only that nobody listened.
        """
        healed = [
            breaker
            for key, breaker in self._kept.items()
            if (key.provider, key.host) == (provider, host)
            and (returned or (key.model is None and not breaker.pairs))
        ]
        why = "the provider is back" if returned else "the provider answers"
        return tuple(chain.from_iterable(self._heal(breaker, why) for breaker in healed))

    def _heal(self, breaker: _Breaker, why: str) -> tuple[BreakerTransition, ...]:
        if breaker.state is not BreakerState.CLOSED:
            return (self._forget(breaker, why),)
        self._clear(breaker)
        return ()

    def snapshot(self, now: float) -> tuple[BreakerView, ...]:
        """Every breaker with something to tell; none: all closed, no failures lately."""
        return tuple(
            BreakerView(
                key, breaker.state, breaker.failures, max(0.0, self._wait_s(key, now)), breaker.why
            )
            for key, breaker in self._kept.items()
            if breaker.failures and not breaker.is_old(now, self._rules.memory_s)
        )

    def _generation_of(self, key: BreakerKey) -> int:
        breaker = self._kept.get(key)
        return self._providers.get(key, 0) if breaker is None else breaker.generation

    def _wait_s(self, key: BreakerKey, now: float, pair: Pair = None) -> float:
        """Seconds until a call may pass; 0 or less: now. How long a trial takes is a guess."""
        breaker = self._kept.get(key)
        if breaker is None or breaker.state is BreakerState.CLOSED:
            return 0.0
        if breaker.state is BreakerState.HALF_OPEN:
            return breaker.open_s
        wait_s = breaker.trial_at - now
        if wait_s <= 0 and pair is not None and breaker.pairs and pair() in breaker.pairs:
            # Another's call says more.
            wait_s += breaker.open_s
        return wait_s

    def _enter(self, key: BreakerKey, now: float) -> tuple[BreakerTransition, ...]:
        """A call passes this breaker, which does not refuse it."""
        breaker = self._kept.get(key)
        if breaker is None or breaker.state is not BreakerState.OPEN:
            return ()
        if breaker.is_old(now, self._rules.memory_s):
            return (self._forget(breaker, f"nobody asked for {self._rules.memory_s:g} s"),)
        return (self._step(breaker, BreakerEvent.TRY, f"trial after {breaker.why}"),)

    def _learn(
        self,
        key: BreakerKey,
        generation: int,
        lesson: Outcome,
        now: float,
        why: str,
        pair: int | None = None,
        failure: Failure | None = None,
    ) -> tuple[BreakerTransition, ...]:
        if generation != self._generation_of(key):
            return ()
        breaker = self._kept.get(key)
        if breaker is not None and breaker.state is BreakerState.HALF_OPEN:
            # Of this generation there is one admission, the trial.
            return (self._trial_ended(breaker, lesson, now, why, pair, failure),)
        if lesson is Outcome.FAILURE:
            return self._failed(breaker or _Breaker(key, generation), now, why, pair, failure)
        if lesson is Outcome.SUCCESS and breaker is not None:
            self._clear(breaker)
        return ()

    def _failed(
        self, breaker: _Breaker, now: float, why: str, pair: int | None, failure: Failure | None
    ) -> tuple[BreakerTransition, ...]:
        """A closed breaker's call failed."""
        if breaker.is_old(now, self._rules.memory_s):
            breaker.clear()
        breaker.count(now, why, pair, failure)
        forgotten = self._keep(breaker)
        if breaker.failures < self._rules.failures:
            return forgotten
        if not breaker.certain and len(breaker.pairs) < self._rules.pairs:
            return forgotten
        breaker.rest(now, self._rules.open_s)
        return (*forgotten, self._step(breaker, BreakerEvent.TRIP, breaker.why))

    def _trial_ended(
        self,
        breaker: _Breaker,
        lesson: Outcome,
        now: float,
        why: str,
        pair: int | None,
        failure: Failure | None,
    ) -> BreakerTransition:
        says = f": {why}" if why else ""
        if lesson is Outcome.SUCCESS:
            step = self._step(breaker, BreakerEvent.SUCCEED, f"the trial succeeded{says}")
            self._clear(breaker)
            return step
        if lesson is Outcome.FAILURE:
            breaker.count(now, why, pair, failure)
            self._keep(breaker)
            breaker.rest(now, self._open_again_s(breaker))
            return self._step(breaker, BreakerEvent.FAIL, f"the trial failed, {breaker.why}")
        breaker.trial_at = now
        return self._step(breaker, BreakerEvent.GIVE_BACK, f"the trial said nothing{says}")

    def _open_again_s(self, breaker: _Breaker) -> float:
        if breaker.key.model is None:
            return self._rules.open_s
        return min(2 * breaker.open_s, self._rules.open_max_s)

    def _step(self, breaker: _Breaker, event: BreakerEvent, why: str) -> BreakerTransition:
        old = breaker.state
        breaker.state = TRANSITIONS[old, event]
        self._generation += 1
        breaker.generation = self._generation
        return BreakerTransition(breaker.key, old, breaker.state, why)

    def _clear(self, breaker: _Breaker) -> None:
        breaker.clear()
        del self._kept[breaker.key]
        self._calm.clear()
        if breaker.key.model is None:
            self._providers[breaker.key] = breaker.generation

    def _forget(self, breaker: _Breaker, why: str) -> BreakerTransition:
        step = self._step(breaker, BreakerEvent.FORGET, why)
        self._clear(breaker)
        return step

    def _keep(self, breaker: _Breaker) -> tuple[BreakerTransition, ...]:
        """Put the breaker last in the order; make room if that is one model too many."""
        self._kept.pop(breaker.key, None)
        forgotten = () if breaker.key.model is None else self._make_room()
        self._kept[breaker.key] = breaker
        return forgotten

    def _make_room(self) -> tuple[BreakerTransition, ...]:
        models = [kept for kept in self._kept.values() if kept.key.model is not None]
        if len(models) < MODELS_MAX:
            return ()
        # A trial under way is worth keeping; where all are, the oldest goes all the same.
        at_rest = (kept for kept in models if kept.state is not BreakerState.HALF_OPEN)
        oldest = next(at_rest, models[0])
        if oldest.state is BreakerState.CLOSED:
            del self._kept[oldest.key]
            return ()
        return (self._forget(oldest, f"{MODELS_MAX} models failed since"),)


def _keys(provider: Provider, model: str | None, host: Host) -> tuple[BreakerKey, ...]:
    if model is None:
        return (BreakerKey(provider, None, host),)
    return (BreakerKey(provider, None, host), BreakerKey(provider, model, host))


# What a failure says, and about whom, by whose fault it is (``blame``).
_BY_BLAME: Final = MappingProxyType(
    {
        Blame.OUTAGE: (Outcome.FAILURE, Scope.PROVIDER),
        Blame.CUT: (Outcome.FAILURE, Scope.PROVIDER),
        Blame.RUNNER: (Outcome.FAILURE, Scope.MODEL),
        Blame.BROKEN: (Outcome.FAILURE, Scope.MODEL),
        # It computed an answer, so it works: what it says is no matter of health.
        Blame.ANSWER: (Outcome.SUCCESS, Scope.MODEL),
        # The upstream was there; about the model this says nothing.
        Blame.REQUEST: (Outcome.IGNORE, Scope.MODEL),
        Blame.BUSY: (Outcome.IGNORE, Scope.MODEL),
        Blame.NOBODY: (Outcome.IGNORE, Scope.PROVIDER),
    }
)


def outcome_of(
    failure: Failure | None, client_gone: bool, circumstances: Circumstances = USUAL
) -> tuple[Outcome, Scope]:
    """What a call's ending says, and about whom; None: it went well.

    A client that left says nothing, whatever broke while it did.
    """
    if client_gone:
        return _BY_BLAME[Blame.NOBODY]
    if failure is None:
        return Outcome.SUCCESS, Scope.MODEL
    return _BY_BLAME[blame(failure, circumstances)]
