"""Which calls may go to which host, as the policy's ``hosts`` say it: values, and what they mean.

A host takes the calls of the roles and of the models that it names; one that names none takes
all. A pattern is of a model's canonical name, where ``*`` stands for any characters and ``?``
for one; a model without a tag is meant by its name and by its name with ``:latest``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_policy.config.model import HostPolicy
    from modelsplit_policy.vocabulary import Role

# Where an Ollama listens of which no port is said.
_PORT: Final = 11434
_GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class HostRules:
    """What the policy says of one host. ``memory``: bytes for its models; None: not known.

    ``roles``, ``models``: whose calls it takes, the latter one pattern for all; None: everybody's.
    """

    weight: float = 1.0
    tier: int = 1
    memory: int | None = None
    roles: frozenset[Role] | None = None
    models: re.Pattern[str] | None = None

    def takes(self, role: Role, model: str) -> bool:
        """Whether a call of ``role`` to ``model``, a canonical name, may go there."""
        return self.takes_role(role) and self.takes_model(model)

    def takes_model(self, model: str) -> bool:
        """Whether ``model``, a canonical name, may run there in any role."""
        return self.models is None or self.models.fullmatch(tagged(model)) is not None

    def takes_role(self, role: Role) -> bool:
        """Whether it takes calls of ``role`` to any model."""
        return self.roles is None or role in self.roles


def tagged(model: str) -> str:
    """A canonical name with its tag: what Ollama fills in where there is none."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


EVERYTHING: Final = HostRules()


def rules_of(row: HostPolicy) -> HostRules:
    return HostRules(
        weight=row.weight,
        tier=row.tier,
        memory=None if row.memory_gb is None else int(row.memory_gb * _GIB),
        roles=None if row.roles is None else frozenset(row.roles),
        models=None if row.models is None else patterns(row.models),
    )


def patterns(globs: Iterable[str]) -> re.Pattern[str]:
    """One pattern for names that any of the globs means, whatever their case."""
    return re.compile("|".join(_pattern(glob) for glob in globs), re.IGNORECASE)


def _pattern(glob: str) -> str:
    name = re.escape(glob).replace(r"\*", ".*").replace(r"\?", ".")
    # A star may stand for the tag, too.
    has_tag = ":" in glob.rpartition("/")[2] or glob.endswith("*")
    return name if has_tag else f"{name}:latest"


def address(url: str) -> tuple[str, int]:
    """Where a host listens, by the URL that the policy gives it: a name or an address, and a port.

    An address of IPv6 comes without its brackets.
    """
    authority = url.removeprefix("http://").rstrip("/")
    host, colon, port = authority.rpartition(":")
    if not colon or not port.isdigit():
        host, port = authority, str(_PORT)
    return host.strip("[]"), int(port)
