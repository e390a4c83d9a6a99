"""What is the same for every call of one role to one model: worked out once, then looked up.

The policy is read at start and prices with it, so who computes an answer, what it costs, how
long it may take and how its request is shaped depends on the role and the model alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelsplit_policy.bounded_memo import BoundedMemo
from modelsplit_policy.deadlines import Limits
from modelsplit_policy.egress import host_of, unserved
from modelsplit_policy.model_names import canonical
from modelsplit_policy.roles import Providers
from modelsplit_policy.shaping import shape_of
from modelsplit_policy.vocabulary import DEFAULT_HOST, Provider

if TYPE_CHECKING:
    from modelsplit_policy.config.model import Policy, RolePolicy
    from modelsplit_policy.failures import Failure
    from modelsplit_policy.prices import Price, Prices
    from modelsplit_policy.roles import Candidate
    from modelsplit_policy.shaping import Shape
    from modelsplit_policy.vocabulary import Host, Role
    from modelsplit_proxy.limits.budgets import BudgetKeeper
    from modelsplit_proxy.providers.clouds import CloudModel, Clouds
    from modelsplit_proxy.providers.redaction import Redactor


@dataclass(frozen=True, slots=True)
class AttemptPlan:
    """``model``: the candidate's canonical name. ``price`` None: nobody knows it. In seconds.

    ``limits``: the bounds of an attempt whose client asked for none and whose role has none
    for the whole call. ``held_back_s``: the longest silence of an answer that Ollama may hold
    back. ``max_wait_s`` and ``max_hold_s``: the most it may stand in line, and for usefulness
    alone. ``shape``: the rules for a request that named this very model;
    ``chosen``: for one that did not. ``counted``: a budget looks at its calls. ``cloud``: who is
    asked in place of Ollama. ``breaker_host``: whose breakers, of all clouds, are asked.
    ``redactor``: what takes out of a request what the policy takes out, where Ollama sends it to
    its own cloud; None: nothing does. ``unserved``: why nobody can be asked.
    """

    role: Role
    row: RolePolicy
    candidate: Candidate
    model: str
    provider: Provider
    price: Price | None
    limits: Limits
    held_back_s: float
    max_wait_s: float
    max_hold_s: float
    shape: Shape
    chosen: Shape
    counted: bool
    cloud: CloudModel | None = None
    breaker_host: Host = DEFAULT_HOST
    redactor: Redactor | None = None
    unserved: Failure | None = None


class AttemptPlans:
    """Every plan that calls have taken lately."""

    def __init__(
        self,
        policy: Policy,
        prices: Prices,
        budget_keeper: BudgetKeeper,
        stall_s: float,
        clouds: Clouds | None = None,
    ) -> None:
        """``clouds``: those asked over their own API, and the redactor; None: there is neither."""
        self._policy = policy
        self._providers = Providers(policy)
        self._prices = prices
        self._budget_keeper = budget_keeper
        self._stall_s = stall_s
        self._clouds = clouds
        self._known: BoundedMemo[tuple[Role, Candidate], AttemptPlan] = BoundedMemo()

    def __repr__(self) -> str:
        return f"<AttemptPlans {len(self._known)} known>"

    def of(self, role: Role, candidate: Candidate) -> AttemptPlan:
        plan = self._known.get((role, candidate))
        if plan is not None:
            return plan
        return self._known.keep(candidate.model, (role, candidate), self._make(role, candidate))

    def _make(self, role: Role, candidate: Candidate) -> AttemptPlan:
        policy, row = self._policy, self._policy.roles[role]
        model = canonical(candidate.model)
        # Of two models of a role one may run in the cloud and the other here.
        provider = self._providers.of(candidate.model, role)
        options = dict(candidate.options)
        cloud = self._cloud(candidate.model, provider)
        most_ms = min(row.max_wait_ms, row.total_timeout_ms or row.max_wait_ms)
        return AttemptPlan(
            role=role,
            row=row,
            candidate=candidate,
            model=model,
            provider=provider,
            price=self._prices.of(candidate.model, provider),
            limits=self._limits(row, candidate, provider),
            held_back_s=policy.silent_parse_timeout_ms / 1000,
            max_wait_s=most_ms / 1000,
            max_hold_s=math.inf if row.max_hold_ms is None else row.max_hold_ms / 1000,
            shape=shape_of(policy, role, candidate.model, False, options),
            chosen=shape_of(policy, role, candidate.model, True, options),
            counted=provider is Provider.CLOUD or self._budget_keeper.looks_at(model, role),
            cloud=cloud,
            breaker_host=DEFAULT_HOST if cloud is None else host_of(cloud.parts.named.provider),
            redactor=self._redactor(provider),
            unserved=unserved(policy.cloud, candidate.model, provider),
        )

    def _cloud(self, model: str, provider: Provider) -> CloudModel | None:
        if self._clouds is None or provider is not Provider.CLOUD:
            return None
        return self._clouds.of(model)

    def _redactor(self, provider: Provider) -> Redactor | None:
        if self._clouds is None or provider is not Provider.CLOUD:
            return None
        return self._clouds.redactor

    def _limits(self, row: RolePolicy, candidate: Candidate, provider: Provider) -> Limits:
        load_s = 0.0 if provider is Provider.CLOUD else self._policy.load_timeout_ms / 1000
        first_byte_s = row.first_byte_timeout_ms / 1000
        return Limits(candidate.timeout_s, load_s, self._stall_s, first_byte_s=first_byte_s)
