"""``check-config`` and ``route``: what a policy says, before anyone runs it."""

from __future__ import annotations

import http.client
import sys
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode

from modelsplit_policy import egress
from modelsplit_policy.capabilities import ModelFacts
from modelsplit_policy.config.problems import PolicyError, Problem
from modelsplit_policy.experiment_warnings import warnings
from modelsplit_policy.failures import ErrorCode, Failure
from modelsplit_policy.host_rules import address
from modelsplit_policy.model_names import canonical
from modelsplit_policy.roles import Roles
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.admin.policy import dry_run, refusal_fields, route_fields
from modelsplit_proxy.cli import admin_client, cloud_check
from modelsplit_proxy.cli.command import JSON, Argument, Command, settings_of
from modelsplit_proxy.cli.output import ExitCode, show, show_json, talk
from modelsplit_proxy.config import policy_file, prices
from modelsplit_proxy.config.settings import (
    Address,
    SettingError,
    other_than_usual,
    read_settings,
    unused_upstream,
)
from modelsplit_proxy.protocol import budget_text
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.watch import installed_models, model_list

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.loaded_models import Listed
    from modelsplit_policy.roles import Route
    from modelsplit_proxy.cli.cloud_check import Trouble

_ONLINE_TIMEOUT_S = 5.0


class RouteAsked(NamedTuple):
    """A call that a client might send. ``key`` picks an arm of an experiment.

    ``admin``: the proxy that is asked, if it runs; None: none is. ``find``: the policy file that
    holds else, None for the shipped one.
    """

    model: str
    role: str
    key: str
    admin: Address | None
    find: Callable[[], Path | None]


def config(
    path: Path | None,
    environ: Mapping[str, str],
    upstream: Address | None,
    *,
    as_json: bool,
    named: Address | None = None,
) -> int:
    """Check one file (None: the one ``serve`` would use). ``named``: the upstream that is set.

    With ``upstream``, also against what is installed there: a role that nothing there can
    serve, and an Ollama that does not tell, make it no good.
    """
    try:
        loaded = policy_file.load(policy_file.find_policy(path, environ))
    except PolicyError as error:
        if as_json:
            show_errors(error)
        else:
            sys.stderr.write(f"{error}\n")
        return ExitCode.FAILED
    hosts = {name: row.url for name, row in loaded.policy.hosts.items()}
    unused = None if named is None else unused_upstream(named, hosts)
    sentences = [unused] if unused else []
    sentences += [*prices.read(loaded.policy, SystemClock().wall()).warnings]
    sentences += (*warnings(loaded.policy), *egress.warnings(loaded.policy))
    problems: list[Problem] = []
    clouds: list[Trouble] = []
    if upstream is not None:
        online = _Online(loaded.policy, upstream)
        problems, sentences = [*online.problems], [*sentences, *online.warnings]
        clouds = [*cloud_check.troubles(loaded.policy.cloud, environ, loaded.source)]
    else:
        missing = cloud_check.without_key(loaded.policy.cloud, environ)
        sentences += [f"{trouble.cause}, here; next: {trouble.step}" for trouble in missing]
    is_good = not problems and not clouds
    value = {
        "ok": is_good,
        "source": loaded.source,
        "digest": loaded.digest,
        "problems": [*_as_data(problems), *map(_cloud_as_data, clouds)],
        "warnings": sentences,
    }
    lines = [f"{loaded.source}: ok ({loaded.short_digest})"]
    lines += [f"problem: {problem.message}" for problem in problems]
    for trouble in clouds:
        lines += [f"problem: {trouble.cause}", f"   mend  {trouble.step}"]
    show(value, [*lines, *(f"warning: {warning}" for warning in sentences)], as_json=as_json)
    return ExitCode.OK if is_good else ExitCode.FAILED


def route(asked: RouteAsked, *, as_json: bool) -> int:
    """Show the decision for one model name and role header, and by which policy it is."""
    fields, whose = _of_file(asked) if asked.admin is None else _of_proxy(asked, asked.admin)
    if "error" in fields:
        if as_json:
            show_json({"error": fields["error"], "error_code": fields["error_code"]})
        else:
            talk(f"{fields['error_code']}: {fields['error']}")
        return ExitCode.FAILED
    told_by = asked.admin if fields["running"] else None
    with nullcontext() if told_by is None or as_json else admin_client.known_fields(told_by):
        lines = [] if as_json else [*_route_lines(fields, whose)]
    show(fields, lines, as_json=as_json)
    if refused := fields.get("refused"):
        talk(f"refused, {refused['status']} {refused['error_code']}: {refused['error']}")
        return ExitCode.FAILED
    if fields.get("not_found"):
        talk(f"{ErrorCode.MODEL_NOT_FOUND}: {fields['not_found']}")
        return ExitCode.FAILED
    if fields["needs_approval"] and not fields["running"]:
        talk("it needs an approval in force; see: modelsplit budget show")
    return ExitCode.OK


