"""What ``/stats`` says, as one screen for people: the verdict there, and nothing judged here."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.parallelism import Basis
from modelsplit_policy.verdict import refused_by
from modelsplit_proxy.admin import host_rows, latency_table
from modelsplit_proxy.protocol import budget_text
from modelsplit_proxy.records.live import no_answer
from modelsplit_proxy.runtime import local_time
from modelsplit_proxy.runtime.tasks import Watcher
from modelsplit_proxy.runtime.text_table import table

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN_CALLS: Final = 10
_ID_MAX: Final = 12


def lines(stats: dict[str, Any]) -> Iterator[str]:
    """The statistics as lines: the verdict first, then what it is made of."""
    yield from _verdict(stats)
    yield ""
    yield from table([*_roles(stats)], "<>>><>>>>")
    yield from _failures(stats["recent"]["roles"])
    yield from _unrouted(stats["recent"]["unrouted"])
    yield ""
    yield from latency_table.lines(stats["latencies"])
    yield ""
    yield from _seats(stats)
    if stats.get("hosts"):
        yield ""
        yield from host_rows.lines(stats["hosts"])
        yield ""
    yield from _running(stats["running"])
    yield from _waiters(stats["waiters"])
    yield from _budgets(stats["spending"])
    yield from _breakers(stats["breakers"])
    yield from _own_parts(stats)


# 1. The verdict.


def _verdict(stats: dict[str, Any]) -> Iterator[str]:
    health = stats["health"]
    yield f"{health['level']}  {_upstream(stats['upstream'])}"
    told = [("cause", cause) for cause in health["causes"]]
    told += [("note", note) for note in health["notes"]]
    # Each with what to do next; several in a row may want the same.
    for step, rows in groupby(told, key=lambda row: row[1]["next"]):
        yield from (f"{word:<9}{row['text']}" for word, row in rows)
        if step:
            yield f"next     {step}"


def _upstream(upstream: dict[str, Any]) -> str:
    known = {
        True: f"Ollama {upstream['version']} at {upstream['address']}",
        None: f"Ollama at {upstream['address']} has not been asked yet",
    }
    away = f"no Ollama answers at {upstream['address']}: {upstream['error']}"
    return known.get(upstream["up"], away)


# 2. The roles, now and lately.


def _roles(stats: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    span = _span(stats["recent"]["window_s"])
    yield (
        *("ROLE", "RUN/CAP", "RSVD", "WAIT/MAX", "OLDEST"),
        *(f"CALLS/{span}", "FAILED", "P50", "P95"),
    )
    for role, row in stats["roles"].items():
        seats = "-" if row["seats"] is None else row["seats"]
        recent = stats["recent"]["roles"][role]
        yield (
            role,
            f"{row['running']}/{seats}",
            str(row["reserved"]),
            f"{row['waiting']}/{row['max_queue']}",
            _oldest(stats["waiters"], role),
            str(recent["calls"]),
            str(recent["failed"]),
            _seconds(recent["p50_ms"]),
            _seconds(recent["p95_ms"]),
        )


def _span(seconds: float) -> str:
    return f"{seconds:.0f} S" if seconds < 60 else f"{seconds / 60:.0f} MIN"


def _seconds(milliseconds: float | None) -> str:
    """Three digits, so that a row fits in 80 columns."""
    if milliseconds is None:
        return "-"
    seconds = milliseconds / 1000
    digits = 2 if seconds < 9.995 else 1 if seconds < 99.95 else 0
    return f"{seconds:.{digits}f} s"


def _oldest(waiters: list[dict[str, Any]], role: str) -> str:
    ages = [waiter["waited_ms"] for waiter in waiters if waiter["llm_role"] == role]
    return f"{max(ages) / 1000:.1f} s" if ages else "-"


def _failures(recent: dict[str, dict[str, Any]]) -> Iterator[str]:
    """By reason; what failed apart from what was refused, and that by whose doing it is."""
    for role, row in recent.items():
        if row["reasons"]:
            yield f"failed   {role}: {_counts(row['reasons'])}"
        for whose in sorted(set(map(refused_by, row["refused"]))):
            counts = {key: n for key, n in row["refused"].items() if refused_by(key) == whose}
            yield f"refused  {role}: {_counts(counts)} ({whose})"
        if row["left"]:
            yield f"left     {role}: {row['left']} by their clients"


def _unrouted(reasons: dict[str, int]) -> Iterator[str]:
    if reasons:
        total = sum(reasons.values())
        yield f"refused  before a role was known: {total} ({_counts(reasons)})"


def _counts(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{reason} {count}" for reason, count in ordered)


# 3. Seats, and who has one or waits.


def _seats(stats: dict[str, Any]) -> Iterator[str]:
    everyone, learned = stats["global"], stats["parallelism"]
    inside = f", {everyone['inside']} of them waiting inside Ollama" if everyone["inside"] else ""
    yield (
        f"seats    {everyone['running']} of {everyone['seats']} local ones taken{inside}; "
        f"{everyone['lent']} lent"
    )
    yield f"learned  {_learned(learned)}"
    loaded = learned["resident"]
    yield f"loaded   {'unknown' if loaded is None else ', '.join(loaded) or 'nothing'}"


def _learned(learned: dict[str, Any]) -> str:
    """How many at once, and why so many."""
    late = "more are started only when they are late"
    if learned["basis"] == Basis.POLICY:
        return f"nothing: the policy says {learned['host']} at once; {late}"
    if learned["basis"] == Basis.START:
        return f"nothing yet: {learned['host']} at once to begin with; more are tried as calls wait"
    return f"{learned['host']} at once run best (contention {learned['contention']:g}); {late}"


def _running(calls: list[dict[str, Any]]) -> Iterator[str]:
    """Those that do not wait in our line, the oldest first."""
    running = [call for call in calls if call["state"] != "queued"]
    for call in running[:_SHOWN_CALLS]:
        silent = "" if call["silent_ms"] is None else f", {no_answer(call['state'])}"
        yield (
            f"running  {call['llm_role'] or '-'} {call['model'] or '-'} "
            f"{call['age_ms'] / 1000:.1f} s{silent}, {call['request_id'][:_ID_MAX]}"
        )
    if len(running) > _SHOWN_CALLS:
        yield f"running  … and {len(running) - _SHOWN_CALLS} more"


def _waiters(waiters: list[dict[str, Any]]) -> Iterator[str]:
    longest = sorted(waiters, key=lambda waiter: -float(waiter["waited_ms"]))
    for waiter in longest[:_SHOWN_CALLS]:
        yield (
            f"waiting  {waiter['llm_role']} {waiter['model']} {waiter['waited_ms'] / 1000:.1f} s "
            f"({waiter['hold']}) from {waiter['client']}, place {waiter['place']}{_more(waiter)}"
        )
    if len(waiters) > _SHOWN_CALLS:
        yield f"waiting  … and {len(waiters) - _SHOWN_CALLS} more"


def _more(waiter: dict[str, Any]) -> str:
    expected_ms = waiter["expected_wait_ms"]
    return "" if expected_ms is None else f", about {expected_ms / 1000:.1f} s more"


# 4. Budgets, breakers, our own parts.


def shared_lines(shared: dict[str, Any]) -> Iterator[str]:
    """How counting together with others stands."""
    if shared["error"]:
        age, since = budget_text.span(shared["away_s"]), local_time.minute(shared["since"])
        yield f"shared   nothing can be counted for {age}, since {since}: {shared['error']}"
    else:
        yield f"shared   counted together by {shared['proxies']} modelsplits"


def _budgets(spending: dict[str, Any]) -> Iterator[str]:
    if spending["writes_lost"]:
        yield f"budget   {spending['writes_lost']} writes of what is counted are lost"
    for budget in spending["budgets"] if spending["open"] else ():
        yield f"budget   {budget_text.line(budget)}"
    if shared := spending.get("shared"):
        yield from shared_lines(shared)
    if spending["approvals"]:
        refused = spending["cloud_refused"]
        but = f" (CLOUD cannot be served: {refused})" if refused else ""
        yield f"cloud    {spending['approved_usd_left']:.2f} USD of what is approved are left{but}"
    elif spending["open"]:
        yield "cloud    closed: no approval is in force"


def _breakers(breakers: list[dict[str, Any]]) -> Iterator[str]:
    for breaker in breakers:
        if breaker["state"] == "closed":
            continue
        trial = f"trial in {breaker['trial_in_s']:.1f} s"
        yield f"breaker  {breaker['breaker']} {breaker['state']} ({trial}): {breaker['why']}"


def _own_parts(stats: dict[str, Any]) -> Iterator[str]:
    yield cost_line(stats["cost"])
    yield f"lag      {stats['event_loop_lag_p99_ms']:g} ms (event loop, p99 of the last minute)"
    state = stats["ledger"]
    if state["error"] is not None:
        lost = state["dropped"]
        yield f"state    {state['waiting']} writes wait for the disk, {lost} records are lost"
    for watcher in [Watcher(**watcher) for watcher in stats["watchers"]]:
        if watcher.failures:
            now = "runs again" if watcher.running else "waits to be started again"
            yield f"task     {watcher.name} failed {watcher.failures} times, {now}: {watcher.error}"


def cost_line(cost: dict[str, Any]) -> str:
    """The ``cost`` of ``/stats`` as one line."""
    by_role: dict[str, float] = {}
    for part in cost["parts"]:
        by_role[part["llm_role"]] = by_role.get(part["llm_role"], 0.0) + part["usd"]
    shares = ", ".join(f"{role} {usd:.4f}" for role, usd in by_role.items() if usd)
    more = f" ({shares})" if shares else ""
    if cost["unknown"]:
        attempts = f"attempt{'s' * (cost['unknown'] != 1)}"
        more += f", {cost['unknown']} {attempts} at an unknown price"
    if cost["price_table"]:
        more += f"; {cost['price_table']}"
    since = local_time.minute(cost["since"])
    return f"cost     {cost['usd']:.4f} USD, an estimate, since {since}{more}"
