"""From what a request says to whose call it is and which model answers.

First match wins: the ``X-LLM-Role`` header; the model name is an alias of a role; the
model name is claimed by a role; CHAT. An alias stands for its role's primary model. A
concrete model named together with a role header keeps its name for the first attempt and
takes the role's pool, timeout and fallback.

An enabled experiment of the role stands in for the primary: a call takes part if it would
have started at the primary, because the policy and not the client chose the model, and was
not escalated to it. The arm's model is then attempt 1; the fallback stays the role's.

A call bound to its model's identity has one candidate, the client's model or the primary:
no arm, no fallback, not to begin with either.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.bounded_memo import NAME_MAX, BoundedMemo
from modelsplit_policy.experiments import arm_of, sticky_key
from modelsplit_policy.failures import ErrorCode, Failure, Reason, said_back
from modelsplit_policy.model_names import ModelNames, canonical, runs_in_cloud, unreadable
from modelsplit_policy.vocabulary import Context, Provider, Role, RouteReason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.config.model import (
        ArmPolicy,
        ExperimentPolicy,
        Policy,
        RolePolicy,
        Scalar,
    )

# Nothing escalates by itself, and no step is skipped.
_ESCALATES_TO: Final = MappingProxyType({Role.EXECUTOR: Role.HEAVY, Role.HEAVY: Role.CLOUD})


class RouteRequest(NamedTuple):
    """What a client said about one call. Empty strings: it said nothing.

    ``job``, ``client`` and ``request``: who it is, for experiments. ``loads``: it asks the
    model nothing and only loads or unloads it. ``bound``: no other model than the one it is
    for may answer (``endpoints``).
    """

    model: str
    role: str = ""
    context: str = ""
    retry_level: int = 0
    escalate: str = ""
    no_fallback: bool = False
    job: str = ""
    client: str = ""
    request: str = ""
    loads: bool = False
    bound: bool = False


class Candidate(NamedTuple):
    """One model that may be tried, and how long it may take (None: no bound).

    ``options``: runner options of an experiment's arm.
    """

    model: str
    timeout_s: float | None
    options: tuple[tuple[str, Scalar], ...] = ()


class Route(NamedTuple):
    """Whose call it is, who may answer, in order (one or two), and why.

    ``experiment``: the one it takes part in, with its ``arm``; no arm where nobody has said
    whose call it is, which only dry runs may leave open.
    """

    role: Role
    context: Context
    provider: Provider
    requested_model: str
    candidates: tuple[Candidate, ...]
    reason: RouteReason
    starts_at_fallback: bool = False
    experiment: ExperimentPolicy | None = None
    arm: ArmPolicy | None = None

    def of_one_model(self) -> Route:
        """The same without a fallback."""
        return self._replace(candidates=self.candidates[:1])


def named_by(policy: Policy, role: Role) -> tuple[str, ...]:
    """Every model that a role is given by the policy, without repetitions."""
    row = policy.roles[role]
    arms = (arm.model for test in policy.experiments if test.role is role for arm in test.arms)
    names = (row.primary, row.fallback, *row.claims, *arms)
    return tuple({canonical(name): name for name in names if name is not None}.values())


def named_here(policy: Policy) -> frozenset[str]:
    """Every model, by its canonical name, that is given to a role of this machine."""
    here = (role for role in policy.roles if role is not Role.CLOUD)
    return frozenset(canonical(name) for role in here for name in named_by(policy, role))


def needed_for(policy: Policy, route: Route) -> Role:
    """The role that a client must be allowed to call for this route.

    CLOUD where the first model is the cloud's and the client's own choice, whichever role it
    says: what a role is given by the policy is the role's.
    """
    if route.provider is not Provider.CLOUD:
        return route.role
    given = {canonical(name) for name in named_by(policy, route.role)}
    return route.role if canonical(route.candidates[0].model) in given else Role.CLOUD


class Providers:
    """Who computes the answers of a model, indexed once.

    A model of the cloud is the cloud whichever role asks for it: those that Ollama names so,
    and those that the policy gives to CLOUD or to a provider, and to no role of this machine.
    """

    def __init__(self, policy: Policy) -> None:
        provided = (name for row in policy.cloud.providers.values() for name in row.models)
        named = (*named_by(policy, Role.CLOUD), *provided)
        cloud = frozenset(canonical(name) for name in named)
        self._rows = policy.roles
        self._cloud = cloud - named_here(policy)

    def of(self, model: str, role: Role) -> Provider:
        if runs_in_cloud(model) or canonical(model) in self._cloud:
            return Provider.CLOUD
        return self._rows[role].provider


class Roles:
    """The policy's names, indexed once."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._providers = Providers(policy)
        self._aliases: Mapping[str, Role] = {
            canonical(alias): role for role, row in policy.roles.items() for alias in row.aliases
        }
        self._claims: Mapping[str, Role] = {
            canonical(claim): role for role, row in policy.roles.items() for claim in row.claims
        }
        self._tests = {test.role: test for test in policy.experiments if test.enabled}
        self._names = ModelNames()
        self._plain: BoundedMemo[str, Route] = BoundedMemo()

    def plain(self, model: str) -> Route | Failure | None:
        """The route of a call that says nothing but its model, which most do; None: ask ``route``.

        It is the same every time, so it is remembered; unless an experiment may have to look
        at whose call it is, or the name is endless.
        """
        if self._tests or len(model) > NAME_MAX:
            return None
        known = self._plain.get(model)
        if known is not None:
            return known
        route = self.route(RouteRequest(model))
        return route if isinstance(route, Failure) else self._plain.keep(model, model, route)

    def route(self, ask: RouteRequest) -> Route | Failure:
        """Decide; a Failure says what the client should have sent instead."""
        if ask.model and self._names.read(ask.model) is None:
            return unreadable(ask.model)
        name = self._names.canonical(ask.model)
        role, reason = self._infer(ask, name)
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
        return self._resolve(ask, role, reason, context, is_alias=name in self._aliases)

    def _infer(self, ask: RouteRequest, name: str) -> tuple[Role | None, RouteReason]:
        if ask.role:
            return _role_named(ask.role), RouteReason.HEADER
        by_alias = self._aliases.get(name)
        if by_alias is not None:
            return by_alias, RouteReason.ALIAS
        by_claim = self._claims.get(name)
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

    def _context(self, role: Role, raw: str) -> Context | Failure:
        row = self._policy.roles[role]
        if not raw:
            return row.context
        try:
            context = Context(raw.upper())
        except ValueError:
            known = ", ".join(Context)
            return Failure(
                ErrorCode.BAD_REQUEST,
                Reason.BAD_HEADER,
                f"X-LLM-Context {_quoted(raw)} is unknown; use one of {known}",
                "Unknown Context",
            )
        # Only HEAVY and CLOUD work for more than one activity, so only they may say which.
        return context if role in {Role.HEAVY, Role.CLOUD} else row.context

    def _resolve(
        self,
        ask: RouteRequest,
        role: Role,
        reason: RouteReason,
        context: Context,
        *,
        is_alias: bool,
    ) -> Route:
        row = self._policy.roles[role]
        names_model = bool(ask.model) and not is_alias and reason is not RouteReason.ESCALATION
        at_fallback = ask.retry_level > 0 and row.fallback is not None and not ask.bound
        test = None if names_model or ask.bound else self._test(ask, role, reason)
        arm = None if test is None else _arm(test, ask)
        model = self._first_model(ask.model, row, names_model=names_model)
        candidates = self._candidates(row, arm, model)
        if at_fallback:
            candidates, reason = candidates[1:] or (_fallback(row),), RouteReason.FALLBACK
        elif ask.no_fallback or ask.bound:
            candidates = candidates[:1]
        return Route(
            role=role,
            context=context,
            provider=self._providers.of(candidates[0].model, role),
            requested_model=ask.model,
            candidates=candidates,
            reason=reason if arm is None else RouteReason.EXPERIMENT,
            starts_at_fallback=at_fallback,
            experiment=test,
            arm=arm,
        )

    def _candidates(
        self, row: RolePolicy, arm: ArmPolicy | None, model: str
    ) -> tuple[Candidate, ...]:
        """The arm's model, or without one ``model``, and the fallback."""
        timeout_s = _seconds(row.timeout_ms)
        first = Candidate(model, timeout_s)
        if arm is not None:
            first = Candidate(arm.model, timeout_s, tuple(arm.options.items()))
        same = self._names.canonical
        if row.fallback is None or same(row.fallback) == same(first.model):
            return (first,)
        return (first, _fallback(row))

    def _first_model(self, named: str, row: RolePolicy, *, names_model: bool) -> str:
        """What the client named; for an alias the role's own model, if it has one.

        CHAT has none: there an alias is the model it stands for.
        """
        if names_model:
            return named
        alias_of = self._aliases.get(self._names.canonical(named))
        own = None if alias_of is None else self._policy.roles[alias_of].primary
        return row.primary or own or named

    def _test(self, ask: RouteRequest, role: Role, reason: RouteReason) -> ExperimentPolicy | None:
        """The experiment of a call that starts where the policy says, if that is the primary."""
        elsewhere = reason is RouteReason.ESCALATION or ask.retry_level > 0
        return None if elsewhere else self._tests.get(role)


def _arm(test: ExperimentPolicy, ask: RouteRequest) -> ArmPolicy | None:
    # `ollama stop planner` means the model of this client's calls. Where each call is dealt
    # by itself, it means the one that the name stands for outside any experiment.
    request = "" if ask.loads else ask.request
    key = sticky_key(test, job=ask.job, client=ask.client, request=request)
    return arm_of(test, key) if key else None


def _fallback(row: RolePolicy) -> Candidate:
    assert row.fallback is not None
    return Candidate(row.fallback, _seconds(row.fallback_timeout_ms or row.timeout_ms))


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _role_named(name: str) -> Role | None:
    return Role.__members__.get(name.strip().upper())


def _quoted(raw: str) -> str:
    return f'"{said_back(raw)}"'


def _unknown_role(raw: str) -> Failure:
    known = ", ".join(Role)
    return Failure(
        ErrorCode.BAD_REQUEST,
        Reason.UNKNOWN_ROLE,
        f"X-LLM-Role {_quoted(raw)} is unknown; use one of {known}",
        "Unknown Role",
    )
