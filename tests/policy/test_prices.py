"""What a call costs: known, unknown, and bounded beforehand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.config.model import Policy
from modelsplit_policy.config.parser import parse
from modelsplit_policy.prices import (
    FREE,
    Price,
    Prices,
    cloud_models,
    cost_usd,
    leaves_to_a_table,
    price_from,
    unpriced,
    worst_case_usd,
)
from modelsplit_policy.vocabulary import Provider
from modelsplit_proxy.config.policy_file import merge, shipped

OPUS = Price(input=15.0, output=75.0)
POWER = Price(usd_per_hour=0.09)

counts = st.integers(0, 10**7)
rates = st.floats(0, 1000)


def policy(**models: object) -> Policy:
    return parse(merge(shipped(), {"models": models}))


def test_tokens_cost_what_the_price_list_says_per_million() -> None:
    assert cost_usd(OPUS, 1000, 2000) == pytest.approx(0.015 + 0.150)


def test_an_hour_of_computing_costs_its_electricity() -> None:
    assert cost_usd(POWER, 10, 10, 1800.0) == pytest.approx(0.045)


@pytest.mark.parametrize(
    ("price", "quantities"),
    [
        (OPUS, (None, 5, 1.0)),
        (OPUS, (5, None, 1.0)),
        (POWER, (5, 5, None)),
        (None, (5, 5, 1.0)),
    ],
)
def test_what_is_unknown_is_not_free(
    price: Price | None, quantities: tuple[int | None, int | None, float | None]
) -> None:
    assert cost_usd(price, *quantities) is None


def test_a_price_of_nothing_needs_no_quantity() -> None:
    assert cost_usd(FREE, None, None) == 0.0
    assert cost_usd(Price(input=2.0), 500_000, None) == 1.0  # an embedding has no answer tokens


@given(counts, counts, counts, counts, rates, rates)
def test_nothing_costs_more_than_its_worst_case(
    prompt: int, spare: int, output: int, room: int, input_: float, output_: float
) -> None:
    price = Price(input_, output_)
    cost = cost_usd(price, prompt, output)
    worst = worst_case_usd(price, prompt + spare, output + room)
    assert cost is not None
    assert worst is not None
    assert cost <= worst or math.isclose(cost, worst)


def test_a_call_without_a_bound_has_no_worst_case() -> None:
    assert worst_case_usd(OPUS, 100, None) is None
    assert worst_case_usd(OPUS, 100, 1000) == pytest.approx(0.0765)
    assert worst_case_usd(POWER, 100, None) is None
    assert worst_case_usd(POWER, 100, None, 3600.0) == pytest.approx(0.09)
    assert worst_case_usd(FREE, 100, None) == 0.0


# -- whose price ----------------------------------------------------------------------------------


def test_the_shipped_policy_prices_its_cloud_model() -> None:
    prices = Prices(policy())
    assert prices.of("claude-3-opus", Provider.CLOUD) == OPUS
    assert prices.of("qwen3:4b", Provider.LOCAL) == FREE


def test_a_cloud_model_without_a_price_has_none() -> None:
    assert Prices(policy()).of("claude-9", Provider.CLOUD) is None


def test_the_policy_goes_before_the_price_table() -> None:
    table = {"claude-3-opus": Price(1.0, 1.0), "claude-9": Price(2.0, 3.0)}
    prices = Prices(policy(), table)
    assert prices.of("claude-3-opus", Provider.CLOUD) == OPUS
    assert prices.of("Claude-9:latest", Provider.CLOUD) == Price(2.0, 3.0)


def test_the_price_table_is_for_the_cloud_alone() -> None:
    # A local model of the same name is computed here, whatever others charge for it.
    prices = Prices(policy(), {"gemma3:12b": Price(2.0, 3.0)})
    assert prices.of("gemma3:12b", Provider.LOCAL) == FREE


def test_a_row_that_says_nothing_of_money_is_no_price() -> None:
    prices = Prices(policy(**{"claude-9": {"max_concurrent": 2}}))
    assert prices.of("claude-9", Provider.CLOUD) is None


def test_an_electricity_price_is_read_from_the_policy() -> None:
    row = policy(**{"qwen3:8b": {"price": {"usd_per_hour": 0.09}}}).models["qwen3:8b"]
    assert row.price is not None
    assert price_from(row.price) == POWER
    assert (
        Prices(policy(**{"qwen3:8b": row.model_dump(mode="json")})).of("qwen3:8b", Provider.LOCAL)
        == POWER
    )


# -- whether a price table is worth reading -------------------------------------------------------


@pytest.mark.parametrize(
    ("overlay", "left"),
    [
        ({}, False),
        ({"models": {"qwen3:8b": {"max_concurrent": 2}}}, False),
        ({"models": {"kimi-k2": {"max_concurrent": 2}}}, True),
        ({"models": {"kimi-k2": {"price": {"input": 1, "output": 2}}}}, False),
        ({"models": {"gpt-oss:120b-cloud": {"max_concurrent": 2}}}, True),
        ({"roles": {"CLOUD": {"primary": "claude-9"}}}, True),
        ({"roles": {"CLOUD": {"primary": "qwen3:8b"}}}, True),
        ({"roles": {"CLOUD": {"claims": ["claude-9"]}}}, True),
    ],
    ids=str,
)
def test_a_table_is_worth_reading_where_the_cloud_has_a_model_without_a_price(
    overlay: dict[str, object], left: bool
) -> None:
    assert leaves_to_a_table(parse(merge(shipped(), overlay))) is left


def test_a_model_that_a_role_has_computed_in_the_cloud_is_not_a_local_one() -> None:
    """Ollama's own cloud serves it under a name that says so, whoever's role asks."""
    named = "gpt-oss:120b-cloud"
    overlay = {"roles": {"HEAVY": {"primary": named}}, "models": {named: {"max_concurrent": 2}}}
    assert leaves_to_a_table(parse(merge(shipped(), overlay)))


# -- what money budgets cannot count --------------------------------------------------------------

UNKNOWN = {"roles": {"CLOUD": {"primary": "claude-9", "fallback": "claude-3-opus"}}}


def money(**keys: object) -> dict[str, object]:
    return {"name": "money", "usd": 1.0, "window": "1d"} | keys


@pytest.mark.parametrize(
    "keys",
    [
        {"provider": "CLOUD"},
        {"role": "CLOUD"},
        {"models": ["Claude-9:latest"]},
        {"provider": "CLOUD", "models": ["claude-9"]},
    ],
)
def test_a_money_budget_over_a_model_without_a_price_is_told(keys: dict[str, object]) -> None:
    told = parse(merge(shipped(), {**UNKNOWN, "budgets": [money(**keys)]}))
    assert unpriced(told, Prices(told)) == (("claude-9", "money"),)
    assert unpriced(told, Prices(told, {"claude-9": OPUS})) == ()


@pytest.mark.parametrize(
    "keys",
    [
        {"provider": "CLOUD", "usd": None, "calls": 1},
        {"provider": "LOCAL"},
        {"role": "HEAVY"},
        {"models": ["claude-3-opus", "qwen3:4b"]},
    ],
)
def test_a_budget_that_needs_no_such_price_is_not(keys: dict[str, object]) -> None:
    told = parse(merge(shipped(), {**UNKNOWN, "budgets": [money(**keys)]}))
    assert unpriced(told, Prices(told)) == ()


def test_every_model_that_may_go_to_the_cloud_is_found_once() -> None:
    arms = [{"name": n, "model": m, "weight": 1} for n, m in (("a", "claude-8"), ("b", "claude-9"))]
    test = {"name": "t", "role": "CLOUD", "arms": arms, "sticky": "job"}
    changed = merge(shipped(), {**UNKNOWN, "experiments": [test]})
    changed["roles"]["CLOUD"]["claims"] = ["claude-7"]
    found = cloud_models(parse(changed))
    assert found == ("claude-9", "claude-3-opus", "claude-7", "claude-8")


@pytest.mark.parametrize("tokens", [2**53 - 1, 2**70])
def test_a_cost_beyond_what_can_be_counted_is_unknown(tokens: int) -> None:
    assert cost_usd(Price(1e6, 1e6), tokens, tokens) is None
    assert cost_usd(Price(1.0, 0.0), -5, 0) is None
