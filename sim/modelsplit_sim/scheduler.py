"""Which request runs when: runners, slots, loads and evictions, as observed.

Decisions are synchronous; time comes in through `Timers` (an event loop is one), and a job
learns its fate through its `wake` callback. Nothing here awaits.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config import SimConfig
    from .models import ModelSpec


class Cancellable(Protocol):
    def cancel(self) -> None: ...


class Timers(Protocol):
    """The part of asyncio's loop that the scheduler needs; seconds."""

    def time(self) -> float: ...
    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Cancellable: ...


class JobState(StrEnum):
    NEW = "new"
    QUEUED = "queued"  # needs a load, reload or swap; bounded by max_queue
    LOADING = "loading"
    WAITING = "waiting"  # behind the slots of a loaded runner; unbounded
    RUNNING = "running"
    GONE = "gone"


class QueueFullError(Exception):
    """The bounded queue has no place (observed: 503 at once)."""


def _nothing(_job: Job) -> None:
    """The default wake: nobody listens."""


@dataclass(slots=True, eq=False)
class Job:
    """One request's claim on a runner; `needs_slot` is false for load requests."""

    spec: ModelSpec
    num_ctx: int
    keep_alive_s: float | None = None
    needs_slot: bool = True
    extra_load_s: float = 0.0
    wake: Callable[[Job], None] = _nothing
    state: JobState = JobState.NEW
    runner: Runner | None = None
    ready_at: float | None = None  # when its runner was loaded; a slot may still be awaited


@dataclass(slots=True, eq=False)
class Runner:
    """One loaded model. `doomed`: unload when the last job ends. `dead`: its process crashed."""

    spec: ModelSpec
    num_ctx: int
    keep_alive_s: float
    running: set[Job] = field(default_factory=set)
    waiting: deque[Job] = field(default_factory=deque)
    doomed: bool = False
    dead: bool = False
    expires_at: float | None = None  # loop seconds; None while in use or kept for ever
    timer: Cancellable | None = None

    @property
    def busy(self) -> bool:
        return bool(self.running or self.waiting)


