"""What ``/stats`` says, as one screen."""

from __future__ import annotations

from modelsplit_proxy.admin import status_text
from support.harness import running


async def test_calls_that_wait_inside_ollama_are_shown_as_such() -> None:
    async with running() as up, up.admin() as admin:
        stats = (await admin.request("GET", "/stats")).json
    stats["global"] |= {"running": 2, "seats": 2, "inside": 1}
    text = "\n".join(status_text.lines(stats))
    assert "seats    2 of 2 local ones taken, 1 of them waiting inside Ollama; 0 lent" in text


async def test_the_verdict_comes_first_and_the_reasons_of_failures_stand_below_the_roles() -> None:
    async with running() as up, up.admin() as admin:
        stats = (await admin.request("GET", "/stats")).json
    stats["health"] |= {
        "level": "DEGRADED",
        "causes": [
            {"level": "DEGRADED", "text": "it is so", "next": "mend"},
            {"level": "DEGRADED", "text": "and so", "next": "mend"},
            {"level": "DEGRADED", "text": "and worn", "next": "replace"},
        ],
        "notes": [{"text": "by the way", "next": ""}],
        "next": "mend",
    }
    stats["recent"] |= {"window_s": 300.4, "unrouted": {"unknown_role": 1, "bad_json": 2}}
    stats["recent"]["roles"]["CHAT"] |= {
        "calls": 9,
        "failed": 3,
        "reasons": {"stall": 1, "status": 2},
        "p50_ms": 1234.5,
        "refused": {"egress_denied": 1, "bad_json": 4, "calls": 3, "draining": 2},
        "left": 2,
    }
    stats["running"] = [
        {
            "request_id": f"request-number-{number}",
            "llm_role": "CHAT",
            "model": "m",
            "state": state,
            "age_ms": 12_340.0,
            "silent_ms": silent_ms,
        }
        for number, (state, silent_ms) in enumerate(
            [("queued", None), ("dispatched", 5.0), ("loading", 5.0), *[("streaming", None)] * 9]
        )
    ]
    lines = list(status_text.lines(stats))
    assert lines[1:8] == [
        "cause    it is so",
        "cause    and so",
        "next     mend",
        "cause    and worn",
        "next     replace",
        "note     by the way",
        "",
    ]
    assert lines[8].split()[-6:] == ["OLDEST", "CALLS/5", "MIN", "FAILED", "P50", "P95"]
    chat = next(line for line in lines if line.startswith("CHAT "))
    assert chat.split()[-5:] == ["9", "3", "1.23", "s", "-"]
    for line in (
        "failed   CHAT: status 2, stall 1",
        "refused  CHAT: draining 2 (a host or modelsplit drains)",
        "refused  CHAT: calls 3, egress_denied 1 (as the policy wants)",
        "refused  CHAT: bad_json 4 (what its clients sent)",
        "left     CHAT: 2 by their clients",
        "running  CHAT m 12.3 s, no answer yet, request-numb",
        "running  CHAT m 12.3 s, loading its model, request-numb",
        "running  CHAT m 12.3 s, request-numb",
        "refused  before a role was known: 3 (bad_json 2, unknown_role 1)",
        "running  … and 1 more",
    ):
        assert line in lines
    assert sum(line.startswith("running  CHAT") for line in lines) == 10


async def test_the_cloud_is_closed_while_nobody_has_approved_it() -> None:
    async with running() as up, up.admin() as admin:
        stats = (await admin.request("GET", "/stats")).json
    assert stats["spending"]["approvals"] == 0
    assert "cloud    closed: no approval is in force" in status_text.lines(stats)
    stats["spending"] |= {"approvals": 1, "approved_usd_left": 4.5}
    why = stats["spending"]["cloud_refused"]
    told = [line for line in status_text.lines(stats) if line.startswith("cloud ")]
    assert why.startswith("CLOUD's model claude-3-opus cannot be served: ")
    left = "cloud    4.50 USD of what is approved are left"
    assert told == [f"{left} (CLOUD cannot be served: {why})"]
    stats["spending"] |= {"cloud_refused": None}
    told = [line for line in status_text.lines(stats) if line.startswith("cloud ")]
    assert told == [left]
    # Whether there is one is not known while the state file cannot be read.
    stats["spending"] |= {"open": False, "approvals": 0}
    assert not [line for line in status_text.lines(stats) if line.startswith("cloud ")]


async def test_a_busy_hour_fits_in_80_columns() -> None:
    async with running() as up, up.admin() as admin:
        stats = (await admin.request("GET", "/stats")).json
    stats["recent"]["window_s"] = 900.0
    for row in stats["recent"]["roles"].values():
        row |= {"calls": 123456, "failed": 99999, "p50_ms": 9994.0, "p95_ms": 99949.0}
    stats["recent"]["roles"]["CHAT"] |= {"p50_ms": 9996.0, "p95_ms": 123456.0}
    lines = list(status_text.lines(stats))
    at = next(number for number, line in enumerate(lines) if line.startswith("ROLE "))
    assert max(map(len, lines[at : at + 6])) <= 80
    assert lines[at + 5].split()[-4:] == ["10.0", "s", "123", "s"]


def test_what_calls_cost_is_an_estimate_by_role() -> None:
    cost = {
        "estimate": True,
        "since": "2026-11-23T02:50:01.000Z",
        "usd": 0.75,
        "unknown": 2,
        "price_table": "genai-prices 0.2.3 (of 2026-11-10)",
        "parts": [
            {"llm_role": "CLOUD", "model": "a", "usd": 0.5},
            {"llm_role": "CLOUD", "model": "b", "usd": 0.125},
            {"llm_role": "PLANNER", "model": "c", "usd": 0.125},
            {"llm_role": "CHAT", "model": "d", "usd": 0.0},
        ],
    }
    assert status_text.cost_line(cost) == (
        "cost     0.7500 USD, an estimate, since 2026-11-23 02:50 UTC (CLOUD 0.6250, PLANNER "
        "0.1250), 2 attempts at an unknown price; genai-prices 0.2.3 (of 2026-11-10)"
    )
