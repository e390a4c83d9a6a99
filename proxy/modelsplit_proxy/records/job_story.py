"""One job told whole: its calls, its tools, its gaps, and where its time went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.job_time import Part, Span, attempt_spans, gaps, parts
from modelsplit_proxy.records import job_reader
from modelsplit_proxy.records.job_reader import MOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from modelsplit_policy.jobs import Job
    from modelsplit_proxy.records.job_reader import KeptJob, ToldCall, ToldTool

_OF_CALL: Final = (
    *("request_id", "llm_role", "llm_context", "requested_model", "llm_model", "purpose"),
    *("outcome", "fallback_used"),
)


def story(
    kept: KeptJob, calls: Sequence[ToldCall], tools: Sequence[ToldTool], now_us: int
) -> dict[str, Any]:
    """The fields of a job and what happened in it. Moments are milliseconds since it began.

    ``calls``: those that run last. ``now_us``: until when a job that has not ended is told.
    """
    job = kept.job
    end_us = job.ended_us if job.ended_us is not None else max(now_us, job.last_us)
    spans = [span for call in calls for span in _spans(call, end_us)]
    spans += [Span(Part.TOOLS, tool.at_us - tool.duration_us, tool.at_us) for tool in tools]
    busy = [(call.started_us, _until(call, end_us)) for call in calls]
    busy += [(tool.at_us - tool.duration_us, tool.at_us) for tool in tools]
    time = parts(job.first_us, end_us, spans)
    running = sum(call.ended_us is None for call in calls)
    left_out = max(0, kept.sums["calls"] + running - len(calls))
    left_out += max(0, kept.sums["tools"] - len(tools))
    return job_reader.fields(kept, running) | {
        "total_ms": _ms(end_us - job.first_us),
        "time": {f"{part}_ms": _ms(took_us) for part, took_us in time.items()},
        "timeline": [
            *(_call(job, call, end_us) for call in calls),
            *(_tool(job, tool) for tool in tools),
        ],
        "gaps": [
            {"began_ms": _since(job, began), "ended_ms": _since(job, ended)}
            for began, ended in gaps(job.first_us, end_us, busy)[:MOST]
        ],
        "left_out": left_out,
    }


def _until(call: ToldCall, end_us: int) -> int:
    return max(call.started_us, end_us) if call.ended_us is None else call.ended_us


def _spans(call: ToldCall, end_us: int) -> Iterator[Span]:
    """What a call's attempts waited for and did, in moments of the wall clock."""
    until_us = _until(call, end_us)
    for attempt in call.fields["attempts"] or ():
        ended_us = _at(call, attempt["ended_ms"])
        yield from attempt_spans(
            _at(call, attempt["asked_ms"]),
            _at(call, attempt["seated_ms"]),
            _at(call, attempt["dispatched_ms"]),
            until_us if ended_us is None else ended_us,
            load_us=_us(attempt["load_ms"]),
            upstream_wait_us=_us(attempt["upstream_wait_ms"]),
        )


def _at(call: ToldCall, since_ms: float | None) -> int | None:
    return None if since_ms is None else call.started_us + round(since_ms * 1000)


def _us(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds * 1000)


def _call(job: Job, call: ToldCall, end_us: int) -> dict[str, Any]:
    running = call.ended_us is None
    return {
        "what": "call",
        **{name: call.fields[name] for name in _OF_CALL},
        "began_ms": _since(job, call.started_us),
        "ended_ms": None if running else _since(job, call.ended_us),
        "late": job.is_late(call.started_us),
        "spans": [
            {
                "part": span.part,
                "began_ms": _since(job, span.began_us),
                "ended_ms": _since(job, span.ended_us),
            }
            for span in _spans(call, end_us)
        ],
    }


def _tool(job: Job, tool: ToldTool) -> dict[str, Any]:
    return {
        "what": "tool",
        "name": tool.name,
        "ok": tool.ok,
        "began_ms": _since(job, tool.at_us - tool.duration_us),
        "ended_ms": _since(job, tool.at_us),
        "duration_ms": _ms(tool.duration_us),
        "late": job.is_late(tool.at_us),
    }


def _since(job: Job, at_us: int | None) -> float | None:
    return None if at_us is None else _ms(at_us - job.first_us)


def _ms(microseconds: int) -> float:
    return microseconds / 1000
