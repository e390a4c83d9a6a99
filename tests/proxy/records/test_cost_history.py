"""What calls have cost since some time, out of the state file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from modelsplit_policy.prices import Price
from modelsplit_proxy.records import cost_history
from modelsplit_proxy.records.recorder import Recorder
from support.calls import call
from support.harness import running
from support.records import answered, turned_away
from support.stores import opened

if TYPE_CHECKING:
    from pathlib import Path

START = 1795393743.25


def note(recorder: Recorder, price: Price | None, at_s: float = 0.0) -> None:
    record = answered(started_wall=START + at_s)
    record.attempts[0].price = price
    recorder.call_ended(record)


def test_sums_are_by_role_and_model_and_begin_when_asked(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        for at_s in (0.0, 10.0, 20.0):
            note(recorder, Price(15.0, 75.0), at_s)
        note(recorder, None, 30.0)
        recorder.call_ended(turned_away(started_wall=START + 40))
        spent = cost_history.spent(recorder.read, round((START + 5) * 1e6), "table 1")
    assert spent == {
        "estimate": True,
        "since": "2026-11-23T00:29:08.250Z",
        "usd": 0.00123,
        "unknown": 1,
        "price_table": "table 1",
        "parts": [
            {"llm_role": "PLANNER", "model": "qwen3:4b", "usd": 0.00123, "calls": 4, "unknown": 1}
        ],
    }


def test_names_without_end_do_not_make_it_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost_history, "_MOST_PARTS", 2)
    with opened(tmp_path) as store:
        recorder = Recorder(store)
        for number in range(4):
            record = answered()
            record.attempts[0].model = f"m{number}"
            record.attempts[0].price = Price(input=float(number))
            recorder.call_ended(record)
        spent = cost_history.spent(recorder.read, 0, None)
    assert [part["model"] for part in spent["parts"]] == ["m3", "m2"]
    assert spent["usd"] == pytest.approx((1 + 2 + 3) * 11 / 1e6)


async def test_the_admin_port_tells_it_for_a_day_unless_asked() -> None:
    overlay = {"models": {"qwen3:4b": {"price": {"output": 1e6}}}}
    async with running(overlay=overlay) as up, up.client() as client, up.admin() as admin:
        await client.request("POST", "/api/generate", call("/api/generate", "planner"))
        [record] = await up.calls.wait()
        told = (await admin.request("GET", "/cost")).json
        refused = await admin.request("GET", "/cost?since=soon")
    assert told["usd"] == record.usage.output_tokens
    assert (refused.status, "soon" in refused.json["error"]) == (400, True)
