"""Prices of CLOUD models out of the package ``genai-prices``, read once at the start.

Imported by name in ``prices``, and only if the package is installed: it is an optional one,
and brings a table of two megabytes that a host without a cloud has no use for.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

import genai_prices

from modelsplit_policy.prices import Price
from modelsplit_policy.quantity import quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from genai_prices.types import TieredPrices

# The package carries no date. This release, the oldest one accepted, was published then.
_OLDEST: Final = ("0.2.3", "2026-11-10")
_ONE_OF_EACH: Final = genai_prices.Usage(input_tokens=1, output_tokens=1)


def title(version: str = genai_prices.__version__) -> str:
    """The table's name, version and date, for people."""
    oldest, date = _OLDEST
    return f"genai-prices {version} ({'of' if version == oldest else 'later than'} {date})"


def look_up(models: Iterable[str], now: datetime) -> Mapping[str, Price]:
    """The prices of those ``models`` that the table knows, as they stand at ``now``."""
    prices = {model: _price(model, now) for model in models}
    return {model: price for model, price in prices.items() if price is not None}


def _price(model: str, now: datetime) -> Price | None:
    try:
        row = genai_prices.calc_price(_ONE_OF_EACH, model, genai_request_timestamp=now)
    except LookupError:
        return None
    usd_in, usd_out = _usd(row.model_price.input_mtok), _usd(row.model_price.output_mtok)
    return None if usd_in is None or usd_out is None else Price(usd_in, usd_out)


def _usd(price: Decimal | TieredPrices | None) -> float | None:
    """Dollars per million tokens; what very long prompts cost more is left out. None: no price."""
    if price is None:
        return 0.0
    return quantity(float(price if isinstance(price, Decimal) else price.base))
