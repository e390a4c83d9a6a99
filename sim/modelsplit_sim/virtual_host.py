"""A host in virtual time: runs calls as Ollama does on shared silicon, in no time at all.

Each model that is loaded has a runner with ``num_parallel`` slots; a call beyond them waits
inside, first come first served, and of those waiters there is no bound. A call for a model
that is not loaded goes into a queue that has one, and the queue moves one call at a time: its
head has its model loaded, or waits for room, and everyone behind it waits for that. Calls for
loaded models pass it by. Room is made by an idle runner, the one whose model's file is first by its
name or, where files are unknown, the one used longest ago; where none is idle, by one that unloads
when it is. A client that leaves ends its call wherever it is, and
the load that was for it.

Calls that run slow each other down as the shape says (``host_shape``). A neighbour on the
machine may slow everything down from time to time, and a runner may die.

Nothing here waits: the caller says what time it is. Seconds throughout.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .host_shape import HostShape, ModelShape

_NEVER: Final = float("inf")
# What Ollama calls loading where the model is loaded.
_OVERHEAD_S: Final = 0.001
_SAME_MOMENT: Final = 1e-12
_NOTHING_LEFT: Final = 1e-9
_GOLDEN: Final = (math.sqrt(5.0) - 1) / 2


@dataclass(slots=True, eq=False)
class Work:
    """One call at the host. ``left`` and ``answer_s``: seconds of the machine, if alone.

    ``cold_s``: how much more there is to read where the runner remembers nothing of the prompt.
    ``streams``: its first token is a moment of its own. ``begun``: it has a slot from then on;
    ``answering``: its prompt is read.
    """

    model: str
    tokens: int
    left: float
    answer_s: float
    sent: float
    cold_s: float = 0.0
    streams: bool = False
    load_s: float = 0.0
    begun: float | None = None
    answering: float | None = None
    payload: Any = None
    runner: _Runner | None = None


class Answered(NamedTuple):
    """The durations in Ollama's last line. ``total_s`` holds the waits inside as well."""

    tokens: int
    eval_s: float
    prompt_s: float
    load_s: float
    total_s: float


@dataclass(slots=True, eq=False)
class _Runner:
    """``slowness``: how many times as long its calls take now. ``doomed``: it unloads when idle."""

    model: str
    shape: ModelShape
    used: float
    slowness: float = 1.0
    running: int = 0
    fresh: bool = True
    doomed: bool = False
    dead: bool = False
    waiting: deque[Work] = field(default_factory=deque)

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting


