"""What all handlers share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .journal import CallState
from .scheduler import JobState

if TYPE_CHECKING:
    from .config import SimConfig
    from .exchange import Exchange
    from .faults import Faults
    from .journal import Call, Journal
    from .models import Catalogue
    from .pacing import Compute
    from .scheduler import Job, Scheduler

_STATES = {
    JobState.QUEUED: CallState.QUEUED,
    JobState.LOADING: CallState.LOADING,
    JobState.WAITING: CallState.WAITING,
    JobState.RUNNING: CallState.RUNNING,
}


@dataclass(slots=True)
class World:
    """blobs: digests ("sha256:…") that were uploaded."""

    config: SimConfig
    catalogue: Catalogue
    scheduler: Scheduler
    faults: Faults
    journal: Journal
    compute: Compute
    blobs: set[str] = field(default_factory=set)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def turn(self, call: Call, job: Job) -> None:
        """Submit a job and return when it runs. Raises QueueFullError."""
        running = asyncio.Event()

        def wake(moved: Job) -> None:
            call.state = _STATES[moved.state]
            self.journal.counts.loads += moved.state is JobState.LOADING
            if moved.state is JobState.RUNNING:
                call.started_at = self.now()
                if moved.needs_slot:
                    self.journal.enter(moved.spec.name)
                running.set()

        job.wake = wake
        self.scheduler.submit(job)
        await running.wait()

    def leave(self, exchange: Exchange, job: Job) -> None:
        """Give back whatever the job holds; the count first, for the slot goes on at once."""
        exchange.was_queued = job in self.scheduler.pending
        if job.state is JobState.RUNNING and job.needs_slot:
            self.journal.leave(job.spec.name)
        self.scheduler.leave(job)
