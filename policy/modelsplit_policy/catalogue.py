"""The policy's aliases as models: what each stands for, under which name and digest it is listed.

An alias looks installed, because that is the only way to a role which every client has. It
stands for its role's primary model, or for the fallback where only that one is installed:
calls go there then. What Ollama lists is installed, cloud models of its own too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from modelsplit_policy.failures import ErrorCode, Failure, Reason, for_provider
from modelsplit_policy.hints import pulling
from modelsplit_policy.model_names import canonical, canonical_stored
from modelsplit_policy.vocabulary import Provider, Role

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from modelsplit_policy.config.model import Policy


class Remote(NamedTuple):
    """Where a model is computed that a cloud is asked for over its own API.

    ``thinks``: it can think before it answers.
    """

    model: str
    host: str
    thinks: bool


@dataclass(frozen=True, slots=True)
class Alias:
    """One name of a role. ``targets``: the models it may stand for, first choice first.

    ``remote``: where the first of them is computed, if a cloud's own API answers for it. Such an
    alias is there whatever is installed.
    """

    name: str
    role: Role
    provider: Provider
    targets: tuple[str, ...]
    remote: Remote | None = None

    @property
    def listed(self) -> str:
        """The name as Ollama lists an installed model: with its tag."""
        return full_name(self.name)

    def digest(self, target_digest: str) -> str:
        """64 hex digits of its own, which change when the target does.

        Clients keep what they know of a model by its digest: one shared with the target
        would make the two names one.
        """
        return hashlib.sha256(f"alias:{self.name}:{target_digest}".encode()).hexdigest()

    def target(self, installed: Container[str]) -> str | None:
        """The model it stands for, given the canonical names of what is installed."""
        return next((model for model in self.targets if canonical(model) in installed), None)


class Catalogue:
    """All aliases of a policy, found by any spelling of their name."""

    def __init__(self, policy: Policy) -> None:
        self._aliases = {canonical(alias.name): alias for alias in _aliases(policy)}

    def find(self, name: str) -> Alias | None:
        """The alias that is called by ``name``."""
        return self._aliases.get(canonical(name))

    def find_stored(self, name: str) -> Alias | None:
        """The alias that hides the model stored as ``name``."""
        return self._aliases.get(canonical_stored(name))

    @property
    def aliases(self) -> tuple[Alias, ...]:
        """All of them, in the policy's order."""
        return tuple(self._aliases.values())


def full_name(name: str) -> str:
    """``planner`` means ``planner:latest``."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def not_installed(alias: Alias, pulled_at: str = "") -> Failure:
    """Nothing the alias stands for is there. ``pulled_at``: as for ``hints.pulling``.

    Never a 404: Ollama's command line answers that by pulling a model of the alias's name.
    """
    first = alias.targets[0][:56]
    advice = f"try `{pulling([first], pulled_at)}`"
    if alias.provider is Provider.CLOUD:
        advice = "name one of Ollama's cloud models in the policy"
    return Failure(
        for_provider(ErrorCode.UPSTREAM_LOCAL, alias.provider),
        Reason.NOT_INSTALLED,
        f'"{alias.name[:30]}" stands for {first}, which is not installed; {advice}',
        "Alias Target Missing",
    )


def _aliases(policy: Policy) -> Iterator[Alias]:
    for role, row in policy.roles.items():
        targets = tuple(model for model in (row.primary, row.fallback) if model is not None)
        for name in row.aliases:
            yield Alias(name, role, row.provider, targets, _remote(policy, row.primary))


def _remote(policy: Policy, model: str | None) -> Remote | None:
    for row in policy.cloud.providers.values():
        for name, own in row.models.items():
            if model is not None and canonical(name) == canonical(model):
                return Remote(own or name, row.base_url, thinks=row.thinking_tokens > 0)
    return None
