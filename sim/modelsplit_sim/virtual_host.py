"""A host in virtual time: runs calls as Ollama does on shared silicon, in no time at all.

Each model has a runner with ``num_parallel`` slots; a call beyond them waits inside, first
come first served, as it does in Ollama. A model that is not loaded is loaded first, and the
one that was used longest ago makes room. Calls that run slow each other down: up to ``free``
at once not at all, beyond that n at once take ``1 + contention * (n - free)`` times as long
each. A neighbour on the machine may slow everything down from time to time.

Nothing here waits: the caller says what time it is. Seconds throughout.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

# What Ollama calls loading where the model is loaded.
_OVERHEAD_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Something else on the machine: busy and idle in turn, for these means, exponentially.

    While it is busy everything takes ``slowdown`` times as long.
    """

    busy_s: float
    idle_s: float
    slowdown: float


@dataclass(frozen=True, slots=True)
class HostShape:
    """What a host can do. ``spread``: the standard deviation of a call's pace, relative."""

    name: str
    ms_per_token: float = 14.7
    prompt_ms: float = 58.0
    load_ms: float = 1700.0
    contention: float = 1.0
    free: int = 1
    num_parallel: int = 1
    max_loaded: int = 3
    spread: float = 0.08
    neighbour: Neighbour | None = None

    def slowdown(self, running: int) -> float:
        """How much longer each of so many at once takes than it would alone."""
        return 1 + self.contention * max(0, running - self.free)


@dataclass(slots=True, eq=False)
class Work:
    """One call at the host. ``left`` and ``answer_s``: seconds of the machine, if alone.

    ``begun``: it has a slot from then on; ``answering``: its prompt is read.
    """

    model: str
    tokens: int
    left: float
    answer_s: float
    sent: float
    load_s: float = 0.0
    begun: float | None = None
    answering: float | None = None
    payload: Any = None


class Answered(NamedTuple):
    """The durations in Ollama's last line. ``total_s`` holds the waits inside as well."""

    tokens: int
    eval_s: float
    prompt_s: float
    load_s: float
    total_s: float


@dataclass(slots=True)
class _Runner:
    used: float
    running: int = 0
    ready_at: float | None = None
    waiting: deque[Work] = field(default_factory=deque)


class VirtualHost:
    """The host. ``loaded``: models that are loaded from the beginning."""

    def __init__(self, shape: HostShape, seed: int = 0, loaded: Iterable[str] = ()) -> None:
        self.shape = shape
        self.now = 0.0
        self.running: list[Work] = []
        self.busy_s = 0.0
        self._runners = {model: _Runner(0.0) for model in loaded}
        self._queue: deque[Work] = deque()
        self._slow = 1.0
        self._turns_at = float("inf")
        self._chance = random.Random(seed)
        if shape.neighbour is not None:
            self._turns_at = self._chance.expovariate(1 / shape.neighbour.idle_s)

    def __repr__(self) -> str:
        return f"<VirtualHost {self.shape.name} {len(self.running)} running at {self.now:.3f}>"

    @property
    def loaded(self) -> frozenset[str]:
        return frozenset(m for m, runner in self._runners.items() if runner.ready_at is None)

    def work(self, model: str, tokens: int, pace: float, payload: Any = None) -> Work:
        """A call, not yet sent. ``pace``: how much longer it takes than usual."""
        answer_s = tokens * self.shape.ms_per_token / 1000 * pace
        prompt_s = self.shape.prompt_ms / 1000 * pace
        return Work(model, tokens, prompt_s + answer_s, answer_s, self.now, payload=payload)

    def send(self, work: Work) -> None:
        work.sent = self.now
        self._queue.append(work)
        self._settle()

    def leave(self, work: Work) -> None:
        """The call has ended, or its client has left."""
        runner = self._runners.get(work.model)
        if work.begun is not None:
            self.running.remove(work)
            if runner is not None:
                runner.running -= 1
                runner.used = self.now
        elif work in self._queue:
            self._queue.remove(work)
        elif runner is not None and work in runner.waiting:
            runner.waiting.remove(work)
        self._settle()

    def next_at(self) -> float:
        """The moment of the next thing that happens by itself; inf: nothing does."""
        at = self._turns_at if self.running else float("inf")
        for runner in self._runners.values():
            if runner.ready_at is not None and runner.ready_at < at:
                at = runner.ready_at
        if self.running:
            least = min(work.left for work in self.running)
            at = min(at, self.now + max(0.0, least) * self._slowness())
        return at

    def advance(self, to: float) -> list[Work]:
        """Time passes until ``to``, at most until ``next_at``; the calls that are done then."""
        done: list[Work] = []
        if self.running:
            slowness = self._slowness()
            passed = (to - self.now) / slowness
            self.busy_s += to - self.now
            for work in self.running:
                work.left -= passed
                if work.answering is None and work.left <= work.answer_s:
                    work.answering = to - (work.answer_s - work.left) * slowness
                if work.left <= 1e-9:
                    done.append(work)
        self.now = to
        self._neighbour(to)
        for runner in self._runners.values():
            if runner.ready_at is not None and runner.ready_at <= to + 1e-12:
                runner.ready_at = None
                self._settle()
                break
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

    def _slowness(self) -> float:
        return self.shape.slowdown(len(self.running)) * self._slow

    def _neighbour(self, to: float) -> None:
        neighbour = self.shape.neighbour
        while neighbour is not None and self._turns_at <= to + 1e-12:
            busy = self._slow == 1.0
            self._slow = neighbour.slowdown if busy else 1.0
            mean_s = neighbour.busy_s if busy else neighbour.idle_s
            self._turns_at += self._chance.expovariate(1 / mean_s)

    def _settle(self) -> None:
        """Load what the head of the queue needs, and fill slots."""
        while self._queue:
            runner = self._runner_for(self._queue[0])
            if runner is None or runner.ready_at is not None:
                break
            runner.waiting.append(self._queue.popleft())
        slots = self.shape.num_parallel
        for runner in self._runners.values():
            while runner.ready_at is None and runner.waiting and runner.running < slots:
                work = runner.waiting.popleft()
                work.begun = runner.used = self.now
                runner.running += 1
                self.running.append(work)

    def _runner_for(self, work: Work) -> _Runner | None:
        """The call's runner, loading perhaps; None: no room yet."""
        runner = self._runners.get(work.model)
        if runner is not None:
            return runner
        if len(self._runners) >= self.shape.max_loaded:
            idle = [m for m, r in self._runners.items() if not r.running and not r.waiting]
            if not idle:
                return None
            del self._runners[min(idle, key=lambda model: self._runners[model].used)]
        load_s = self.shape.load_ms / 1000
        work.load_s = load_s
        runner = self._runners[work.model] = _Runner(self.now, ready_at=self.now + load_s)
        return runner