def _of_proxy(asked: RouteAsked, admin: Address) -> tuple[dict[str, Any], str]:
    """What the running proxy says, by its own policy; where none runs, what a file says.

    Beside it, in words: whose policy that is. PolicyError.
    """
    query = urlencode({"model": asked.model, "role": asked.role, "key": asked.key})
    try:
        _, fields = admin_client.get(admin, f"/route?{query}")
    except admin_client.NotRunningError as error:
        talk(f"{error}; so this is told of the policy that a start here would use")
        return _of_file(asked)
    return fields | {"running": True}, f"of the proxy at http://{admin}"


def _of_file(asked: RouteAsked) -> tuple[dict[str, Any], str]:
    loaded = policy_file.load(asked.find())
    decided = Roles(loaded.policy).route(dry_run(asked.model, asked.role, asked.key))
    if isinstance(decided, Failure):
        return {"error": decided.message, "error_code": decided.code, "running": False}, ""
    fields = route_fields(decided, loaded) | {"running": False}
    refused = _refused(decided, loaded.policy)
    fields["refused"] = None if refused is None else refusal_fields(refused)
    return fields, "no running proxy was asked"


def _refused(decided: Route, policy: Policy) -> Failure | None:
    """Why a policy alone lets the call not leave, whatever is approved; None: it would."""
    if decided.provider is not Provider.CLOUD:
        return None
    role, model = decided.role, decided.candidates[0].model
    refused = egress.refusal_of_policy(policy, role, model)
    if refused is not None:
        return refused
    priced = prices.read(policy, SystemClock().wall()).prices.of(model, decided.provider)
    return budget_text.price_unknown(canonical(model)) if priced is None else None


def _route_lines(fields: dict[str, Any], whose: str) -> Iterator[str]:
    why = {
        "header": "the X-LLM-Role header says so",
        "alias": f'"{fields["requested_model"]}" is an alias of this role',
        "claim": f'the role claims "{fields["requested_model"]}"',
        "default": "nothing names another role",
        "experiment": f"experiment {fields.get('experiment')}, arm {fields.get('variant')}",
    }
    reason = fields["route_reason"]
    policy = fields["policy"]
    yield f"policy    {policy['source']} ({policy['digest'][:12]}), {whose}"
    yield f"role      {fields['llm_role']}  ({why.get(reason, reason)})"
    for number, candidate in enumerate(fields["candidates"], 1):
        timeout = candidate["timeout_s"]
        bound = "no timeout" if timeout is None else f"timeout {timeout:g} s"
        absent = ", not installed" if candidate.get("installed") is False else ""
        yield f"attempt {number} {candidate['model']}  ({bound}{absent})"
    yield from _arm_lines(fields)
    seats = fields["max_concurrent"]
    shared = "by budget alone" if fields["llm_role"] == Role.CLOUD else "the global cap"
    yield f"seats     {shared if seats is None else seats}"
    yield f"wait      at most {fields['max_wait_ms'] / 1000:g} s"


def _arm_lines(fields: dict[str, Any]) -> Iterator[str]:
    """What attempt 1 may be instead, while nobody has said whose call it is."""
    if "experiment" not in fields or fields["variant"] is not None:
        return
    yield f"but       experiment {fields['experiment']} deals attempt 1, by {fields['sticky']}:"
    for arm in fields["arms"]:
        yield f"          {arm['name']} {arm['share']:.1%} {arm['model']}"


def show_errors(error: PolicyError) -> None:
    """Everything that is wrong with a file, as data."""
    show_json({"ok": False, "problems": _as_data(error.problems)})


def _cloud_as_data(trouble: Trouble) -> dict[str, str]:
    return {"path": trouble.at, "message": trouble.cause, "step": trouble.step}


def _as_data(problems: Iterable[Problem]) -> list[dict[str, str]]:
    return [{"path": problem.path, "message": problem.message} for problem in problems]


