"""Calls that are still running, so that they can be explained as far as they are."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modelsplit_policy.call import State
from modelsplit_policy.model_names import canonical
from modelsplit_policy.vocabulary import Provider
from modelsplit_proxy.records import rows
from modelsplit_proxy.records.query_error import RUNNING
from modelsplit_proxy.records.record import NAME_MAX
from modelsplit_proxy.records.values import log_fields
from modelsplit_proxy.runtime.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelsplit_proxy.records.query import Query
    from modelsplit_proxy.records.record import CallRecord
    from modelsplit_proxy.runtime.clock import Clock


# The state of a call that waits for its model to be loaded, as far as that is known.
LOADING: Final = "loading"


def no_answer(state: str) -> str:
    """Why nothing has come of a running call in that state, in words, as far as it is known."""
    return "loading its model" if state == LOADING else "no answer yet"


def _nobody_knows(model: str, host: str | None) -> bool | None:
    del model, host
    return None


class LiveCall(NamedTuple):
    """A running call. ``role`` None: it has none. ``state``: as of ``policy: call``, or LOADING.

    ``silent_s``: how long it has waited for its answer to begin; None: it has begun, or the
    call was not sent. ``tokens``: what has come of a stream, each piece of it counted as one, and
    how many a second; None: it has not begun, or is no stream that is read.
    """

    request_id: str
    role: str | None
    model: str
    state: str
    age_s: float
    silent_s: float | None
    client: str
    tokens: int | None
    tokens_per_s: float | None


class LiveCalls:
    """The records of running calls. Ids are the clients': two calls may share one.

    ``loaded``: whether a model, by its canonical name, is loaded on the host of that name, None of
    the only one; None: nobody knows.
    """

    def __init__(
        self, clock: Clock, loaded: Callable[[str, str | None], bool | None] = _nobody_knows
    ) -> None:
        self._clock = clock
        self._loaded = loaded
        self._records: dict[int, CallRecord] = {}

    def __len__(self) -> int:
        return len(self._records)

    def enter(self, record: CallRecord) -> None:
        self._records[id(record)] = record

    def leave(self, record: CallRecord) -> None:
        self._records.pop(id(record), None)

    def of_job(self, job_id: str) -> list[CallRecord]:
        """Those of a job, in the order in which they came."""
        return [record for record in self._records.values() if record.job_id == job_id]

    def by_job(self) -> dict[str, list[CallRecord]]:
        """The jobs that have a call that runs, each with those, as above."""
        out: dict[str, list[CallRecord]] = {}
        for record in self._records.values():
            if record.job_id is not None:
                out.setdefault(record.job_id, []).append(record)
        return out

    def longest_silence_s(self) -> float:
        """How long the call has been waiting whose answer has not begun for longest; 0: none."""
        now = self._clock.now()
        waits = (_silent_s(record, now) for record in self._records.values())
        return max((wait_s for wait_s in waits if wait_s is not None), default=0.0)

    def calls(self) -> list[LiveCall]:
        """All running calls, the oldest first."""
        now = self._clock.now()
        return [self._live(record, now) for record in self._records.values()]

    def silent(self, least_s: float) -> list[LiveCall]:
        """Those that have waited at least so long for their answer to begin, the oldest first."""
        now = self._clock.now()
        waits = ((record, _silent_s(record, now)) for record in self._records.values())
        return [
            self._live(record, now)
            for record, wait_s in waits
            if wait_s is not None and wait_s >= least_s
        ]

    def newest(self, query: Query, limit: int) -> list[dict[str, Any]]:
        """The last running calls to come that are like this, each as a finished one is listed.

        Newest first. However many run, few more than these are put into words.
        """
        likely = (row for row in reversed(self._records.values()) if _may_fit(row, query))
        fitting = filter(query.fits, map(self._listed, likely))
        return list(islice(fitting, limit))

    def find(self, request_id: str) -> dict[str, Any] | None:
        """The latest running call with this id, in the shape of a finished one."""
        return self._latest(lambda known_as: known_as == request_id)

    def begins(self, start: str) -> dict[str, Any] | None:
        """The latest running call whose id begins so, in the shape of a finished one."""
        return self._latest(lambda known_as: known_as.startswith(start))

    def _latest(self, fits: Callable[[str], bool]) -> dict[str, Any] | None:
        for record in reversed(self._records.values()):
            if fits(record.request_id):
                return self.fields(record)
        return None

    def fields(self, record: CallRecord) -> dict[str, Any]:
        """A running call in the shape of a finished one, with its attempts."""
        return self._listed(record) | {"attempts": rows.attempts_fields(record)}

    def _listed(self, record: CallRecord) -> dict[str, Any]:
        fields, now = log_fields(record), self._clock.now()
        so_far_s = now - record.started
        so_far_ms = round(so_far_s * 1000, 3)
        if fields["planner_latency_ms"] is not None:
            fields["planner_latency_ms"] = so_far_ms
        return fields | {
            "state": self._state(record),
            "ts": rfc3339(record.started_wall + so_far_s),
            "outcome": RUNNING,
            "call_e2e_latency_ms": so_far_ms,
            "llm_queue_wait_ms": round((record.queue_wait_s + _waits_s(record, now)) * 1000, 3),
        }

    def _live(self, record: CallRecord, now: float) -> LiveCall:
        return LiveCall(
            record.request_id,
            None if record.routing is None else record.routing.role,
            record.model,
            self._state(record),
            now - record.started,
            _silent_s(record, now),
            record.client,
            *_tokens(record, now),
        )

    def _state(self, record: CallRecord) -> str:
        if record.call.state is State.DISPATCHED and record.routing is not None:
            attempt = record.attempts[-1]
            is_here = record.routing.provider is Provider.LOCAL
            if is_here and self._loaded(canonical(attempt.model), attempt.host) is False:
                return LOADING
        return str(record.call.state)


def _may_fit(record: CallRecord, query: Query) -> bool:
    """Whether it is worth a closer look: what can be told without putting it into words."""
    role = None if record.routing is None else record.routing.role
    models = (record.model[:NAME_MAX], record.requested_model[:NAME_MAX])
    return (
        not query.failed
        and query.outcome in {None, RUNNING}
        and query.role in {None, role}
        and query.job in {None, record.job_id}
        and query.client in {None, record.client}
        and (query.model is None or query.model in models)
    )


def _waits_s(record: CallRecord, now: float) -> float:
    """For how long its last attempt has been in line that is still there; 0: none is."""
    attempt = record.attempts[-1] if record.attempts else None
    if attempt is None or attempt.seated is not None or attempt.ended is not None:
        return 0.0
    return now - attempt.asked


def _tokens(record: CallRecord, now: float) -> tuple[int | None, float | None]:
    """How many have come, and how many a second since the first."""
    attempt = record.attempts[-1] if record.attempts else None
    if attempt is None or attempt.stream is None or attempt.first_byte is None:
        return None, None
    pieces, took_s = attempt.stream.pieces, now - attempt.first_byte
    return pieces, pieces / took_s if took_s > 0 else None


def _silent_s(record: CallRecord, now: float) -> float | None:
    """How long it has waited for its answer to begin; None: it does not."""
    attempt = record.attempts[-1] if record.attempts else None
    if attempt is None or attempt.dispatched is None or attempt.first_byte is not None:
        return None
    return None if attempt.ended is not None else now - attempt.dispatched
