"""A job told in words and as a waterfall, 80 columns wide, from the object ``/jobs/{id}`` gives."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.failures import said_back
from modelsplit_proxy.runtime import local_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Columns: of what a row is about, of the bar, of how long it took.
_LABEL: Final = 28
_BAR: Final = 40
_WIDTH: Final = 80
# A column of a bar, by what most of its time went to.
_INK: Final = MappingProxyType(
    {"queue": ".", "upstream_wait": "~", "load": "=", "llm": "#", "tools": "+", "gap": "_"}
)
_WORDS: Final = MappingProxyType(
    {
        "llm": "answering",
        "tools": "tools",
        "load": "loading",
        "upstream_wait": "waiting inside Ollama",
        "queue": "in line",
        "rest": "the rest",
    }
)
# What a row without spans of its own is drawn as.
_WHOLE: Final = MappingProxyType({"tool": "tools", "gap": "gap", "call": "llm"})
_GAP_MS: Final = 1.0
_HEAD: Final = f"{'LAST EVENT':23}  STATE          TOOK  CALLS  FAILED  TOOLS  JOB"
# Rows of a waterfall; a job of thousands of calls is read as JSON.
_MOST: Final = 200


def text(job: Mapping[str, Any]) -> str:
    """The whole story. Raises KeyError if ``job`` is not what ``/jobs/{id}`` answers with."""
    return "".join(f"{said_back(line, _WIDTH).rstrip()}\n" for line in _lines(job))


def listing(jobs: Sequence[Mapping[str, Any]]) -> str:
    """Jobs, given newest first, a line each below a head, the last one last; none: nothing."""
    lines = [_HEAD, *(_line(job) for job in reversed(jobs))] if jobs else []
    return "".join(f"{said_back(line, 400).rstrip()}\n" for line in lines)


def _line(job: Mapping[str, Any]) -> str:
    took = job["job_e2e_latency_ms"]
    parts = [
        f"{local_time.second(job['last_event_at']):23}",
        f"{job['state']:7}",
        f"{'-' if took is None else f'{took / 1000:.2f} s':>10}",
        f"{job['calls'] + job['running']:>5}",
        f"{job['failures'] or '-':>6}",
        f"{job['tools']:>5}",
        job["job_id"],
    ]
    if job["running"]:
        parts.append(f"{job['running']} running")
    if job["late"]:
        parts.append(f"{job['late']} late")
    if job["why"]:
        parts.append(f"({job['why']})")
    return "  ".join(parts)


def _lines(job: Mapping[str, Any]) -> Iterator[str]:
    yield _row("job", job["job_id"])
    yield _row("state", _state(job))
    if job["why"]:
        yield _row("why", job["why"])
    yield _row("when", f"{_moment(job['started_at'])} to {_moment(job['ended_at'])}")
    yield _row("calls", _calls(job))
    yield _row("tools", f"{job['tools']}")
    if job["late"]:
        yield _row("late", f"{job['late']} calls or tools came after its end")
    yield ""
    yield from _time(job)
    yield ""
    yield from _waterfall(job)


def _moment(stamp: str | None) -> str:
    return "now" if stamp is None else local_time.millisecond(stamp)


def _row(name: str, text: str) -> str:
    return f"{name:10} {text}"


def _state(job: Mapping[str, Any]) -> str:
    total = _s(job["total_ms"])
    if job["state"] == "open":
        ends = ", told to end when its calls have" if job["finished_at"] else ""
        return f"open for {total}{ends}"
    if job["state"] == "expired":
        return f"expired: nobody finished it; last heard of after {total}"
    told = "" if job["start_told_at"] else ", its start was never told"
    return f"{job['state']} after {total}{told}"


def _calls(job: Mapping[str, Any]) -> str:
    parts = [str(job["calls"] + job["running"])]
    parts += [f"{role} {count}" for role, count in job["roles"].items()]
    if job["running"]:
        parts.append(f"{job['running']} running")
    if job["failures"]:
        parts.append(f"{job['failures']} failed")
    return ", ".join(parts)


def _time(job: Mapping[str, Any]) -> Iterator[str]:
    """The parts, which add up to the whole."""
    whole = job["total_ms"]
    for part, words in _WORDS.items():
        took = job["time"][f"{part}_ms"]
        if took:
            share = f"{took / whole:4.0%}" if whole else ""
            ink = _INK.get(part, " ")
            yield f"{'':10} {_s(took):>11}  {share}  {ink} {words}"


def _waterfall(job: Mapping[str, Any]) -> Iterator[str]:
    """Calls, tools and gaps in the order in which they began, each with its bar."""
    scale = max(job["total_ms"], 0.001) / _BAR
    begin, end = "0 s", _s(job["total_ms"])
    yield f"{'':{_LABEL}}|{begin}{end:>{_BAR - len(begin)}}|"
    gaps = ({"what": "gap", **gap} for gap in job["gaps"])
    wide = [gap for gap in gaps if gap["ended_ms"] - gap["began_ms"] >= max(scale / 2, _GAP_MS)]
    rows = sorted([*job["timeline"], *wide], key=lambda row: row["began_ms"])
    for row in rows[:_MOST]:
        yield f"{_label(row):{_LABEL}}|{_bar(row, scale)}|{_took(row, job)}"
    left_out = len(rows[_MOST:]) + job["left_out"]
    if left_out:
        yield f"… and {left_out} more"


def _label(row: Mapping[str, Any]) -> str:
    if row["what"] == "gap":
        return "gap"
    if row["what"] == "tool":
        label = f"tool     {row['name']}{'' if row['ok'] else ' failed'}"
    else:
        failed = "" if row["outcome"] in {"ok", "running"} else f" {row['outcome']}"
        label = f"{row['llm_role'] or '-':8} {row['llm_model'] or '-'}{failed}"
    late = " late" if row["late"] else ""
    return said_back(label, _LABEL - 1 - len(late)) + late


def _bar(row: Mapping[str, Any], scale: float) -> str:
    """What each column's time mostly went to; the first and last touch of it are shown."""
    spans = row.get("spans") or [{"part": _WHOLE[row["what"]], **_ends(row)}]
    took = [dict.fromkeys(_INK, 0.0) for _ in range(_BAR)]
    for span in spans:
        since, until = max(0.0, span["began_ms"]), span["ended_ms"]
        if until < 0 or since > scale * _BAR:
            continue
        first = min(_BAR - 1, int(since / scale))
        last = max(first, min(_BAR - 1, int(until / scale - 1e-9)))
        for column in range(first, last + 1):
            inside = min(until, (column + 1) * scale) - max(since, column * scale)
            # Even what takes no time at all is seen.
            took[column][span["part"]] += max(inside, scale / 1e6)
    return "".join(
        _INK[max(column, key=column.__getitem__)] if any(column.values()) else " "
        for column in took
    )


def _ends(row: Mapping[str, Any]) -> dict[str, float]:
    ended = row["ended_ms"]
    return {
        "began_ms": row["began_ms"],
        "ended_ms": row["began_ms"] if ended is None else ended,
    }


def _took(row: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    if row["ended_ms"] is None:
        return f"{_s(job['total_ms'] - row['began_ms']):>9}+"
    return f"{_s(row['ended_ms'] - row['began_ms']):>10}"


def _s(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.3f} s"
