"""What the kept records say of the last minutes, hours or days: series for charts, and sums.

Every query is bounded in rows and goes by an index. Where a span has more calls than
``MOST_CALLS``, the sums are of the newest of them, and a chart's step is of its first
``MOST_OF_STEP``; both are told. The work is done in pieces, so that a thread of the proxy never
keeps its event loop from the interpreter for long.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modelsplit_policy.failures import ErrorCode
from modelsplit_policy.slo.ranked import Ranked
from modelsplit_policy.vocabulary import Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from modelsplit_proxy.records.reader import Read

MOST_CALLS: Final = 10_000
MOST_OF_STEP: Final = 200
# Clients may invent names of models without end.
MOST_MODELS: Final = 40
_PIECE: Final = 100
# As the recorder's writer: the event loop gets the interpreter if it wants it.
_YIELD_S: Final = 0.00002
_QUANTILES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
_TIMEOUTS: Final = frozenset({ErrorCode.TIMEOUT_LOCAL, ErrorCode.TIMEOUT_CLOUD})
_LEFT: Final = frozenset({"client_gone", ErrorCode.CLIENT_GONE})
_COLUMNS: Final = (
    "started_us, role, calls.model, calls.outcome, calls.reason, total_us, wait_us, calls.load_us, "
    "fallback, calls.output_tokens, eval_us, calls.cost_usd"
)
_FROM: Final = (
    "FROM calls LEFT JOIN attempts ON attempts.call_id = calls.id AND number = calls.attempts"
)
NEWEST: Final = (
    f"SELECT {_COLUMNS} {_FROM} WHERE started_us >= ? AND started_us < ? "
    "ORDER BY started_us DESC LIMIT ?"
)
OF_STEP: Final = (
    f"SELECT {_COLUMNS} {_FROM} WHERE started_us >= ? AND started_us < ? "
    "ORDER BY started_us LIMIT ?"
)
COUNT: Final = "SELECT count(*) FROM calls WHERE started_us >= ? AND started_us < ?"
LAG: Final = (
    "SELECT (minute * 60 - ?) / ?, max(lag_p99_us) FROM heartbeats "
    "WHERE minute >= ? AND minute < ? GROUP BY 1"
)


class Span(NamedTuple):
    """How far a chart looks back, and in which steps. Seconds."""

    length_s: int
    step_s: int

    @property
    def steps(self) -> int:
        return self.length_s // self.step_s


SPANS: Final[Mapping[str, Span]] = MappingProxyType(
    {
        "15m": Span(900, 15),
        "5h": Span(18_000, 300),
        "24h": Span(86_400, 1_200),
        "7d": Span(604_800, 7_200),
    }
)


class _Call(NamedTuple):
    """The columns of ``_COLUMNS``."""

    started_us: int
    role: str | None
    model: str | None
    outcome: str
    reason: str | None
    total_us: int
    wait_us: int | None
    load_us: int | None
    fallback: int | None
    output_tokens: int | None
    eval_us: int | None
    cost_usd: float | None

    @property
    def is_ok(self) -> bool:
        return self.outcome == "ok"

    @property
    def is_failure(self) -> bool:
        """Whether it failed; one whose client left did not."""
        return not self.is_ok and self.outcome not in _LEFT


@dataclass(slots=True)
class _Step:
    """One role's calls within one step. ``scale``: calls for each one that was read."""

    latency: Ranked = field(default_factory=Ranked)
    wait: Ranked = field(default_factory=Ranked)
    tokens: int = 0
    calls: int = 0
    scale: float = 1.0

    def add(self, call: _Call) -> None:
        self.calls += 1
        self.tokens += call.output_tokens or 0
        self.wait.add(call.wait_us or 0)
        if call.is_ok:
            self.latency.add(call.total_us)


@dataclass(slots=True)
class _RoleSums:
    latency: Ranked = field(default_factory=Ranked)
    wait: Ranked = field(default_factory=Ranked)
    counts: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)

    def add(self, call: _Call) -> None:
        counts = self.counts
        counts["calls"] += 1
        counts["failed"] += call.is_failure
        counts["timeouts"] += call.outcome in _TIMEOUTS
        counts["fallbacks"] += call.fallback == 1
        self.models[call.model or ""] += 1
        self.wait.add(call.wait_us or 0)
        if call.is_ok:
            self.latency.add(call.total_us)

    def fields(self) -> dict[str, Any]:
        counts = ("calls", "failed", "timeouts", "fallbacks")
        return {name: self.counts[name] for name in counts} | {
            "wait_ms": _quantiles(self.wait),
            "latency_ms": _quantiles(self.latency),
            "models": [[name, count] for name, count in self.models.most_common(3)],
        }


@dataclass(slots=True)
class _ModelSums:
    calls: int = 0
    failed: int = 0
    unpriced: int = 0
    cost_usd: float = 0.0
    tokens: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    # Thousandths of a token a second, and microseconds.
    speed: Ranked = field(default_factory=Ranked)
    load: Ranked = field(default_factory=Ranked)

    def add(self, call: _Call) -> None:
        self.calls += 1
        self.tokens += call.output_tokens or 0
        self.cost_usd += call.cost_usd or 0.0
        self.unpriced += call.cost_usd is None
        if call.is_failure:
            self.failed += 1
            self.causes[call.reason or call.outcome] += 1
        if call.output_tokens and call.eval_us:
            self.speed.add(round(call.output_tokens * 1e9 / call.eval_us))
        if call.load_us:
            self.load.add(call.load_us)

    def fields(self, name: str) -> dict[str, Any]:
        return {
            "model": name,
            "calls": self.calls,
            "failed": self.failed,
            "causes": [[cause, count] for cause, count in self.causes.most_common(3)],
            "tokens": self.tokens,
            "tokens_per_s": _at(self.speed, 0.5),
            "load_ms": {"p50": _at(self.load, 0.5), "most": _at(self.load, 1.0)},
            "cost_usd": round(self.cost_usd, 9),
            "unpriced": self.unpriced,
        }


