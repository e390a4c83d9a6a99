"""Prices out of the optional package; skipped where it is not installed."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import pytest

from modelsplit_policy.prices import Price

pytest.importorskip("genai_prices")
genaitable = pytest.importorskip("modelsplit_proxy.config.price_table")

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def test_models_are_priced_by_the_table_and_unknown_ones_left_out() -> None:
    found = genaitable.look_up(["claude-3-opus", "no-such-model-anywhere"], NOW)
    assert found == {"claude-3-opus": Price(15.0, 75.0)}


def test_a_price_that_grows_with_the_prompt_is_the_one_of_short_prompts() -> None:
    price = genaitable.look_up(["gemini-2.5-pro"], NOW)["gemini-2.5-pro"]
    assert price == Price(1.25, 10.0)


def test_the_table_is_named_with_a_date() -> None:
    assert genaitable.title("0.2.3") == "genai-prices 0.2.3 (of 2026-11-10)"
    assert genaitable.title("0.2.9") == "genai-prices 0.2.9 (later than 2026-11-10)"
    assert genaitable.title().startswith("genai-prices 0.2.")


@pytest.mark.parametrize("odd", ["NaN", "Infinity", "-1", "1e300"])
def test_a_price_that_is_no_number_is_none(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = SimpleNamespace(
        model_price=SimpleNamespace(input_mtok=Decimal(1), output_mtok=Decimal(odd))
    )
    monkeypatch.setattr("genai_prices.calc_price", lambda *_, **__: row)
    assert genaitable.look_up(["a"], NOW) == {}
