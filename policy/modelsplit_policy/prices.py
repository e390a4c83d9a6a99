"""What a call costs, in US dollars: always an estimate, and None where it cannot be known.

Unknown is not nothing. A price of 0 needs no quantity: a free model costs 0.0 however little
is known of a call. Any other price needs its quantity, and one that is missing (an attempt
answered with 500 reports no tokens) makes the whole sum unknown rather than too small.

What the estimate leaves out: discounts for cached prompts, but where the provider counts them
(a cloud that is asked here); and that calls computed together share the hour of computing that
each of them is charged in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from modelsplit_policy.model_names import canonical, runs_in_cloud
from modelsplit_policy.quantity import quantity
from modelsplit_policy.roles import named_by, named_here
from modelsplit_policy.vocabulary import Provider, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.config.model import BudgetPolicy, Policy, PricePolicy

_MILLION: Final = 1_000_000
_HOUR_S: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million prompt tokens, per million answer tokens, per hour of computing."""

    input: float = 0.0
    output: float = 0.0
    usd_per_hour: float = 0.0


FREE: Final = Price()


def price_from(row: PricePolicy) -> Price:
    """The price an operator wrote into the policy."""
    return Price(row.input, row.output, row.usd_per_hour)


class Prices:
    """The price of every model: the policy's, else for CLOUD a price table's, else nobody's."""

    def __init__(self, policy: Policy, table: Mapping[str, Price] = MappingProxyType({})) -> None:
        """``table``: prices of CLOUD models by the name the policy gives them."""
        self._policy = {
            canonical(name): price_from(row.price)
            for name, row in policy.models.items()
            if row.price is not None
        }
        self._table = {canonical(name): price for name, price in table.items()}

    def of(self, model: str, provider: Provider) -> Price | None:
        """The price of ``model``; None: a CLOUD model that nobody has told the price of.

        A LOCAL model costs nothing unless the policy says what it does.
        """
        name = canonical(model)
        price = self._policy.get(name)
        if price is not None:
            return price
        return FREE if provider is Provider.LOCAL else self._table.get(name)


def cloud_models(policy: Policy) -> tuple[str, ...]:
    """Every model the policy may send to the cloud by itself, without repetitions."""
    return named_by(policy, Role.CLOUD)


def leaves_to_a_table(policy: Policy) -> bool:
    """Whether the policy names a model without a price that may be one of the cloud.

    A row under ``models`` for what a LOCAL role uses is there for other reasons than its price.
    """
    own = Prices(policy)
    local = {name for name in named_here(policy) if not runs_in_cloud(name)}
    listed = (name for name in policy.models if canonical(name) not in local)
    named = (*cloud_models(policy), *listed)
    return any(own.of(name, Provider.CLOUD) is None for name in named)


def unpriced(policy: Policy, prices: Prices) -> tuple[tuple[str, str], ...]:
    """Each CLOUD model without a known price, with each money budget that is to count it."""
    missing = [name for name in cloud_models(policy) if prices.of(name, Provider.CLOUD) is None]
    budgets = [budget for budget in policy.budgets if budget.usd is not None]
    return tuple((name, b.name) for name in missing for b in budgets if _counts(b, name))


def _counts(budget: BudgetPolicy, model: str) -> bool:
    """Whether a budget counts calls of this CLOUD model."""
    named = budget.models is None or canonical(model) in map(canonical, budget.models)
    here = budget.role in {None, Role.CLOUD} and budget.provider is not Provider.LOCAL
    return named and here


def cost_usd(
    price: Price | None,
    prompt_tokens: float | None,
    output_tokens: int | None,
    compute_s: float | None = None,
) -> float | None:
    """What so much work costs; None if the price or a quantity that it needs is unknown.

    ``prompt_tokens``: those that a cache made cheaper or dearer count as much less or more.
    ``compute_s``: seconds for which the model was computing, or being loaded.
    """
    if price is None:
        return None
    if price is FREE:
        return 0.0
    return _sum(
        _part(price.input / _MILLION, prompt_tokens),
        _part(price.output / _MILLION, output_tokens),
        _part(price.usd_per_hour / _HOUR_S, compute_s),
    )


def worst_case_usd(
    price: Price | None,
    prompt_bytes: int,
    max_output_tokens: int | None,
    max_compute_s: float | None = None,
) -> float | None:
    """The most that a call can cost before it is sent; None: nothing bounds it.

    ``prompt_bytes`` is the size of the request's body: no tokenizer makes more tokens of a
    text than it has bytes, and what a model's template adds is less than the JSON around it.
    """
    return cost_usd(price, prompt_bytes, max_output_tokens, max_compute_s)


def _part(rate: float, quantity: float | None) -> float | None:
    if rate == 0:
        return 0.0
    return None if quantity is None else rate * quantity


def _sum(*parts: float | None) -> float | None:
    known = [part for part in parts if part is not None]
    return quantity(sum(known)) if len(known) == len(parts) else None