class History:
    """Reads it. Everything blocks on disk and may raise StoreError."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def fields(self, span: Span, now_us: int) -> dict[str, Any]:
        """Series and sums of the last ``span`` until now, as values for JSON."""
        begin_us = _begin_us(span, now_us)
        end_us = begin_us + span.length_s * 1_000_000
        rows = self._read(NEWEST, (begin_us, end_us, MOST_CALLS + 1))
        sampled = len(rows) > MOST_CALLS
        calls = [_Call(*row) for row in rows[:MOST_CALLS]]
        steps = self._sampled(span, begin_us) if sampled else _in_steps(calls, span, begin_us)
        return {
            "from": begin_us // 1_000_000,
            "step_s": span.step_s,
            "steps": span.steps,
            "calls": len(calls),
            "sampled": sampled,
            "sums_since": calls[-1].started_us / 1e6 if sampled else begin_us / 1e6,
            "series": _series(steps, span),
            "lag_ms": self._lag(span, begin_us),
            "roles": _roles(calls),
            **_models(calls),
        }

    def _sampled(self, span: Span, begin_us: int) -> dict[str, dict[int, _Step]]:
        """Step by step, so many calls of each; the others are counted."""
        out: dict[str, dict[int, _Step]] = {}
        for number in range(span.steps):
            low = begin_us + number * span.step_s * 1_000_000
            high = low + span.step_s * 1_000_000
            rows = self._read(OF_STEP, (low, high, MOST_OF_STEP))
            scale = 1.0
            if len(rows) == MOST_OF_STEP:
                [(count,)] = self._read(COUNT, (low, high))
                scale = count / MOST_OF_STEP
            for call in (_Call(*row) for row in rows):
                step = out.setdefault(call.role or "", {}).setdefault(number, _Step(scale=scale))
                step.add(call)
        return out

    def _lag(self, span: Span, begin_us: int) -> list[float | None]:
        """The worst P99 of a minute in each step; None: nothing was noted."""
        begin_s = begin_us // 1_000_000
        between = (begin_s // 60, (begin_s + span.length_s) // 60 + 1)
        out: list[float | None] = [None] * span.steps
        for number, lag_us in self._read(LAG, (begin_s, span.step_s, *between)):
            if 0 <= number < span.steps and lag_us is not None:
                out[number] = lag_us / 1000
        return out


def _begin_us(span: Span, now_us: int) -> int:
    """Steps begin at whole multiples, so that a chart's past does not change its shape."""
    step_us = span.step_s * 1_000_000
    return (now_us // step_us + 1 - span.steps) * step_us


def _in_pieces(calls: list[_Call]) -> Iterator[_Call]:
    for begin in range(0, len(calls), _PIECE):
        yield from calls[begin : begin + _PIECE]
        time.sleep(_YIELD_S)


def _in_steps(calls: list[_Call], span: Span, begin_us: int) -> dict[str, dict[int, _Step]]:
    out: dict[str, dict[int, _Step]] = {}
    for call in _in_pieces(calls):
        number = (call.started_us - begin_us) // (span.step_s * 1_000_000)
        out.setdefault(call.role or "", {}).setdefault(number, _Step()).add(call)
    return out


def _series(steps: dict[str, dict[int, _Step]], span: Span) -> dict[str, dict[str, list[Any]]]:
    """By role; each has one value a step, None where there was no call."""
    return {
        role: _of_role([steps[role].get(number) for number in range(span.steps)], span)
        for role in Role
        if role in steps
    }


def _of_role(steps: Iterable[_Step | None], span: Span) -> dict[str, list[Any]]:
    known = [step or _Step() for step in steps]
    return {
        "calls": [round(step.calls * step.scale) for step in known],
        "tokens_per_s": [round(step.tokens * step.scale / span.step_s, 3) for step in known],
        "latency_p50_ms": [_at(step.latency, 0.5) for step in known],
        "latency_p95_ms": [_at(step.latency, 0.95) for step in known],
        "wait_p95_ms": [_at(step.wait, 0.95) for step in known],
    }


def _roles(calls: list[_Call]) -> dict[str, dict[str, Any]]:
    sums = {str(role): _RoleSums() for role in Role}
    for call in _in_pieces(calls):
        if call.role in sums:
            sums[call.role].add(call)
    return {role: row.fields() for role, row in sums.items()}


def _models(calls: list[_Call]) -> dict[str, Any]:
    """The models with the most calls, and how many others there are."""
    named = Counter(call.model for call in calls if call.model)
    sums = {name: _ModelSums() for name, _ in named.most_common(MOST_MODELS)}
    for call in _in_pieces(calls):
        if call.model in sums:
            sums[call.model].add(call)
    models = [row.fields(name) for name, row in sums.items()]
    return {"models": models, "other_models": len(named) - len(sums)}


def _quantiles(values: Ranked) -> dict[str, float | None]:
    return {name: _at(values, q) for name, q in _QUANTILES}


def _at(values: Ranked, q: float) -> float | None:
    """Thousandths as they are shown; None: there is no value."""
    return values.quantile(q) / 1000 if values.count else None