class _Online:
    """What the policy names against what Ollama has.

    ``problems``: a role that cannot be served, or why nothing is known. ``warnings``: the rest.
    """

    def __init__(self, policy: Policy, upstream: Address) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self._unknown: list[Problem] = []
        hosts = [Address(*address(row.url)) for row in policy.hosts.values()] or [upstream]
        found: dict[str, Listed] = {}
        facts: dict[str, ModelFacts] = {}
        answered = [self._ask(policy, host, found, facts) for host in hosts]
        if any(answered):
            self._compare(policy, hosts[0], found, facts)
            # One of several that is away is no fault of the policy's.
            self.warnings += [problem.message for problem in self._unknown]
        else:
            self.problems += self._unknown

    def _ask(
        self,
        policy: Policy,
        upstream: Address,
        found: dict[str, Listed],
        facts: dict[str, ModelFacts],
    ) -> bool:
        """Add what one Ollama has; whether it says."""
        connection = http.client.HTTPConnection(
            upstream.host, upstream.port, timeout=_ONLINE_TIMEOUT_S
        )
        try:
            connection.request("GET", model_list.LIST)
            installed = model_list.listed(connection.getresponse().read())
            if installed is not None:
                known = dict(_facts(policy, installed, connection))
                found |= installed
                facts |= known
                return True
            why = f"answered {model_list.LIST} with something else"
        except (OSError, http.client.HTTPException) as error:
            why = f"cannot be asked: {admin_client.why(error)}"
        finally:
            connection.close()
        text = f"Ollama at http://{upstream} {why}; so what is installed is not known"
        self._unknown.append(Problem("$", text))
        return False

    def _compare(
        self,
        policy: Policy,
        upstream: Address,
        installed: Mapping[str, Listed],
        facts: Mapping[str, ModelFacts],
    ) -> None:
        for role, row in policy.roles.items():
            models = [canonical(model) for model in (row.primary, row.fallback) if model]
            if row.provider is Provider.LOCAL and models and not installed.keys() & models:
                text = f"{role} cannot be served: none of its models is installed"
                self.problems.append(Problem(f"$.roles.{role}", text))
        self.warnings += installed_models.warnings(
            policy, frozenset(installed), other_than_usual(str(upstream))
        )
        self.warnings += installed_models.gaps(policy, facts)
        self.warnings += installed_models.cloud_gaps(policy, installed)
        known = prices.read(policy, SystemClock().wall()).prices
        self.warnings += installed_models.unpriced_here(known, installed)


def _facts(
    policy: Policy, found: Mapping[str, Listed], connection: http.client.HTTPConnection
) -> Iterator[tuple[str, ModelFacts]]:
    """What is known of each installed model that the policy names, by canonical name."""
    for name in installed_models.named(policy).keys() & found.keys():
        can = found[name].capabilities
        if can is None:
            can = _shown(found[name].name, connection)
        yield name, ModelFacts(installed=True, capabilities=can)


def _shown(model: str, connection: http.client.HTTPConnection) -> frozenset[str] | None:
    try:
        connection.request("POST", model_list.DETAILS, model_list.question(model))
        return installed_models.shown(connection.getresponse().read())
    except (OSError, http.client.HTTPException):
        return None  # what is not known is not warned of


def _check_config(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    named = None
    # Of settings only the upstream is asked about, and only ``--online`` needs it.
    with nullcontext() if args.online else suppress(SettingError):
        named = settings_of(args, environ).upstream
    upstream = named if args.online else None
    return config(args.file, environ, upstream, as_json=args.json, named=named)


def _route(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if not args.model.strip():
        raise SettingError("MODEL is empty; give the name that a client would send")
    if args.policy is not None and args.admin is not None:
        raise SettingError("--policy names a file, --admin a running proxy: give one of them")
    admin = read_settings({"admin": args.admin}, environ).admin if args.policy is None else None
    asked = RouteAsked(
        *(args.model, args.role or "", args.key or ""),
        *(admin, partial(policy_file.find_policy, args.policy, environ)),
    )
    return route(asked, as_json=args.json)


_DEFAULT_FILE: Final = "default: the file serve would use"
CHECK_CONFIG: Final = Command(
    "check-config",
    "check a policy file; every error at once",
    "Check a policy file. Exit 0: good; 1: not, or, with --online, a role has no model that is "
    "installed, Ollama does not answer, or a cloud of the policy does not, takes no key or knows a "
    "model not; 2: wrong usage.",
    _check_config,
    (
        Argument("file", nargs="?", type=Path, metavar="policy", help=_DEFAULT_FILE),
        Argument(
            "--online",
            action="store_true",
            help="also ask Ollama and the clouds",
        ),
        JSON,
    ),
    settings=("upstream",),
    example="example: modelsplit check-config ./model-policy.json --online",
)
ROUTE: Final = Command(
    "route",
    "which role and model a call would get, and why",
    "Dry run: which role and model a call would get, and why. "
    "Exit 0: it would be asked; 1: it would be refused, or, as the running proxy knows, none of "
    "its models is installed.",
    _route,
    (
        Argument("model", metavar="MODEL", help="the model name a client would send"),
        Argument("--role", help="the X-LLM-Role header a client would send"),
        Argument("--key", help="the job, client or request by which an experiment picks the arm"),
        Argument(
            "--policy",
            type=Path,
            metavar="FILE",
            help="go by this file (default: as the running proxy does, else as serve would)",
        ),
        JSON,
    ),
    settings=("admin",),
    example="example: modelsplit route planner",
)