class VirtualHost:
    """The host. ``loaded``: models that are loaded from the beginning.

    ``begun`` and ``crashed``: what the last ``advance`` brought besides calls that are done:
    streams whose first token came, and calls whose runner died. ``loads``: by model, loads that
    were begun.
    """

    def __init__(self, shape: HostShape, seed: int = 0, loaded: Iterable[str] = ()) -> None:
        self.shape = shape
        self.now = 0.0
        self.running: list[Work] = []
        self.begun: list[Work] = []
        self.crashed: list[Work] = []
        self.busy_s = 0.0
        self.loads: dict[str, int] = {}
        self._shapes: dict[str, ModelShape] = {}
        self._runners: dict[str, _Runner] = {}
        for model in loaded:
            self._runners[model] = _Runner(model, self._shape_of(model), 0.0, fresh=False)
        self._queue: deque[Work] = deque()
        self._head: Work | None = None
        self._ready_at = _NEVER
        self._slow = 1.0
        self._chance = random.Random(seed)
        self._pace = _pace_of_machine(shape.drift, seed)
        self._turns_at = _NEVER
        if shape.neighbour is not None:
            self._turns_at = self._chance.expovariate(1 / shape.neighbour.idle_s)
        self._to_crash_s = self._until_crash()
        self._names: frozenset[str] | None = None
        # When the next idle runner is unloaded, as ``next_at`` found it.
        self._expires_at = -_NEVER

    def __repr__(self) -> str:
        return f"<VirtualHost {self.shape.name} {len(self.running)} running at {self.now:.3f}>"

    @property
    def loaded(self) -> frozenset[str]:
        if self._names is None:
            self._names = frozenset(self._runners)
        return self._names

    def share_on_gpu(self, model: str) -> float | None:
        """As much of a loaded model it says is in a GPU's memory; None: it does not say."""
        return self.shape.share_on_gpu(self._shape_of(model).gb)

    @property
    def is_loading(self) -> bool:
        return self._ready_at != _NEVER

    def work(
        self,
        model: str,
        tokens: int,
        pace: float,
        payload: Any = None,
        *,
        prompt_tokens: int = 0,
        known_tokens: int = 0,
    ) -> Work:
        """A call, not yet sent. ``pace``: how much longer it takes than usual.

        ``known_tokens``: of its prompt a runner that has answered before remembers so many.
        """
        shape = self._shape_of(model)
        pace = pace * self._pace * self.shape.offloaded(shape.gb) / 1000
        answer_s = tokens * shape.ms_per_token * pace
        token_s = shape.prompt_ms_per_token * pace
        prompt_s = shape.prompt_ms * pace + token_s * (prompt_tokens - known_tokens)
        left = prompt_s + answer_s
        cold_s = token_s * known_tokens
        return Work(model, tokens, left, answer_s, self.now, cold_s, payload=payload)

    def send(self, work: Work) -> bool:
        """False: it is turned away at once, because the queue for loads is full."""
        work.sent = self.now
        runner = self._runners.get(work.model)
        if runner is not None and not runner.dead:
            runner.waiting.append(work)
            self._fill(runner)
            return True
        if self._head is not None and len(self._queue) >= self.shape.max_queue:
            return False
        self._queue.append(work)
        self._pump()
        return True

    def leave(self, work: Work) -> None:
        """The call has ended, or its client has left; harmless for one that is not there."""
        runner = work.runner or self._runners.get(work.model)
        if work.begun is not None:
            if work in self.running:
                self.running.remove(work)
                if runner is not None:
                    self._freed(runner)
        elif work is self._head:
            self._head, self._ready_at = None, _NEVER
            self._pump()
        elif work in self._queue:
            self._queue.remove(work)
        elif runner is not None and work in runner.waiting:
            runner.waiting.remove(work)
            self._rest(runner)

    def next_at(self) -> float:
        """The moment of the next thing that happens by itself; inf: nothing does."""
        at = self._ready_at
        if self.running:
            at = min(at, self._turns_at, self.now + self._to_crash_s)
            for work in self.running:
                assert work.runner is not None
                left = work.left
                if work.streams and work.answering is None:
                    left -= work.answer_s
                ends = self.now + max(0.0, left) * work.runner.slowness
                at = min(at, ends)
        self._expires_at = self._expiry()
        return min(at, self._expires_at)

    def advance(self, to: float) -> list[Work]:
        """Time passes until ``to``, at most until ``next_at``; the calls that are done then."""
        self.begun, self.crashed = [], []
        done = self._compute(to) if self.running else []
        self.now = to
        self._neighbour(to)
        if self._ready_at <= to + _SAME_MOMENT:
            self._loaded()
        if self._to_crash_s <= _NOTHING_LEFT:
            self._to_crash_s = self._until_crash()
            self._crash(done)
        # What becomes idle now is unloaded now only where nothing is kept.
        if self._expires_at <= to + _SAME_MOMENT or self.shape.keep_alive_s == 0:
            self._expire(to)
        return done

    def report(self, work: Work) -> Answered:
        """What the answer of a call that is done says of itself."""
        assert work.begun is not None
        answering = work.begun if work.answering is None else work.answering
        return Answered(
            tokens=work.tokens,
            eval_s=self.now - answering,
            prompt_s=answering - work.begun,
            load_s=work.load_s + _OVERHEAD_S,
            total_s=self.now - work.sent + _OVERHEAD_S,
        )

    def crash(self, runner: str) -> list[Work]:
        """A model's runner dies; the calls it takes along. It stays listed until it is needed."""
        dead = self._runners[runner]
        dead.dead = True
        lost = [work for work in self.running if work.runner is dead]
        self.running = [work for work in self.running if work.runner is not dead]
        lost += dead.waiting
        dead.waiting.clear()
        dead.running = 0
        self._share()
        self._rest(dead)
        return lost

    # Computing.

    def _compute(self, to: float) -> list[Work]:
        done: list[Work] = []
        passed = to - self.now
        self.busy_s += passed
        self._to_crash_s -= passed
        for work in self.running:
            assert work.runner is not None
            slowness = work.runner.slowness
            work.left -= passed / slowness
            if work.answering is None and work.left <= work.answer_s + _NOTHING_LEFT:
                work.answering = to - max(0.0, work.answer_s - work.left) * slowness
                if work.streams:
                    self.begun.append(work)
            if work.left <= _NOTHING_LEFT:
                done.append(work)
        return done

    def _share(self) -> None:
        """How the machine is shared has changed."""
        if self.shape.batching is None:
            slowness = self.shape.slowdown(len(self.running)) * self._slow
            for runner in self._runners.values():
                runner.slowness = slowness
            return
        active = [runner for runner in self._runners.values() if runner.running]
        slowness = self.shape.slowdown(len(active)) * self._slow
        for runner in active:
            runner.slowness = slowness * (1 + self.shape.batching * (runner.running - 1))

    def _neighbour(self, to: float) -> None:
        neighbour = self.shape.neighbour
        while neighbour is not None and self._turns_at <= to + _SAME_MOMENT:
            busy = self._slow == 1.0
            self._slow = neighbour.slowdown if busy else 1.0
            mean_s = neighbour.busy_s if busy else neighbour.idle_s
            self._turns_at += self._chance.expovariate(1 / mean_s)
            self._share()

    def _until_crash(self) -> float:
        every_s = self.shape.crash_every_s
        return _NEVER if every_s is None else self._chance.expovariate(1 / every_s)

    def _crash(self, done: list[Work]) -> None:
        left = [work for work in self.running if work not in done]
        if left:
            self.crashed = self.crash(self._chance.choice(left).model)

    # Slots.

    def _fill(self, runner: _Runner) -> None:
        """Give the runner's free slots to those who wait for one."""
        began = False
        while runner.waiting and runner.running < self.shape.num_parallel:
            work = runner.waiting.popleft()
            work.begun = runner.used = self.now
            work.runner = runner
            if runner.fresh:
                work.left += work.cold_s
                runner.fresh = False
            runner.running += 1
            self.running.append(work)
            began = True
        if began:
            self._share()

    def _freed(self, runner: _Runner) -> None:
        """One of its slots has come free."""
        if runner.dead:
            return
        runner.running -= 1
        runner.used = self.now
        self._fill(runner)
        self._share()
        self._rest(runner)

    def _rest(self, runner: _Runner) -> None:
        """Where the runner has come to rest, who waits for that may go on."""
        if runner.idle:
            if runner.doomed:
                self._unload(runner)
            self._pump()

    # Loads.

    def _pump(self) -> None:
        """Advance the head of the queue as far as it goes; loads happen one at a time."""
        while self._ready_at == _NEVER:
            if self._head is None:
                if not self._queue:
                    return
                self._head = self._queue.popleft()
            if not self._place(self._head):
                return
            self._head = None

    def _place(self, work: Work) -> bool:
        """True: its runner is there. False: it is being loaded, or there is no room yet."""
        runner = self._runners.get(work.model)
        if runner is not None and not runner.dead:
            self._use(runner, work)
            return True
        if runner is not None:
            self._unload(runner)
        shape = self._shape_of(work.model)
        while not self._has_room(shape.gb):
            if not self._make_room():
                return False
        self.loads[work.model] = self.loads.get(work.model, 0) + 1
        self._ready_at = self.now + shape.load_ms / 1000
        return False

    def _loaded(self) -> None:
        """The load has ended."""
        work, self._head, self._ready_at = self._head, None, _NEVER
        assert work is not None
        runner = _Runner(work.model, self._shape_of(work.model), self.now)
        self._runners[work.model] = runner
        self._names = None
        self._use(runner, work)
        self._pump()

    def _use(self, runner: _Runner, work: Work) -> None:
        work.load_s = self.now - work.sent
        runner.waiting.append(work)
        self._fill(runner)

    def _has_room(self, gb: float) -> bool:
        loaded_gb = sum(runner.shape.gb for runner in self._runners.values())
        return self.shape.has_room(gb, len(self._runners), loaded_gb)

    def _make_room(self) -> bool:
        """Unload one runner; False: none is idle, and one will unload when it is."""
        runners = self._runners.values()
        idle = [runner for runner in runners if runner.idle]
        if idle:
            self._unload(min(idle, key=_to_unload))
            return True
        if not any(runner.doomed for runner in runners):
            min(runners, key=_to_unload).doomed = True
        return False

    def _unload(self, runner: _Runner) -> None:
        del self._runners[runner.model]
        self._names = None

    def _expiry(self) -> float:
        """When the next idle runner is unloaded; inf: none is."""
        keep_s, at = self.shape.keep_alive_s, _NEVER
        if keep_s == _NEVER:
            return at
        for runner in self._runners.values():
            if runner.idle and runner.used + keep_s < at:
                at = runner.used + keep_s
        return at

    def _expire(self, now: float) -> None:
        keep_s = self.shape.keep_alive_s
        for runner in list(self._runners.values()):
            if runner.idle and runner.used + keep_s <= now + _SAME_MOMENT:
                self._unload(runner)
                self._pump()

    def _shape_of(self, model: str) -> ModelShape:
        shape = self._shapes.get(model)
        if shape is None:
            shape = self._shapes[model] = self.shape.of(model)
        return shape


def _pace_of_machine(drift: float, seed: int) -> float:
    """How many times as long as usual everything takes in this run.

    Seeds that follow one another are spread evenly, by the golden ratio: the middle of a few of
    them is a machine as it usually is.
    """
    share = (seed + 0.5) * _GOLDEN % 1.0
    return math.exp(drift * NormalDist().inv_cdf(min(0.999, max(0.001, share))))


def _to_unload(runner: _Runner) -> tuple[str, float]:
    return runner.shape.blob, runner.used
