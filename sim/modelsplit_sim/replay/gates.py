"""What the gates say of a run: its calls and jobs as samples, judged as real ones are.

Gates 1 to 3 are about calls and jobs. Gates 0 and 4 ask for the process's own heartbeats and
for a week, of which a simulation has neither.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modelsplit_policy.failures import ErrorCode
from modelsplit_policy.slo.judge import judge
from modelsplit_policy.slo.report import Verdict, worst_of
from modelsplit_policy.slo.samples import CLIENT_GONE, OK, CallSample, JobSample, Samples
from modelsplit_policy.vocabulary import Context, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.slo.report import Finding

    from .attempt import CallRun
    from .run import Played

GATES: Final = (1, 2, 3)
_US: Final = 1_000_000


class Judged(NamedTuple):
    """One objective of one gate in one run; ``value`` None: nothing was observed."""

    gate: int
    objective: str
    bound: str
    limit: float | None
    holds: str
    value: float | None
    verdict: Verdict


def judged(played: Played, policy: Policy) -> list[Judged]:
    """Every objective of the gates, over the whole run."""
    now_us = math.ceil(played.seconds) * _US
    outcome_of = _outcome_without_proxy if played.is_direct else _outcome
    calls = (_call(call, outcome_of(call)) for call in played.calls)
    samples = Samples(calls=calls, jobs=_jobs(played.calls))
    report = judge(samples, policy.slo, now_us, since_s=max(1, now_us // _US), gates=GATES)
    return [
        _judged(gate.number, finding)
        for gate in report.gates
        if gate.number is not None
        for finding in gate.findings
    ]


def gate_fields(runs: Sequence[Sequence[Judged]]) -> list[dict[str, Any]]:
    """Each gate over all runs, as plain values, with the verdict that most of them give it."""
    fields = []
    for gate in dict.fromkeys(each.gate for each in runs[0]):
        own = [[each for each in run if each.gate == gate] for run in runs]
        verdicts = Counter(worst_of(each.verdict for each in run) for run in own)
        fields.append(
            {
                "gate": gate,
                "verdict": str(_usual(verdicts)),
                "runs": {str(verdict): count for verdict, count in verdicts.items()},
                "objectives": [_objective_fields(row) for row in zip(*own, strict=True)],
            }
        )
    return fields


def breached(fields: Iterable[Mapping[str, Any]]) -> list[int]:
    """The gates, as ``gate_fields`` gives them, that do not hold."""
    return [gate["gate"] for gate in fields if gate["verdict"] == Verdict.BREACH]


def _objective_fields(row: Sequence[Judged]) -> dict[str, Any]:
    """One objective, run by run."""
    verdicts = Counter(each.verdict for each in row)
    values = [each.value for each in row if each.value is not None]
    return {
        "name": row[0].objective,
        "bound": row[0].bound,
        "holds": row[0].holds,
        "limit": row[0].limit,
        "value": statistics.fmean(values) if values else None,
        "verdict": str(_usual(verdicts)),
        "runs": {str(verdict): count for verdict, count in verdicts.items()},
    }


def _usual(verdicts: Counter[Verdict]) -> Verdict:
    """The one that most runs have; of two as frequent, the worse."""
    most = max(verdicts.values())
    return worst_of(verdict for verdict, count in verdicts.items() if count == most)


def _judged(gate: int, finding: Finding) -> Judged:
    row = finding.objective
    return Judged(
        gate, row.name, row.bound, finding.bound, str(row.holds), finding.value, finding.verdict
    )


def _outcome(call: CallRun) -> str:
    if call.gone:
        return CLIENT_GONE
    return OK if call.failure is None else str(call.failure.code)


def _outcome_without_proxy(call: CallRun) -> str:
    """Without one the client itself is who ends what takes too long."""
    return str(ErrorCode.TIMEOUT_LOCAL) if call.gone else _outcome(call)


def _call(call: CallRun, outcome: str) -> CallSample:
    last = call.attempts[-1] if call.attempts else None
    route = call.route if call.attempts else None
    return CallSample(
        request_id=f"{call.number}.{call.retry}",
        started_us=_us(call.arrived),
        ended_us=_us(call.arrived + call.latency_s),
        role=None if route is None else str(route.role),
        outcome=outcome,
        reason=None if call.failure is None else str(call.failure.reason),
        attempt_codes=tuple(_codes(call, outcome)),
        sent=any(attempt.dispatched is not None for attempt in call.attempts),
        queue_wait_us=_us(call.waited_s),
        upstream_wait_us=None
        if last is None or last.upstream_wait_s is None
        else _us(last.upstream_wait_s),
        llm_latency_us=_llm_latency_us(call),
        context=None if route is None else str(route.context),
        provider=None if last is None else str(last.provider),
        model=None if last is None else last.model,
        fallback_used=call.fallback_used,
        schema_checked=call.checked,
    )


def _codes(call: CallRun, outcome: str) -> Iterator[str]:
    for attempt in call.attempts:
        yield outcome if attempt.failure is None else str(attempt.failure.code)


def _llm_latency_us(call: CallRun) -> int | None:
    last = call.attempts[-1] if call.attempts else None
    if last is None or last.dispatched is None or last.ended is None:
        return None
    load_s = 0.0 if last.answered is None else last.answered.load_s
    return _us(last.ended - last.dispatched - load_s - (last.upstream_wait_s or 0.0))


def _jobs(calls: Iterable[CallRun]) -> Iterator[JobSample]:
    """Each job from its first call to its last; it has failed where that one has."""
    of: dict[str, list[CallRun]] = {}
    for call in calls:
        if call.demand.job:
            of.setdefault(call.demand.job, []).append(call)
    for job, own in of.items():
        last = max(own, key=_ended)
        yield JobSample(
            job_id=job,
            started_us=_us(min(call.arrived for call in own)),
            ended_us=_us(_ended(last)),
            state=JobState.OK if last.ok else JobState.FAILED,
            executor=any(call.route.context is Context.EXECUTOR for call in own if call.attempts),
        )


def _ended(call: CallRun) -> float:
    return call.arrived + call.latency_s


def _us(seconds: float) -> int:
    return round(seconds * _US)
