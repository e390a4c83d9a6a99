"""What a client is told that named a model which is not installed.

What Ollama says stands first, so that who looks for its words finds them; then the next step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from modelsplit_policy.model_names import canonical
from modelsplit_policy.near_names import near
from modelsplit_proxy.protocol import upstream_failures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.failures import Failure


class MissingModel:
    """Knows what might have been meant.

    ``installed``: names, as Ollama lists them. ``pulled_at``: as for ``hints.pulling``.
    """

    def __init__(
        self, policy: Policy, installed: Callable[[], Iterable[str]], pulled_at: str = ""
    ) -> None:
        # What it is called, and the models that serve it.
        self._roles = [
            (row.aliases[0], {canonical(name) for name in (row.primary, row.fallback) if name})
            for row in policy.roles.values()
            if row.aliases
        ]
        self._aliases = [alias for row in policy.roles.values() for alias in row.aliases]
        self._installed = installed
        self.pulled_at = pulled_at

    def named(self, model: str) -> Failure:
        """What a client would be told that named ``model``: Ollama is not asked for its words."""
        return self.failure(model, orjson.dumps({"error": f'model "{model}" not found'}))

    def failure(self, model: str, body: bytes) -> Failure:
        """``body``: Ollama's own answer to a client that named ``model``."""
        there = {canonical(name) for name in self._installed()}
        roles = [alias for alias, models in self._roles if models & there]
        known = [*self._aliases, *self._others(model)]
        meant = near(model, known)
        return upstream_failures.not_found(
            model, body, meant=meant, roles=roles, pulled_at=self.pulled_at
        )

    def _others(self, model: str) -> Iterator[str]:
        for name in self._installed():
            if canonical(name) != canonical(model):
                yield name.removesuffix(":latest")
