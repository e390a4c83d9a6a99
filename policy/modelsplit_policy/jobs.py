"""A job: the calls and tools that one client did one thing with, from its start to its end.

Events in, state out. Moments are whole microseconds of the wall clock; they may come in any
order, and again. A job begins with the earliest moment known of it: its start if that was told,
else its first call. It ends when it is told to be finished and the calls that were running then
have ended, or expires some time after its last event. What comes later is counted, and late.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from modelsplit_policy.vocabulary import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable

# Jobs that have not ended; one more is not begun on a client's word.
MOST_OPEN: Final = 10_000
# A tool may take less than this.
TOOL_MS_MAX: Final = 86_400_000
WHY_MAX: Final = 200


class VerdictError(Exception):
    """A job that has ended, or is told to, is told otherwise. ``state``: as it ended."""

    def __init__(self, state: JobState) -> None:
        super().__init__(state)
        self.state = state


@dataclass(frozen=True, slots=True)
class Job:
    """What is known of one job.

    ``first_us``, ``last_us``: the earliest and the latest moment of all its events.
    ``started_us``: when its start was told. ``finished_us``, ``verdict``, ``why``: when it was
    told to be finished, whether OK or FAILED, and why. ``ended_us``: when it ended; the verdict
    is its state only then. None: not yet, or never.
    """

    first_us: int
    last_us: int
    started_us: int | None = None
    finished_us: int | None = None
    verdict: JobState | None = None
    why: str | None = None
    state: JobState = JobState.OPEN
    ended_us: int | None = None

    def seen(self, began_us: int, ended_us: int | None = None) -> Job:
        """With something of it that was then; ``ended_us`` None: at that moment."""
        last_us = began_us if ended_us is None else max(began_us, ended_us)
        return replace(
            self, first_us=min(self.first_us, began_us), last_us=max(self.last_us, last_us)
        )

    def start(self, at_us: int) -> Job:
        """Its start is told; that of before holds."""
        if self.started_us is not None:
            return self
        return replace(self.seen(at_us), started_us=at_us)

    def finish(self, at_us: int, verdict: JobState, why: str | None = None) -> Job:
        """It is told to be finished; the same again changes nothing. Raises VerdictError.

        It ends with ``ended``, once no call of it runs that began before.
        """
        if self.state is JobState.EXPIRED:
            raise VerdictError(self.state)
        if self.verdict is None:
            return replace(self.seen(at_us), finished_us=at_us, verdict=verdict, why=why)
        if self.verdict is not verdict:
            raise VerdictError(self.verdict)
        return self

    def is_late(self, began_us: int) -> bool:
        """Whether a call, or the report of a tool, of that moment came after the job."""
        over_us = self.ended_us if self.finished_us is None else self.finished_us
        return over_us is not None and began_us > over_us

    def ended(self, calls: Iterable[tuple[int, int]]) -> Job:
        """Ended as told. ``calls``: beginning and end of each; the last in time is its end."""
        if self.state is not JobState.OPEN or self.verdict is None or self.finished_us is None:
            return self
        ends = [ended_us for began_us, ended_us in calls if not self.is_late(began_us)]
        # A clock that was set back must not make it end before it began.
        end_us = max(self.finished_us, self.first_us, *ends)
        return replace(self, state=self.verdict, ended_us=end_us)

    def expired(self, now_us: int, after_us: int) -> Job:
        """The same, or ended with its last event where that is ``after_us`` ago.

        Only to be asked while no call of it runs.
        """
        is_open = self.state is JobState.OPEN and self.verdict is None
        if not is_open or now_us < self.last_us + after_us:
            return self
        return replace(self, state=JobState.EXPIRED, ended_us=self.last_us)

    @property
    def e2e_us(self) -> int | None:
        """From start to finish; None: it has not ended, or nobody said when."""
        if self.ended_us is None or self.state is JobState.EXPIRED:
            return None
        return self.ended_us - self.first_us


def begun(at_us: int) -> Job:
    """A job of which that moment is all that is known."""
    return Job(at_us, at_us)
