"""``modelsplit status``: one screen of what the running proxy is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.cli import admin_client, latency_table
from modelsplit_proxy.cli.command import JSON, Command, settings_of
from modelsplit_proxy.cli.output import ExitCode, show, table, talk
from modelsplit_proxy.protocol import budget_text
from modelsplit_proxy.runtime import tasks
from modelsplit_proxy.runtime.tasks import Watcher

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from modelsplit_proxy.config.settings import Address

_SHOWN_WAITERS: Final = 10


def run(admin: Address, *, as_json: bool) -> int:
    """Ask the admin listener and print the answer; returns the exit code."""
    stats = ask(admin)
    if isinstance(stats, str):
        talk(stats)
        return ExitCode.NOT_RUNNING
    show(stats, lines(stats), as_json=as_json)
    well = stats["health"]["level"] == "OK" and _trouble(stats) is None
    return ExitCode.OK if well else ExitCode.FAILED


def _command(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return run(settings_of(args, environ).admin, as_json=args.json)


COMMAND: Final = Command(
    "status",
    "what the running proxy is doing",
    "One screen of what the running proxy is doing. Exit 0: well; 1: degraded; 3: not running.",
    _command,
    (JSON,),
    settings=("admin",),
)


def lines(stats: dict[str, Any]) -> Iterator[str]:
    """The statistics as lines for people."""
    yield _banner(stats)
    yield ""
    yield from table([*_roles(stats)], "<>>><")
    yield ""
    yield from latency_table.lines(stats["latencies"])
    yield from _seats(stats)
    yield from _waiters(stats["waiters"])
    yield from _budgets(stats["spending"])
    for breaker in stats["breakers"]:
        if breaker["state"] == "closed":
            continue
        trial = f"trial in {breaker['trial_in_s']:.1f} s"
        yield f"breaker  {breaker['breaker']} {breaker['state']} ({trial}): {breaker['why']}"


def _roles(stats: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    yield "ROLE", "RUN/CAP", "RESERVED", "WAIT/MAX", "OLDEST"
    for role, row in stats["roles"].items():
        seats = "-" if row["seats"] is None else row["seats"]
        running = f"{row['running']}/{seats}"
        waiting = f"{row['waiting']}/{row['max_queue']}"
        yield role, running, str(row["reserved"]), waiting, _oldest(stats["waiters"], role)


def _trouble(stats: dict[str, Any]) -> str | None:
    """What is wrong with the state file, in which budgets are counted, or with our own tasks."""
    trouble: str | None = stats["spending"]["error"] or stats["ledger"]["error"]
    return trouble or tasks.trouble(_watchers(stats))


def _watchers(stats: dict[str, Any]) -> list[Watcher]:
    return [Watcher(**watcher) for watcher in stats["watchers"]]


def _banner(stats: dict[str, Any]) -> str:
    health, upstream = stats["health"], stats["upstream"]
    level, cause = health["level"], health["cause"]
    if level == "OK" and (trouble := _trouble(stats)) is not None:
        level, cause = "DEGRADED", trouble
    why = f" ({cause})" if level != "OK" else ""
    known = {True: f"Ollama {upstream['version']}", None: "Ollama not asked yet"}
    up = known.get(upstream["up"], f"Ollama is not answering: {upstream['error']}")
    return f"{level}{why}  {up} at {upstream['address']}"


def _seats(stats: dict[str, Any]) -> Iterator[str]:
    everyone, learned = stats["global"], stats["parallelism"]
    yield ""
    inside = f", {everyone['inside']} of them waiting inside Ollama" if everyone["inside"] else ""
    yield (
        f"seats    {everyone['running']}/{everyone['seats']} local{inside}, "
        f"{everyone['lent']} lent; "
        f"{learned['host']} at once worth running (contention {learned['contention']:g})"
    )
    loaded = learned["resident"]
    yield f"loaded   {'unknown' if loaded is None else ', '.join(loaded) or 'nothing'}"
    yield cost_line(stats["cost"])
    yield f"lag      {stats['event_loop_lag_p99_ms']:g} ms (event loop, p99 of the last minute)"
    yield from _state_file(stats["ledger"])
    for watcher in _watchers(stats):
        if watcher.failures:
            now = "runs again" if watcher.running else "waits to be started again"
            yield f"task     {watcher.name} failed {watcher.failures} times, {now}: {watcher.error}"


def _state_file(recorder: dict[str, Any]) -> Iterator[str]:
    """Said only where something is wrong with it."""
    if recorder["error"] is not None:
        yield (
            f"state    CANNOT BE WRITTEN: {recorder['error']}; {recorder['waiting']} writes wait, "
            f"{recorder['dropped']} records lost"
        )
    elif recorder["dropped"]:
        lost = recorder["dropped"]
        yield f"state    {lost} records of calls are lost; the log says which and why"
    if recorder["set_aside"] is not None:
        yield f"state    the file was damaged: kept as {recorder['set_aside']}, a new one begun"


def cost_line(cost: dict[str, Any]) -> str:
    """The ``cost`` of ``/stats`` as one line."""
    by_role: dict[str, float] = {}
    for part in cost["parts"]:
        by_role[part["llm_role"]] = by_role.get(part["llm_role"], 0.0) + part["usd"]
    shares = ", ".join(f"{role} {usd:.4f}" for role, usd in by_role.items() if usd)
    more = f" ({shares})" if shares else ""
    if cost["unknown"]:
        more += f", {cost['unknown']} attempts at an unknown price"
    if cost["price_table"]:
        more += f"; {cost['price_table']}"
    return f"cost     {cost['usd']:.4f} USD, an estimate, since {cost['since'][:16]}Z{more}"


def _waiters(waiters: list[dict[str, Any]]) -> Iterator[str]:
    longest = sorted(waiters, key=lambda waiter: -float(waiter["waited_ms"]))
    for waiter in longest[:_SHOWN_WAITERS]:
        yield (
            f"waiting  {waiter['llm_role']} {waiter['model']} {waiter['waited_ms'] / 1000:.1f} s "
            f"({waiter['hold']}) from {waiter['client']}, place {waiter['place']}{_more(waiter)}"
        )
    if len(waiters) > _SHOWN_WAITERS:
        yield f"waiting  … and {len(waiters) - _SHOWN_WAITERS} more"


def _more(waiter: dict[str, Any]) -> str:
    expected_ms = waiter["expected_wait_ms"]
    return "" if expected_ms is None else f", about {expected_ms / 1000:.1f} s more"


def _budgets(spending: dict[str, Any]) -> Iterator[str]:
    if not spending["open"]:
        yield "budget   none can be used: the state file has not been read yet"
        return
    if spending["error"] is not None:
        yield f"budget   {spending['error']}"
    if spending["writes_lost"]:
        yield f"budget   {spending['writes_lost']} writes of what is counted are lost"
    for budget in spending["budgets"]:
        yield f"budget   {budget_text.line(budget)}"
    if spending["approvals"]:
        yield f"cloud    {spending['approved_usd_left']:.2f} USD of what is approved are left"


def _oldest(waiters: list[dict[str, Any]], role: str) -> str:
    ages = [waiter["waited_ms"] for waiter in waiters if waiter["llm_role"] == role]
    return f"{max(ages) / 1000:.1f} s" if ages else "-"


def ask(admin: Address) -> dict[str, Any] | str:
    """What ``/stats`` says, or a sentence why it cannot be had."""
    try:
        status, stats = admin_client.get(admin, "/stats")
    except admin_client.NotRunningError as error:
        return str(error)
    if status != 200 or "roles" not in stats:
        return f"http://{admin}/stats answered {status}, not as we do{admin_client.STRANGER}"
    return stats
