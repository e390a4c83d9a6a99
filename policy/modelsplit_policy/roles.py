"""From what a request says to whose call it is and which model answers.

First match wins: the ``X-LLM-Role`` header; the model name is an alias of a role; the
model name is claimed by a role; CHAT. An alias stands for its role's primary model. A
concrete model named together with a role header keeps its name for the first attempt and
takes the role's pool, timeout and fallback.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from modelsplit_policy.facts import Context, Provider, Role, RouteReason
from modelsplit_policy.failures import ErrorCode, Failure, Reason, said_back

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.config import Policy, RolePolicy

# Nothing escalates by itself, and no step is skipped.
_ESCALATES_TO: Final = MappingProxyType({Role.EXECUTOR: Role.HEAVY, Role.HEAVY: Role.CLOUD})


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client said about one call. Empty strings: it said nothing."""

    model: str
    role: str = ""
    context: str = ""
    retry_level: int = 0
    escalate: str = ""
    no_fallback: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model that may be tried, and how long it may take (None: no bound)."""

    model: str
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Route:
    """Whose call it is, who may answer, in order (one or two), and why."""

    role: Role
    context: Context
    provider: Provider
    requested_model: str
    candidates: tuple[Candidate, ...]
    reason: RouteReason
    starts_at_fallback: bool = False


def bare_name(model: str) -> str:
    """What all spellings of one model have in common.

    Ollama ignores case, ``:latest`` is no tag at all, and its own registry and library are
    where a name without them comes from.
    """
    name = model.lower().removesuffix(":latest")
    return name.removeprefix("registry.ollama.ai/").removeprefix("library/")


class Roles:
    """The policy's names, indexed once."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._aliases: Mapping[str, Role] = {
            bare_name(alias): role for role, row in policy.roles.items() for alias in row.aliases
        }
        self._claims: Mapping[str, Role] = {
            bare_name(claim): role for role, row in policy.roles.items() for claim in row.claims
        }

    def route(self, ask: Ask) -> Route | Failure:
        """Decide; a Failure says what the client should have sent instead."""
        bare = bare_name(ask.model)
        role, reason = self._infer(ask, bare)
        if role is None:
            return _unknown_role(ask.role)
        if ask.escalate:
            escalated = self._escalate(role, ask.escalate)
            if isinstance(escalated, Failure):
                return escalated
            role, reason = escalated, RouteReason.ESCALATION
        context = self._context(role, ask.context)
        if isinstance(context, Failure):
            return context
        return self._resolve(ask, role, reason, context, is_alias=bare in self._aliases)

    def alias_role(self, model: str) -> Role | None:
        """The role ``model`` is an alias of, if it is one."""
        return self._aliases.get(bare_name(model))

    def _infer(self, ask: Ask, bare: str) -> tuple[Role | None, RouteReason]:
        if ask.role:
            return _role_named(ask.role), RouteReason.HEADER
        by_alias = self._aliases.get(bare)
        if by_alias is not None:
            return by_alias, RouteReason.ALIAS
        by_claim = self._claims.get(bare)
        if by_claim is not None:
            return by_claim, RouteReason.CLAIM
        return Role.CHAT, RouteReason.DEFAULT

    def _escalate(self, role: Role, condition: str) -> Role | Failure:
        allowed = self._policy.escalation.conditions
        if condition not in allowed:
            listed = ", ".join(allowed) or "none"
            return Failure(
                ErrorCode.ESCALATION_DENIED,
                Reason.UNKNOWN_CONDITION,
                f"escalation condition {_quoted(condition)} is not allowed; allowed: {listed}",
                "Escalation Denied",
            )
        target = _ESCALATES_TO.get(role)
        if target is None:
            return Failure(
                ErrorCode.ESCALATION_DENIED,
                Reason.ROLE_CANNOT_ESCALATE,
                f"role {role} cannot escalate; EXECUTOR goes to HEAVY and HEAVY to CLOUD",
                "Escalation Denied",
            )
        return target

    def _context(self, role: Role, said: str) -> Context | Failure:
        row = self._policy.roles[role]
        # Only HEAVY and CLOUD work for more than one activity, so only they may say which.
        if not said or role not in {Role.HEAVY, Role.CLOUD}:
            return row.context
        try:
            return Context(said.upper())
        except ValueError:
            known = ", ".join(Context)
            return Failure(
                ErrorCode.BAD_REQUEST,
                Reason.BAD_HEADER,
                f"X-LLM-Context {_quoted(said)} is unknown; use one of {known}",
                "Unknown Context",
            )

    def _resolve(
        self, ask: Ask, role: Role, reason: RouteReason, context: Context, *, is_alias: bool
    ) -> Route:
        row = self._policy.roles[role]
        candidates = _candidates(ask, row, reason, is_alias=is_alias)
        at_fallback = ask.retry_level > 0 and row.fallback is not None
        if at_fallback:
            candidates = candidates[1:] or (_fallback(row),)
        elif ask.no_fallback:
            candidates = candidates[:1]
        return Route(
            role=role,
            context=context,
            provider=row.provider,
            requested_model=ask.model,
            candidates=candidates,
            reason=RouteReason.FALLBACK if at_fallback else reason,
            starts_at_fallback=at_fallback,
        )


def _candidates(
    ask: Ask, row: RolePolicy, reason: RouteReason, *, is_alias: bool
) -> tuple[Candidate, ...]:
    keeps_name = ask.model and not is_alias and reason is not RouteReason.ESCALATION
    model = ask.model if keeps_name or row.primary is None else row.primary
    first = Candidate(model, _seconds(row.timeout_ms))
    if row.fallback is None or bare_name(row.fallback) == bare_name(model):
        return (first,)
    return (first, _fallback(row))


def _fallback(row: RolePolicy) -> Candidate:
    assert row.fallback is not None
    return Candidate(row.fallback, _seconds(row.fallback_timeout_ms or row.timeout_ms))


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _role_named(name: str) -> Role | None:
    return Role.__members__.get(name.strip().upper())


def _quoted(said: str) -> str:
    return f'"{said_back(said)}"'


def _unknown_role(said: str) -> Failure:
    known = ", ".join(Role)
    return Failure(
        ErrorCode.BAD_REQUEST,
        Reason.UNKNOWN_ROLE,
        f"X-LLM-Role {_quoted(said)} is unknown; use one of {known}",
        "Unknown Role",
    )
