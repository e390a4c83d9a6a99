"""The most that a call can take, before it is sent: what money is reserved by.

A client that names no number of tokens, or says "no limit", is reckoned with the number of
the model (``max_output_tokens``). That is a guess: an answer may be longer, and is then
charged as it was. A role's ``max_num_predict`` makes the guess a bound, because it is
written into the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from modelsplit_policy.model_names import canonical
from modelsplit_policy.prices import worst_case_usd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelsplit_policy.config.model import ModelPolicy, Policy
    from modelsplit_policy.endpoints import EndpointFacts
    from modelsplit_policy.go_json import Fields
    from modelsplit_policy.prices import Price
    from modelsplit_policy.roles import Candidate
    from modelsplit_policy.vocabulary import Role

# What a model is reckoned with that the policy says nothing of.
DEFAULT_OUTPUT_TOKENS: Final = 4096
# Whatever the route: a bound under a name that is not read there only makes the guess larger.
_BOUNDS: Final = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})
# A call without a bound on its time, charged by the hour.
_LONG_S: Final = 600.0
_MOST: Final = 1_000_000_000


class Estimates:
    """What calls under one policy can cost at most."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._models: Mapping[str, ModelPolicy] = MappingProxyType(
            {canonical(name): row for name, row in policy.models.items()}
        )

    def usd(
        self,
        price: Price | None,
        role: Role,
        candidate: Candidate,
        facts: EndpointFacts,
        fields: Fields,
        size: int,
    ) -> float | None:
        """US dollars; None: nobody knows the price. ``size``: the body's bytes."""
        tokens = self.output_tokens(role, candidate.model, facts, fields)
        return worst_case_usd(price, size, tokens, self._seconds(candidate))

    def output_tokens(self, role: Role, model: str, facts: EndpointFacts, fields: Fields) -> int:
        """Tokens an answer may have."""
        if facts.embeds:
            return 0
        row = self._policy.roles[role]
        named = list(_named(fields, facts))
        most = max(named) if named else row.num_predict
        if most is None or most <= 0:
            most = row.max_num_predict or self._reckoned(model)
        return min(most, row.max_num_predict or _MOST)

    def _reckoned(self, model: str) -> int:
        row = self._models.get(canonical(model))
        return DEFAULT_OUTPUT_TOKENS if row is None else row.max_output_tokens

    def _seconds(self, candidate: Candidate) -> float:
        if candidate.timeout_s is None:
            return _LONG_S
        return candidate.timeout_s + self._policy.load_timeout_ms / 1000


def _named(fields: Fields, facts: EndpointFacts) -> Iterator[int]:
    """Every bound that the request names, whichever Ollama reads."""
    for name in _BOUNDS.union(facts.bounds):
        for value in fields.all(name):
            yield from _whole(value)
    for options in fields.all("options"):
        if isinstance(options, Mapping):
            yield from _whole(options.get("num_predict"))


def _whole(value: object) -> Iterator[int]:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if value >= _MOST:
        yield _MOST
    elif abs(value) < _MOST:  # false for NaN, which only a lenient decoder lets in
        yield int(value)
