"""What must hold across several keys of a policy.

Every rule sees the parts that are sound by themselves, so that one fault hides no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import (
    Any,
    Final,
)

from pydantic import (
    ValidationError,
)

from modelsplit_policy.config.model import (
    LONG_WAIT_MS,
    WAIT_MS,
    BudgetPolicy,
    CloudProviderPolicy,
    EscalationPolicy,
    ExperimentPolicy,
    GlobalPolicy,
    HostPolicy,
    M,
    ModelPolicy,
    Options,
    RedactionPolicy,
    RolePolicy,
    Scalar,
    SloPolicy,
    with_provider,
)
from modelsplit_policy.config.problems import MISSING, Loc, Problem, json_path, problem_at, shown
from modelsplit_policy.host_rules import address, rules_of
from modelsplit_policy.model_names import canonical, runs_in_cloud
from modelsplit_policy.slo.names import AT_MOST_ALL, BOUNDS, OBJECTIVES
from modelsplit_policy.vocabulary import Provider, Role

# --- Step 3: rules that span several keys --------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Draft:
    """The parts of the document that are sound by themselves; the rest is already reported."""

    cap: int | None
    roles: Mapping[Role, RolePolicy]
    models: tuple[str, ...]
    pinned: Mapping[str, Options]
    budgets: Mapping[Any, BudgetPolicy]
    conditions: tuple[str, ...]
    experiments: Mapping[Any, ExperimentPolicy]
    providers: Mapping[str, CloudProviderPolicy]
    redactions: tuple[RedactionPolicy, ...]
    slo: Mapping[Any, SloPolicy]
    hosts: Mapping[str, HostPolicy]


def _sound(model: type[M], part: object) -> M | None:
    try:
        return model.model_validate(part)
    except ValidationError:
        return None


def _sound_parts(model: type[M], parts: object) -> dict[Any, M]:
    items: Iterable[tuple[Any, object]] = ()
    if isinstance(parts, Mapping):
        items = parts.items()
    elif isinstance(parts, list):
        items = enumerate(parts)
    checked = ((key, _sound(model, part)) for key, part in items)
    return {key: part for key, part in checked if part is not None}


def _part(parts: object, key: str) -> object:
    return parts.get(key) if isinstance(parts, Mapping) else None


def read_draft(raw: Mapping[str, Any]) -> _Draft:
    cap = _sound(GlobalPolicy, raw.get("global"))
    roles = _sound_parts(RolePolicy, with_provider(raw.get("roles")))
    escalation = _sound(EscalationPolicy, raw.get("escalation"))
    models = raw.get("models")
    return _Draft(
        cap=cap.max_concurrent if cap else None,
        roles={Role(name): role for name, role in roles.items()},
        models=tuple(models) if isinstance(models, Mapping) else (),
        pinned={name: part.options for name, part in _sound_parts(ModelPolicy, models).items()},
        budgets=_sound_parts(BudgetPolicy, raw.get("budgets")),
        conditions=escalation.conditions if escalation else (),
        experiments=_sound_parts(ExperimentPolicy, raw.get("experiments")),
        providers=_sound_parts(CloudProviderPolicy, _part(raw.get("cloud"), "providers")),
        redactions=tuple(_sound_parts(RedactionPolicy, _part(raw.get("cloud"), "redact")).values()),
        slo=_sound_parts(SloPolicy, raw.get("slo")),
        hosts=_sound_parts(HostPolicy, raw.get("hosts")),
    )


def every_role(raw: Mapping[str, Any]) -> Iterator[Problem]:
    roles = raw.get("roles")
    if isinstance(roles, Mapping):
        yield from (problem_at(("roles", r), MISSING) for r in Role if r not in roles)


def _primaries(draft: _Draft) -> Iterator[Problem]:
    for name, role in draft.roles.items():
        at = ("roles", name.value, "primary")
        if name is Role.CHAT and role.primary is not None:
            yield problem_at(at, "must be null: CHAT serves the model the client named")
        if name is not Role.CHAT and role.primary is None:
            yield problem_at(at, f"must name a model: only CHAT has none, and this is {name}")


def _fallbacks(draft: _Draft) -> Iterator[Problem]:
    for name, role in draft.roles.items():
        at = ("roles", name.value)
        if role.fallback is None and role.fallback_timeout_ms is not None:
            yield problem_at(
                (*at, "fallback_timeout_ms"),
                "has no fallback to apply to; set it to null or name a fallback",
            )
        if role.fallback and role.primary and canonical(role.fallback) == canonical(role.primary):
            yield problem_at(
                (*at, "fallback"), "is the primary again; name another model, or null for none"
            )


def _providers(draft: _Draft) -> Iterator[Problem]:
    for name, role in draft.roles.items():
        right = Provider.CLOUD if name is Role.CLOUD else Provider.LOCAL
        if role.provider is not right:
            yield problem_at(
                ("roles", name.value, "provider"), f"must be {right} for {name}; leave it out"
            )


def _waits(draft: _Draft) -> Iterator[Problem]:
    for name, role in draft.roles.items():
        low, high = LONG_WAIT_MS if role.allow_long_wait else WAIT_MS
        if not low <= role.max_wait_ms <= high:
            hint = "" if role.allow_long_wait else ', or set "allow_long_wait": true'
            yield problem_at(
                ("roles", name.value, "max_wait_ms"),
                f"must be {low} to {high} milliseconds, not {role.max_wait_ms}{hint}",
            )


def _tokens(draft: _Draft) -> Iterator[Problem]:
    for name, role in draft.roles.items():
        given, most = role.num_predict, role.max_num_predict
        if given is not None and most is not None and given > most:
            yield problem_at(
                ("roles", name.value, "num_predict"),
                f"is {given}, more than this role's max_num_predict ({most}); lower it",
            )


def _contexts(draft: _Draft) -> Iterator[Problem]:
    """A pinned num_ctx that the clamp of its own role would cut."""
    for name, role in draft.roles.items():
        if role.max_num_ctx is None:
            continue
        for where, pinned in _pinned_contexts(draft, name, role):
            if isinstance(pinned, int | float) and pinned > role.max_num_ctx:
                yield problem_at(
                    ("roles", name.value, "max_num_ctx"),
                    f"is {role.max_num_ctx}, but {json_path(where)} is {shown(pinned)};"
                    " raise the one or lower the other",
                )


def _pinned_contexts(
    draft: _Draft, name: Role, role: RolePolicy
) -> Iterator[tuple[Loc, Scalar | None]]:
    """Every num_ctx the policy sets in calls of a role, and where it stands."""
    chosen = {canonical(model) for model in (role.primary, role.fallback) if model}
    for i, test in draft.experiments.items():
        for j, arm in enumerate(test.arms if test.role is name else ()):
            if "num_ctx" in arm.options:
                yield ("experiments", i, "arms", j, "options", "num_ctx"), arm.options["num_ctx"]
            else:
                chosen.add(canonical(arm.model))
    for model, options in draft.pinned.items():
        if canonical(model) in chosen:
            yield ("models", model, "options", "num_ctx"), options.get("num_ctx")


def _reserved(draft: _Draft) -> Iterator[Problem]:
    for name, role in draft.roles.items():
        at = ("roles", name.value, "reserved")
        if name is Role.CLOUD and role.reserved:
            yield problem_at(at, "must be 0: CLOUD takes no seat of the global cap")
        elif role.max_concurrent is not None and role.reserved > role.max_concurrent:
            yield problem_at(
                at,
                f"is {role.reserved}, more than this role's max_concurrent"
                f" ({role.max_concurrent}); lower it",
            )
    total = sum(role.reserved for name, role in draft.roles.items() if name is not Role.CLOUD)
    if draft.cap is not None and total > draft.cap:
        yield problem_at(
            ("global", "max_concurrent"),
            f"is {draft.cap}, but the roles reserve {total} together; raise it or reserve less",
        )


def _model_places(draft: _Draft) -> dict[str, str]:
    """Where each model name is first used, by its normal form."""
    places: list[tuple[Loc, str | None]] = []
    for name, role in draft.roles.items():
        at = ("roles", name.value)
        places += [((*at, "primary"), role.primary), ((*at, "fallback"), role.fallback)]
        places += [((*at, "claims", i), claim) for i, claim in enumerate(role.claims)]
    places += [(("models", model), model) for model in draft.models]
    for i, budget in draft.budgets.items():
        places += [(("budgets", i, "models"), model) for model in budget.models or ()]
    for i, experiment in draft.experiments.items():
        places += [(("experiments", i, "arms"), arm.model) for arm in experiment.arms]
    return {canonical(name): json_path(loc) for loc, name in reversed(places) if name}


def _twice(names: Iterable[tuple[Loc, str]], say: Callable[[str], str]) -> Iterator[Problem]:
    """Report every name whose normal form has been seen before; `say` gets the first place."""
    seen: dict[str, str] = {}
    for loc, name in names:
        first = seen.setdefault(name, json_path(loc))
        if first != json_path(loc):
            yield problem_at(loc, say(first))


def _aliases(draft: _Draft) -> Iterator[Problem]:
    names: list[tuple[Loc, str]] = [
        (("roles", name.value, "aliases", i), canonical(alias))
        for name, role in draft.roles.items()
        for i, alias in enumerate(role.aliases)
    ]
    models = _model_places(draft)
    yield from _twice(names, lambda first: f"is the same alias as {first}; keep one of them")
    for loc, name in names:
        if loc[1] == Role.CHAT:
            yield problem_at(loc, "CHAT has no model an alias could stand for; remove it")
        if name in models:
            yield problem_at(loc, f"is also the name of a model ({models[name]}); rename the alias")


def _claims(draft: _Draft) -> Iterator[Problem]:
    names: list[tuple[Loc, str]] = [
        (("roles", name.value, "claims", i), canonical(claim))
        for name, role in draft.roles.items()
        for i, claim in enumerate(role.claims)
    ]
    yield from _twice(names, lambda first: f"is already claimed at {first}; keep one of them")


def _models(draft: _Draft) -> Iterator[Problem]:
    names: list[tuple[Loc, str]] = [(("models", m), canonical(m)) for m in draft.models]
    yield from _twice(names, lambda first: f"is the same model as {first}; keep one of them")


def _budgets(draft: _Draft) -> Iterator[Problem]:
    names: list[tuple[Loc, str]] = [
        (("budgets", i, "name"), b.name) for i, b in draft.budgets.items()
    ]
    yield from _twice(names, lambda first: f"is also the name at {first}; rename one")
    for i, budget in draft.budgets.items():
        if budget.models is None and budget.role is None and budget.provider is None:
            yield problem_at(("budgets", i), "selects no calls; add models, role or provider")
        if budget.calls is None and budget.usd is None:
            yield problem_at(("budgets", i), "limits nothing; add calls or usd")
        if budget.lease and budget.calls is not None and budget.calls * budget.lease < 1:
            text = f"{budget.lease:g} of {budget.calls} calls is less than one call"
            yield problem_at(("budgets", i, "lease"), text)


def _conditions(draft: _Draft) -> Iterator[Problem]:
    names: list[tuple[Loc, str]] = [
        (("escalation", "conditions", i), word) for i, word in enumerate(draft.conditions)
    ]
    yield from _twice(names, lambda first: f"is already listed at {first}; remove one")


def _experiments(draft: _Draft) -> Iterator[Problem]:
    tests = draft.experiments.items()
    yield from _twice(
        [(("experiments", i, "name"), test.name) for i, test in tests],
        lambda first: f"is also the name at {first}; rename one",
    )
    yield from _twice(
        [(("experiments", i, "enabled"), test.role) for i, test in tests if test.enabled],
        lambda first: f"is true for a role that {first} already tests; enable one of them",
    )
    for i, test in tests:
        yield from _arms(("experiments", i), test)


def _arms(at: Loc, test: ExperimentPolicy) -> Iterator[Problem]:
    yield from _twice(
        [((*at, "arms", i, "name"), arm.name) for i, arm in enumerate(test.arms)],
        lambda first: f"is also the name at {first}; rename one",
    )
    if test.role is Role.CHAT:
        yield problem_at((*at, "role"), "must not be CHAT: it serves the model the client named")
    if not any(arm.weight for arm in test.arms):
        yield problem_at((*at, "arms"), "have no weight; give at least one more than 0")


def _clouds(draft: _Draft) -> Iterator[Problem]:
    names: list[tuple[Loc, str]] = [
        (("cloud", "providers", provider, "models", model), canonical(model))
        for provider, row in draft.providers.items()
        for model in row.models
    ]
    yield from _twice(names, lambda first: f"is already at {first}; one provider answers for it")
    here = {
        canonical(model): json_path(("roles", name.value, key))
        for name, role in draft.roles.items()
        for key, model in (("primary", role.primary), ("fallback", role.fallback))
        if name is not Role.CLOUD and model is not None
    }
    for loc, name in names:
        if name in here:
            yield problem_at(loc, f"is a model of this machine at {here[name]}; rename the one")
        if runs_in_cloud(str(loc[-1])):
            yield problem_at(loc, "is a name that Ollama runs in its own cloud; rename it")
    yield from _twice(
        [(("cloud", "redact", i, "name"), row.name) for i, row in enumerate(draft.redactions)],
        lambda first: f"is also the name at {first}; rename one",
    )


def _hosts(draft: _Draft) -> Iterator[Problem]:
    if not draft.hosts:
        return
    where = [(("hosts", name, "url"), address(row.url)) for name, row in draft.hosts.items()]
    places = [(loc, f"{host.lower()}:{port}") for loc, (host, port) in where]
    yield from _twice(places, lambda first: f"is where {first} is; one Ollama is one host")
    hosts = [(rules_of(row), row.max_concurrent) for row in draft.hosts.values()]
    for loc, role, model in _local_models(draft):
        if not any(rules.takes(role, canonical(model)) for rules, _ in hosts):
            yield problem_at(loc, f"may run on none of the hosts; let one take {role} and {model}")
    for name, row in draft.roles.items():
        caps = [cap for rules, cap in hosts if rules.roles is None or name in rules.roles]
        most = sum(cap for cap in caps if cap is not None) if None not in caps else None
        if most is not None and name is not Role.CLOUD and row.reserved > most:
            yield problem_at(
                ("roles", name.value, "reserved"),
                f"is {row.reserved}, but the hosts that take {name} have {most} in all; lower it",
            )


def _local_models(draft: _Draft) -> Iterator[tuple[Loc, Role, str]]:
    """Every model of a role that a host runs, and where it stands; not those of the cloud."""
    for name, role in draft.roles.items():
        if name is Role.CLOUD:
            continue
        for key, model in (("primary", role.primary), ("fallback", role.fallback)):
            if model is not None:
                yield ("roles", name.value, key), name, model
    for i, test in draft.experiments.items():
        for j, arm in enumerate(test.arms if test.enabled and test.role is not Role.CLOUD else ()):
            yield ("experiments", i, "arms", j, "model"), test.role, arm.model


def _objectives(draft: _Draft) -> Iterator[Problem]:
    for name, slo in draft.slo.items():
        if name not in OBJECTIVES:
            continue
        fitting = OBJECTIVES[name][1]
        for key in BOUNDS:
            value = getattr(slo, key)
            if value is None:
                continue
            if key not in fitting:
                yield problem_at(("slo", name, key), f"does not fit it; use {' or '.join(fitting)}")
            elif name in AT_MOST_ALL and key != "of_baseline" and value > 1:
                yield problem_at(
                    ("slo", name, key), "is a share between 0 and 1; write 0.1 for 10 per cent"
                )


RULES: Final = (
    _primaries,
    _fallbacks,
    _providers,
    _waits,
    _tokens,
    _contexts,
    _reserved,
    _aliases,
    _claims,
    _models,
    _budgets,
    _conditions,
    _experiments,
    _clouds,
    _hosts,
    _objectives,
)
