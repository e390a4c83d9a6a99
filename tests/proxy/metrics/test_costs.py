"""What calls have cost since the start: sums by role and model, and what they leave out."""

from __future__ import annotations

from modelsplit_policy.prices import Price
from modelsplit_proxy.metrics.costs import Costs
from modelsplit_proxy.protocol.stream_end import Usage
from support.records import answered, begun, fallen_back, turned_away

OPUS = Price(15.0, 75.0)


def costs() -> Costs:
    return Costs(1795393743.25, "table 1", lambda model: model if ":" in model else "other")


def priced(sums: Costs, *prices: Price | None) -> None:
    for price in prices:
        record = answered()
        record.attempts[0].price = price
        sums.call_ended(record)


def samples(sums: Costs) -> dict[str, dict[tuple[str, ...], float]]:
    return {
        family.name: {tuple(s.labels.values()): s.value for s in family.samples}
        for family in sums.collect()
    }


def test_nothing_yet() -> None:
    assert costs().fields() == {
        "estimate": True,
        "since": "2026-11-23T00:29:03.250Z",
        "usd": 0,
        "unknown": 0,
        "price_table": "table 1",
        "parts": [],
    }


def test_sums_by_role_and_model_with_what_is_unknown_beside_them() -> None:
    sums = costs()
    priced(sums, OPUS, OPUS, None)
    assert sums.fields()["parts"] == [
        {"llm_role": "PLANNER", "model": "qwen3:4b", "usd": 0.00123, "attempts": 3, "unknown": 1}
    ]
    assert (sums.fields()["usd"], sums.fields()["unknown"]) == (0.00123, 1)
    key = ("PLANNER", "qwen3:4b")
    assert samples(sums) == {
        "modelsplit_cost_usd": {key: 0.00123},
        "modelsplit_cost_unknown": {key: 1},
    }


def test_each_attempt_counts_for_its_own_model() -> None:
    sums, record = costs(), fallen_back()
    record.attempts[0].sent = True
    for attempt in record.attempts:
        attempt.price, attempt.usage = OPUS, Usage(prompt_tokens=1000, output_tokens=0)
    sums.call_ended(record)
    usd = {part["model"]: part["usd"] for part in sums.fields()["parts"]}
    assert usd == {"qwen3:4b": 0.015, "qwen3:8b": 0.015}


def test_what_was_never_sent_is_no_attempt() -> None:
    sums = costs()
    sums.call_ended(turned_away())
    sums.call_ended(begun())
    assert sums.fields()["parts"] == []


def test_models_outside_the_policy_share_one_line() -> None:
    sums = costs()
    for name in ("a", "b"):
        record = answered()
        record.attempts[0].model, record.attempts[0].price = name, OPUS
        sums.call_ended(record)
    [part] = sums.fields()["parts"]
    assert (part["model"], part["attempts"]) == ("other", 2)
