"""What Ollama has installed, against what the policy names.

An alias never hides an installed model silently, and a model that a role relies on is
missed before its first call: ``check-config --online`` and the start-up log say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from modelsplit_policy.model_names import canonical, canonical_stored
from modelsplit_policy.vocabulary import Provider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.vocabulary import Role


def names(body: bytes) -> frozenset[str] | None:
    """The canonical names in an answer of ``/api/tags``; None if it is something else."""
    try:
        models = orjson.loads(body)["models"]
        return frozenset(canonical_stored(str(model["name"])) for model in models)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None


def warnings(policy: Policy, installed: frozenset[str]) -> Iterator[str]:
    """One sentence for everything that will surprise somebody."""
    for role, row in policy.roles.items():
        for alias in row.aliases:
            if canonical(alias) in installed:
                yield f'alias "{alias}" of {role} hides the installed model of that name'
        for model in (row.primary, row.fallback, *_arms(policy, role)):
            if model is None or row.provider is not Provider.LOCAL:
                continue
            if canonical(model) not in installed:
                yield f"{role}: {model} is not installed; try `ollama pull {model}`"


def _arms(policy: Policy, role: Role) -> tuple[str, ...]:
    """Models that only an enabled experiment asks."""
    row = policy.roles[role]
    tests = [test for test in policy.experiments if test.enabled and test.role is role]
    models = [arm.model for test in tests for arm in test.arms]
    return tuple(model for model in models if model not in {row.primary, row.fallback})
