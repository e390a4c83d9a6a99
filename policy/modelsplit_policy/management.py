"""Who may change which models there are: pull, push, create, copy, delete.

Whatever the policy does not deny goes to Ollama. What names an alias as if it were a model
never does: there is no such model to change, and one of that name would be hidden. Whether it
names one is asked of both ways in which Ollama reads names (``model_names``): what is stored
as ``planner:local`` could only be called as the alias ``planner``.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.model_names import canonical, canonical_stored, read, read_stored, unreadable
from modelsplit_policy.vocabulary import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.catalogue import Alias, Catalogue
    from modelsplit_policy.config.model import ManagementPolicy

_HIDDEN: Final = ("cannot be the name of a model", "choose another name")
_SOURCE: Final = ("cannot be copied", "name {target} instead")

# Ollama reads the names of these, by action and key, as they are stored; others as called.
_STORED: Final = frozenset(
    {
        (Action.CREATE, "model"),
        (Action.COPY, "source"),
        (Action.COPY, "destination"),
        (Action.PUSH, "model"),
    }
)
# By action, then by the key of the body that names a model: what is wrong, and what to do.
_MISUSES: Final = MappingProxyType(
    {
        Action.PULL: {"model": ("cannot be pulled", "pull {target} instead")},
        Action.PUSH: {"model": ("cannot be pushed", "push {target} instead")},
        Action.DELETE: {
            "model": ("cannot be deleted", "take it out of roles.{role}.aliases in the policy")
        },
        Action.CREATE: {"model": _HIDDEN, "from": _SOURCE},
        Action.COPY: {"source": _SOURCE, "destination": _HIDDEN},
    }
)

# By action: the key that names what is there afterwards, and may be another model than before.
_MADE: Final = MappingProxyType(
    {Action.PULL: "model", Action.CREATE: "model", Action.COPY: "destination"}
)


def denied(action: Action, rules: ManagementPolicy) -> Failure | None:
    """What to answer where the policy forbids an action to everybody."""
    if action not in rules.deny:
        return None
    return Failure(
        ErrorCode.FORBIDDEN,
        Reason.MANAGEMENT_DENIED,
        f'"{action}" is denied here by the policy (management.deny); ask whoever runs this '
        "modelsplit",
        "Management Denied",
    )


def named_in(action: Action) -> tuple[str, ...]:
    """The keys of a body that name models, for the actions whose models must be looked at."""
    return tuple(_MISUSES.get(action, ()))


def made(action: Action, names: Mapping[str, str]) -> str | None:
    """The canonical name of the model that an action makes, or makes anew; None: it makes none."""
    key = _MADE.get(action, "")
    name = names.get(key, "")
    if not name:
        return None
    return (canonical_stored if (action, key) in _STORED else canonical)(name)


def misused(action: Action, names: Mapping[str, str], catalogue: Catalogue) -> Failure | None:
    """What to answer where a name under one of ``named_in``'s keys is an alias's, or unreadable.

    A name that is missing or empty is Ollama's to refuse.
    """
    for key, (what, advice) in _MISUSES.get(action, {}).items():
        name = names.get(key, "")
        alias = catalogue.find(name) or catalogue.find_stored(name)
        if alias is not None:
            return _misuse(alias, what, advice)
        parse = read_stored if (action, key) in _STORED else read
        if name and parse(name) is None:
            return unreadable(name)
    return None


def _misuse(alias: Alias, what: str, advice: str) -> Failure:
    target = alias.targets[0][:40]
    return Failure(
        ErrorCode.FORBIDDEN,
        Reason.IS_ALIAS,
        f'"{alias.name[:30]}" is an alias for {target}, not a model, and {what}; '
        + advice.format(target=target, role=alias.role),
        "Is An Alias",
    )
