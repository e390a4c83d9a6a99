"""Which prices hold in this process, with the optional table and without it."""

from __future__ import annotations

import importlib.machinery
import sys
from types import ModuleType

import pytest

from modelsplit_policy.prices import Price
from modelsplit_policy.vocabulary import Provider
from modelsplit_proxy.config import prices
from support.harness import policy

NEW = {"roles": {"CLOUD": {"primary": "claude-9"}}}
NOON = 1795435200.0


@pytest.fixture
def without_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)


@pytest.fixture
def with_a_table(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A price table that knows one model; filled with what it is asked for."""
    asked: list[str] = []
    package, reader = ModuleType("genai_prices"), ModuleType("modelsplit_proxy.config.price_table")
    package.__spec__ = importlib.machinery.ModuleSpec("genai_prices", None)

    def look_up(models: tuple[str, ...], now: object) -> dict[str, Price]:
        assert str(now) == "2026-11-23 12:00:00+00:00"
        asked.extend(models)
        return {"claude-9": Price(3.0, 15.0)}

    vars(reader).update(title=lambda: "table 1", look_up=look_up)
    monkeypatch.setitem(sys.modules, "genai_prices", package)
    monkeypatch.setitem(sys.modules, "modelsplit_proxy.config.price_table", reader)
    return asked


@pytest.mark.usefixtures("without_a_table")
def test_without_the_package_the_policys_prices_are_all() -> None:
    read = prices.read(policy().policy, NOON)
    assert (read.table, read.warnings) == (None, ())
    assert read.prices.of("claude-3-opus", Provider.CLOUD) == Price(15.0, 75.0)


@pytest.mark.usefixtures("without_a_table")
def test_a_cloud_model_that_nobody_prices_is_a_warning() -> None:
    [warning] = prices.read(policy(NEW).policy, NOON).warnings
    assert warning == (
        'nobody knows the price of claude-9, but budget "cloud" counts money; '
        'set models["claude-9"].price or install the extra "prices"'
    )


def test_the_table_is_asked_once_for_the_models_the_policy_names(with_a_table: list[str]) -> None:
    read = prices.read(policy(NEW).policy, NOON)
    assert (read.table, read.warnings) == ("table 1", ())
    assert read.prices.of("claude-9", Provider.CLOUD) == Price(3.0, 15.0)
    assert with_a_table[0] == "claude-9"
    assert "gpt-oss:20b" in with_a_table


def test_a_policy_that_prices_its_cloud_models_itself_needs_no_table(
    with_a_table: list[str],
) -> None:
    read = prices.read(policy().policy, NOON)
    assert (read.table, read.warnings, with_a_table) == (None, (), [])
