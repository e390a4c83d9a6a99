"""Why calls of the cloud, and what budgets count, would be refused as things stand.

Asked by nobody's call. The same is asked in the same order as of a call, and in the same
words. Nothing is counted, nothing is sent. What only a call has (a key of a client's, a
condition, a breaker's trial) has no part in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelsplit_policy import egress
from modelsplit_policy.failures import ErrorCode, Failure
from modelsplit_policy.model_names import canonical, runs_in_cloud
from modelsplit_policy.roles import Providers, RouteRequest
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.protocol import upstream_failures

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.roles import Candidate, Roles, Route
    from modelsplit_proxy.limits.budgets import BudgetKeeper
    from modelsplit_proxy.providers.clouds import Clouds
    from modelsplit_proxy.watch.installed_models import InstalledModels

# No reason to ask another model.
_BUDGETS: Final = frozenset({ErrorCode.BUDGET_EXHAUSTED, ErrorCode.BUDGET_NOT_APPROVED})


class CloudRefusals:
    """Knows what a call is told. ``not_found``: as for ``PolicyParts``."""

    def __init__(
        self,
        policy: Policy,
        roles: Roles,
        budget_keeper: BudgetKeeper,
        clouds: Clouds | None,
        installed: InstalledModels,
        not_found: Callable[[str], Failure],
    ) -> None:
        self._policy = policy
        self._roles = roles
        self._providers = Providers(policy)
        self._budget_keeper = budget_keeper
        self._clouds = clouds
        self._installed = installed
        self._not_found = not_found

    async def look(self) -> None:
        """Learn what has been approved or revoked since."""
        await self._budget_keeper.look()

    def of(self, route: Route, names: frozenset[str] | None) -> Failure | None:
        """What a call on this route is told now; None: it would be sent.

        ``names``: canonical names of all that Ollama has; None: unknown.
        """
        refused = [self._of(route, candidate, names) for candidate in route.candidates]
        first = refused[0]
        if first is not None and first.code in _BUDGETS:
            return first
        return first if all(refused) else None

    def _of(
        self, route: Route, candidate: Candidate, names: frozenset[str] | None
    ) -> Failure | None:
        role, keeper = route.role, self._budget_keeper
        if self._providers.of(candidate.model, role) is Provider.LOCAL:
            return self._stored(candidate) or keeper.foresee(role, candidate, Provider.LOCAL)
        return (
            self._before(role, candidate)
            or keeper.foresee(role, candidate, Provider.CLOUD)
            or self._unknown(route, candidate, names)
        )

    def of_role(self) -> Failure | None:
        """Why no approval helps the model of the role CLOUD; None: it has none, or one would."""
        if self._policy.roles[Role.CLOUD].primary is None:
            return None
        route = self._roles.route(RouteRequest(model="", role=Role.CLOUD))
        if isinstance(route, Failure):
            return None
        refused = [
            self._before(route.role, candidate)
            or self._budget_keeper.unpriced(route.role, candidate)
            or self._unknown(route, candidate, self._installed.listed)
            for candidate in route.candidates
        ]
        return refused[0] if all(refused) else None

    def _before(self, role: Role, candidate: Candidate) -> Failure | None:
        """What is asked before money is."""
        model = candidate.model
        refused = egress.refusal_of_policy(self._policy, role, model)
        cloud = None if self._clouds is None else self._clouds.of(model)
        return refused or (None if cloud is None else cloud.keyless())

    def _unknown(
        self, route: Route, candidate: Candidate, names: frozenset[str] | None
    ) -> Failure | None:
        """Ollama is asked for what no provider has, and has it not either."""
        model = candidate.model
        if self._policy.cloud.providers or runs_in_cloud(model) or names is None:
            return None
        if canonical(model) in names or self._installed.silent_about(model):
            return None
        if canonical(model) == canonical(route.requested_model):
            return self._not_found(model)
        is_fallback = model == self._policy.roles[route.role].fallback
        return upstream_failures.not_installed(
            model,
            role=route.role,
            chosen_as="fallback" if is_fallback else "model",
            provider=Provider.CLOUD,
        )

    def _stored(self, candidate: Candidate) -> Failure | None:
        """A model that has a name of this machine's and runs elsewhere."""
        elsewhere = canonical(candidate.model) in self._installed.elsewhere
        return egress.stored_here(candidate.model) if elsewhere else None
