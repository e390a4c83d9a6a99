"""Whose calls may leave this machine for a cloud, over its own API or through Ollama.

Unless the policy says otherwise: those of the role CLOUD, which a client names or has itself
escalated to. An approval and the budgets are asked besides (``budgets``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelsplit_policy.failures import ErrorCode, Failure, Reason, said_back
from modelsplit_policy.model_names import canonical, runs_in_cloud
from modelsplit_policy.roles import Providers
from modelsplit_policy.vocabulary import Host, Provider, Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelsplit_policy.config.model import CloudPolicy, Policy

_NAME_MAX: Final = 60
# Who is named where Ollama sends a request to its own cloud.
OLLAMA: Final = "ollama"


def host_of(provider: str) -> Host:
    """A provider of the policy, as breakers tell it from another and from Ollama.

    No host of Ollama's has a space in its name.
    """
    return Host(f"provider {provider}")


def unserved(policy: CloudPolicy, model: str, provider: Provider) -> Failure | None:
    """Why nobody can be asked for a model of ``provider``; None: somebody can.

    Ollama serves its own models of the cloud. Where no provider is configured it is asked for
    any other too: it may know one of that name.
    """
    if provider is not Provider.CLOUD or not policy.providers or runs_in_cloud(model):
        return None
    name = canonical(model)
    if any(canonical(own) == name for row in policy.providers.values() for own in row.models):
        return None
    first = next(iter(policy.providers))
    shown = said_back(model, _NAME_MAX)
    line = f'cloud.providers.{said_back(first, 30)}.models: "{shown}": null'
    return Failure(
        ErrorCode.MODEL_NOT_FOUND,
        Reason.NO_PROVIDER,
        f"no provider of the policy lists {shown}; add {line}"[:200],
        "No Provider",
    )


def refusal_of_role(policy: Policy, role: Role, model: str) -> Failure | None:
    """Why no call of ``role`` to a cloud's model may leave, whoever asks; None: some may."""
    allowed = policy.cloud.allow_from.roles
    if role in allowed:
        return None
    say = "; send X-LLM-Role: CLOUD" if Role.CLOUD in allowed else ""
    return _denied(model, f"of {role} may not{say}, or list {role} in cloud.allow_from.roles")


def refusal_of_policy(policy: Policy, role: Role, model: str) -> Failure | None:
    """Why the policy alone keeps calls of ``role`` to a cloud's model here; None: some leave."""
    refused = unserved(policy.cloud, model, Provider.CLOUD)
    return refused or refusal_of_role(policy, role, model)


def refusal(
    policy: Policy, role: Role, model: str, *, client: str | None, condition: str
) -> Failure | None:
    """Why a call of ``role`` to a cloud's model may not leave; None: it may.

    ``client``: the name of its key, None where it has none. ``condition``: that it was
    escalated by; empty: it was not.
    """
    allowed = policy.cloud.allow_from
    refused = refusal_of_role(policy, role, model)
    if refused is not None:
        return refused
    if allowed.clients is not None and client not in allowed.clients:
        whose = "without a key" if client is None else f"of {said_back(client)}"
        return _denied(model, f"{whose} may not; cloud.allow_from.clients does not list it")
    if condition and allowed.conditions is not None and condition not in allowed.conditions:
        return _denied(model, "escalated so may not; cloud.allow_from.conditions does not list it")
    return None


def searching(role: Role) -> Failure:
    """A call to a model of this machine for which Ollama would search the web."""
    return _stays(
        f'with the tool "web_search" Ollama sends searches to ollama.com, and calls of {role} stay '
        "here; leave the tool out, or send X-LLM-Role: CLOUD"
    )


def stored_here(model: str) -> Failure:
    """A call to a model that is stored here by a name of its own, and runs elsewhere."""
    return _stays(
        f"{said_back(model, _NAME_MAX)} is stored here but runs elsewhere, by /api/tags; send "
        "X-LLM-Role: CLOUD, or list it in roles.CLOUD.claims"
    )


def untold(model: str) -> Failure:
    """A call to a model that was just made, of which Ollama does not say where it runs."""
    return Failure(
        ErrorCode.UPSTREAM_LOCAL,
        Reason.NO_ANSWER,
        f"{said_back(model, _NAME_MAX)} was just made or is being made, and Ollama does not tell "
        "(/api/tags) whether it runs here; ask again once it answers",
        "No Answer",
        unsent=True,
    )


def warnings(policy: Policy) -> Iterator[str]:
    """A sentence for each model that the policy gives to a role whose calls may not leave."""
    providers, allowed = Providers(policy), policy.cloud.allow_from.roles
    for role, row in policy.roles.items():
        arms = [
            arm.model
            for test in policy.experiments
            for arm in test.arms
            if test.enabled and test.role is role
        ]
        for model in dict.fromkeys((row.primary, row.fallback, *row.claims, *arms)):
            if model is None or role in allowed:
                continue
            if providers.of(model, role) is Provider.CLOUD:
                yield (
                    f"{role}: {said_back(model, _NAME_MAX)} runs in a cloud, for which its calls "
                    f"may not leave; list {role} in cloud.allow_from.roles"
                )


def unreadable(model: str) -> Failure:
    """A request to ``model`` in which nothing can be looked for that must not leave."""
    message = (
        f"{said_back(model, _NAME_MAX)} runs elsewhere, and the body is no plain JSON in which "
        "cloud.redact could look"
    )
    return Failure(ErrorCode.BAD_REQUEST, Reason.UNTRANSLATABLE, message[:200], "Untranslatable")


def _denied(model: str, why: str) -> Failure:
    return _stays(f"{said_back(model, _NAME_MAX)} runs elsewhere, and calls {why}")


def _stays(message: str) -> Failure:
    return Failure(ErrorCode.FORBIDDEN, Reason.EGRESS_DENIED, message[:200], "Egress Denied")
