"""Which prices hold in this process: the policy's, and a price table's if one is installed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from modelsplit_policy.prices import Price, Prices, cloud_models, leaves_to_a_table, unpriced

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_policy.config.model import Policy

_PACKAGE: Final = "genai_prices"


@dataclass(frozen=True, slots=True)
class Pricing:
    """The prices in force; ``table``: the price table's name and date, None if none was asked."""

    prices: Prices
    table: str | None
    warnings: tuple[str, ...]


def read(policy: Policy, wall: float) -> Pricing:
    """Read all prices once, as they stand at ``wall`` (seconds since 1970)."""
    title, table = _table(policy, datetime.fromtimestamp(wall, UTC))
    prices = Prices(policy, table)
    return Pricing(prices, title, tuple(_warnings(policy, prices)))


def _table(policy: Policy, now: datetime) -> tuple[str | None, Mapping[str, Price]]:
    if not leaves_to_a_table(policy) or find_spec(_PACKAGE) is None:
        return None, {}
    # The package is an optional one, 6 MB and a tenth of a second.
    from modelsplit_proxy.config.price_table import look_up, title  # noqa: PLC0415

    return title(), look_up((*cloud_models(policy), *policy.models), now)


def _warnings(policy: Policy, prices: Prices) -> Iterator[str]:
    for model, budget in unpriced(policy, prices):
        yield (
            f'nobody knows the price of {model[:60]}, but budget "{budget}" counts money; set '
            f'models["{model[:60]}"].price or install the extra "prices"'
        )
