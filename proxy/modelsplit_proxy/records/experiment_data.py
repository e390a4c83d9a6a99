"""The calls of an experiment as they are kept in the state file, as what comparisons read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.comparison import End, Observation
from modelsplit_policy.failures import ErrorCode, Reason

if TYPE_CHECKING:
    from modelsplit_proxy.records.reader import Read

MOST_CALLS: Final = 20_000
"""Only so many calls of an experiment are looked at, the newest.

The report is made in a thread of the proxy, whose event loop must not wait long for the
interpreter: sorting a hundred thousand numbers held it for 60 ms, twenty thousand for 7.
"""

_NAMES: Final = (
    "SELECT experiment, min(role), count(*), min(started_us), max(started_us) FROM calls "
    "WHERE experiment IS NOT NULL AND started_us >= ? GROUP BY experiment ORDER BY experiment"
)
_CALLS: Final = """
SELECT calls.id, variant, job_id, client, request_id, total_us, calls.outcome, calls.reason,
    calls.attempts, json_extract(calls.more, '$.schema'), calls.cost_usd, calls.fallback,
    attempts.outcome, attempts.dispatched_us, attempts.output_tokens, attempts.eval_us
FROM calls LEFT JOIN attempts ON attempts.call_id = calls.id AND attempts.number = 1
WHERE experiment = ? AND started_us >= ? ORDER BY started_us DESC LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class KeptCalls:
    """What the state file has of one experiment: calls, and when the first and last came."""

    name: str
    role: str
    calls: int
    first_us: int
    last_us: int


class ExperimentData:
    """Finds the calls of experiments. Everything blocks on disk and may raise StoreError."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def kept(self, since_us: int) -> list[KeptCalls]:
        """The experiments that have calls since then, by name."""
        return [KeptCalls(*row) for row in self._read(_NAMES, (since_us,))]

    def calls(self, experiment: str, sticky: str, since_us: int) -> list[Observation]:
        """The newest calls of one experiment; ``sticky`` says which belong together."""
        rows = self._read(_CALLS, (experiment, since_us, MOST_CALLS))
        return [_observation(row, sticky) for row in rows]


def _observation(row: tuple[Any, ...], sticky: str) -> Observation:
    call_id, arm, job, client, request, *rest = row
    total_us, outcome, reason, attempts, schema, cost, fallback, *first = rest
    first_outcome, dispatched_us, tokens, eval_us = first
    end = _end(outcome, reason, sent=dispatched_us is not None)
    return Observation(
        arm=arm,
        cluster=_cluster(sticky, job, client, request or str(call_id)),
        end=end,
        latency_s=total_us / 1e6,
        unfit=None if reason == Reason.CUT else _unfit(schema, attempts, first_outcome),
        cost_usd=cost,
        tokens_per_s=tokens / eval_us * 1e6 if tokens and eval_us else None,
        fell_back=bool(fallback),
    )


def _cluster(sticky: str, job: str | None, client: str | None, request: str) -> str:
    """As ``experiments.sticky_key``: what the arm was dealt by."""
    if sticky == "client" and client:
        return f"client:{client}"
    return f"job:{job}" if sticky == "job" and job else f"request:{request}"


def _end(outcome: str, reason: str | None, *, sent: bool) -> End:
    if outcome == "ok":
        return End.ANSWERED
    if outcome in {"client_gone", ErrorCode.CLIENT_GONE}:
        return End.CLIENT_GONE
    # A model that its breaker stops is not asked either, but that is its own failing.
    return End.FAILED if sent or reason == Reason.BREAKER_OPEN else End.TURNED_AWAY


def _unfit(schema: str | None, attempts: int | None, first_outcome: str | None) -> bool | None:
    """Whether the arm's own answer did not fit; None: it was not held to a schema, or not sent."""
    if first_outcome == ErrorCode.SCHEMA_INVALID:
        return True
    checked = schema in {"valid", "invalid"} and attempts == 1
    return schema == "invalid" if checked else None