class Scheduler:
    def __init__(self, config: SimConfig, timers: Timers, changed: Callable[[], None]) -> None:
        self._config = config
        self._timers = timers
        self._changed = changed
        self.runners: dict[str, Runner] = {}
        self.pending: deque[Job] = deque()
        self.head: Job | None = None
        self._load: Cancellable | None = None

    def submit(self, job: Job) -> None:
        """Take a job in. Raises QueueFullError.

        Observed: a warm model's waiters never touch the bounded queue, and go before the
        request that waits for this runner to be evicted.
        """
        runner = self.runners.get(job.spec.key)
        if runner is not None and not _needs_reload(runner, job):
            self._use(runner, job)
            return
        if self.head is not None and len(self.pending) >= self._config.max_queue:
            raise QueueFullError
        self._move(job, JobState.QUEUED)
        self.pending.append(job)
        self._pump()

    def leave(self, job: Job) -> None:
        """A job ended or its client left, in whatever state it is; safe to call twice."""
        state, job.state = job.state, JobState.GONE
        if job is self.head:
            self._drop_head()
        elif state is JobState.QUEUED and job in self.pending:
            self.pending.remove(job)
        elif job.runner is not None:
            self._release(job.runner, job)
        self._changed()

    def unload(self, key: str) -> None:
        """keep_alive 0 without a prompt: unload at once, or when the running work ends."""
        runner = self.runners.get(key)
        if runner is not None:
            self._doom(runner)
            self._pump()
        self._changed()

    def crash(self, runner: Runner) -> None:
        """The runner's process dies; it stays listed and is reloaded by the next request."""
        runner.dead = True
        self._changed()

    def clear(self) -> None:
        """Forget everything: the server process ended."""
        for handle in (self._load, *(runner.timer for runner in self.runners.values())):
            if handle is not None:
                handle.cancel()
        self.runners.clear()
        self.pending.clear()
        self.head = self._load = None

    def _move(self, job: Job, state: JobState) -> None:
        job.state = state
        job.wake(job)
        self._changed()

    def _pump(self) -> None:
        """Advance the head of the queue as far as it goes; loads happen one at a time."""
        while self._load is None:
            if self.head is None:
                if not self.pending:
                    return
                self.head = self.pending.popleft()
            if not self._place(self.head):
                return
            self.head = None

    def _place(self, job: Job) -> bool:
        """True when the job found a warm runner; else it waits for room or loads."""
        runner = self.runners.get(job.spec.key)
        if runner is not None and not _needs_reload(runner, job):
            self._use(runner, job)
            return True
        victim = runner or self._victim()
        if victim is not None:
            self._doom(victim)
            if victim.busy:
                return False
        self._start_load(job)
        return False

    def _victim(self) -> Runner | None:
        if len(self.runners) < self._config.max_loaded:
            return None
        return min(self.runners.values(), key=_to_unload)

    def _start_load(self, job: Job) -> None:
        delay = self._config.load_s(job.spec) + job.extra_load_s
        self._load = self._timers.call_later(delay, self._loaded, job)
        self._move(job, JobState.LOADING)

    def _loaded(self, job: Job) -> None:
        self._load = self.head = None
        runner = Runner(job.spec, job.num_ctx, self._config.keep_alive_s)
        self.runners[job.spec.key] = runner
        self._use(runner, job)
        self._pump()

    def _use(self, runner: Runner, job: Job) -> None:
        _stop_timer(runner)
        job.runner = runner
        job.ready_at = self._timers.time()
        if job.keep_alive_s is not None:
            runner.keep_alive_s = job.keep_alive_s
        if job.needs_slot and len(runner.running) >= self._config.num_parallel:
            runner.waiting.append(job)
            self._move(job, JobState.WAITING)
        else:
            self._run(runner, job)

    def _run(self, runner: Runner, job: Job) -> None:
        runner.running.add(job)
        self._move(job, JobState.RUNNING)

    def _drop_head(self) -> None:
        """Observed: giving up during a load aborts it.

        Giving up while waiting for an eviction leaves the eviction standing and loads nothing.
        """
        if self._load is not None:
            self._load.cancel()
            self._load = None
        self.head = None
        self._pump()

    def _release(self, runner: Runner, job: Job) -> None:
        runner.running.discard(job)
        if job in runner.waiting:
            runner.waiting.remove(job)
        while runner.waiting and len(runner.running) < self._config.num_parallel:
            self._run(runner, runner.waiting.popleft())
        if runner.busy:
            return
        if runner.doomed or runner.keep_alive_s == 0:
            self._unload(runner)
        else:
            self._expire_later(runner)
        self._pump()

    def _expire_later(self, runner: Runner) -> None:
        _stop_timer(runner)
        if runner.keep_alive_s < 0:
            return
        runner.expires_at = self._timers.time() + runner.keep_alive_s
        runner.timer = self._timers.call_later(runner.keep_alive_s, self._expired, runner)

    def _expired(self, runner: Runner) -> None:
        self._unload(runner)
        self._pump()
        self._changed()

    def _doom(self, runner: Runner) -> None:
        runner.doomed = True
        if not runner.busy:
            self._unload(runner)

    def _unload(self, runner: Runner) -> None:
        _stop_timer(runner)
        if self.runners.get(runner.spec.key) is runner:
            del self.runners[runner.spec.key]


def _needs_reload(runner: Runner, job: Job) -> bool:
    """Observed: num_ctx is a load-time option, and a crashed runner is reloaded."""
    return runner.dead or runner.num_ctx != job.num_ctx


def _stop_timer(runner: Runner) -> None:
    if runner.timer is not None:
        runner.timer.cancel()
    runner.timer = runner.expires_at = None


def _to_unload(runner: Runner) -> tuple[bool, float, str]:
    """Whose turn it is to make room: as Ollama has it, by keep-alive and then by file."""
    keep_alive_s = runner.keep_alive_s
    return runner.busy, math.inf if keep_alive_s < 0 else keep_alive_s, runner.spec.digest
