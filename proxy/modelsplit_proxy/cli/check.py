"""``check-config`` and ``route``: what a policy says, before anyone runs it."""

from __future__ import annotations

import http.client
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.capabilities import ModelFacts
from modelsplit_policy.config.problems import PolicyError
from modelsplit_policy.experiment_warnings import warnings
from modelsplit_policy.failures import Failure
from modelsplit_policy.roles import Roles
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.admin.policy import dry_run, route_fields
from modelsplit_proxy.cli.command import JSON, Argument, Command, settings_of
from modelsplit_proxy.cli.output import ExitCode, show, show_json, talk
from modelsplit_proxy.config import policy_file, prices
from modelsplit_proxy.config.settings import SettingError
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.watch import installed_models, model_list

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.loaded_models import Listed
    from modelsplit_proxy.config.policy_file import LoadedPolicy
    from modelsplit_proxy.config.settings import Address

_ONLINE_TIMEOUT_S = 5.0


def config(
    named: Path | None, environ: Mapping[str, str], upstream: Address | None, *, as_json: bool
) -> int:
    """Check one file (None: the one ``serve`` would use).

    With ``upstream``, also against what is installed there.
    """
    try:
        loaded = policy_file.load(policy_file.find_policy(named, environ))
    except PolicyError as error:
        if as_json:
            show_errors(error)
        else:
            sys.stderr.write(f"{error}\n")
        return ExitCode.FAILED
    sentences = [*prices.read(loaded.policy, SystemClock().wall()).warnings]
    sentences += warnings(loaded.policy)
    if upstream is not None:
        sentences += _online_warnings(loaded.policy, upstream)
    value = {"ok": True, "source": loaded.source, "digest": loaded.digest, "warnings": sentences}
    lines = [f"{loaded.source}: ok ({loaded.short_digest})"]
    show(value, [*lines, *(f"warning: {warning}" for warning in sentences)], as_json=as_json)
    return ExitCode.OK


def route(loaded: LoadedPolicy, model: str, role: str, *, key: str = "", as_json: bool) -> int:
    """Show the decision for one model name and role header; ``key`` picks an arm."""
    decided = Roles(loaded.policy).route(dry_run(model, role, key))
    if isinstance(decided, Failure):
        if as_json:
            show_json({"error": decided.message, "error_code": decided.code})
        else:
            talk(f"{decided.code}: {decided.message}")
        return ExitCode.FAILED
    fields = route_fields(decided)
    row = loaded.policy.roles[decided.role]
    fields |= {"max_concurrent": row.max_concurrent, "max_wait_ms": row.max_wait_ms}
    show(fields, _route_lines(fields), as_json=as_json)
    if fields["needs_approval"]:
        talk("it needs an approval in force; see: modelsplit budget show")
    return ExitCode.OK


def _route_lines(fields: dict[str, Any]) -> Iterator[str]:
    why = {
        "header": "the X-LLM-Role header says so",
        "alias": f'"{fields["requested_model"]}" is an alias of this role',
        "claim": f'the role claims "{fields["requested_model"]}"',
        "default": "nothing names another role",
        "experiment": f"experiment {fields.get('experiment')}, arm {fields.get('variant')}",
    }
    reason = fields["route_reason"]
    yield f"role      {fields['llm_role']}  ({why.get(reason, reason)})"
    for number, candidate in enumerate(fields["candidates"], 1):
        timeout = candidate["timeout_s"]
        bound = "no timeout" if timeout is None else f"timeout {timeout:g} s"
        yield f"attempt {number} {candidate['model']}  ({bound})"
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
    problems = [{"path": p.path, "message": p.message} for p in error.problems]
    show_json({"ok": False, "problems": problems})


def _online_warnings(policy: Policy, upstream: Address) -> Iterator[str]:
    """What the policy names and Ollama lacks, or a sentence why that is unknown."""
    connection = http.client.HTTPConnection(upstream.host, upstream.port, timeout=_ONLINE_TIMEOUT_S)
    facts = {}
    try:
        connection.request("GET", model_list.LIST)
        installed = model_list.listed(connection.getresponse().read())
        if installed is not None:
            facts = dict(_facts(policy, installed, connection))
    except (OSError, http.client.HTTPException) as error:
        yield f"Ollama at http://{upstream} cannot be asked: {error}"
        return
    finally:
        connection.close()
    if installed is None:
        yield f"Ollama at http://{upstream} answered {model_list.LIST} with something else"
    else:
        yield from installed_models.warnings(policy, frozenset(installed))
        yield from installed_models.gaps(policy, facts)
        yield from installed_models.cloud_gaps(policy, installed)


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
        connection.request("POST", installed_models.DETAILS, installed_models.question(model))
        return installed_models.shown(connection.getresponse().read())
    except (OSError, http.client.HTTPException):
        return None  # what is not known is not warned of


def _check_config(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    upstream = settings_of(args, environ).upstream if args.online else None
    return config(args.file, environ, upstream, as_json=args.json)


def _route(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if not args.model.strip():
        raise SettingError("MODEL is empty; give the name that a client would send")
    loaded = policy_file.load(policy_file.find_policy(args.policy, environ))
    return route(loaded, args.model, args.role or "", key=args.key or "", as_json=args.json)


_DEFAULT_FILE: Final = "default: the file serve would use"
CHECK_CONFIG: Final = Command(
    "check-config",
    "check a policy file; every error at once",
    "Check a policy file. Exit 0: good; 1: not; 2: wrong usage.",
    _check_config,
    (
        Argument("file", nargs="?", type=Path, metavar="policy", help=_DEFAULT_FILE),
        Argument("--online", action="store_true", help="also ask Ollama what is installed"),
        JSON,
    ),
    settings=("upstream",),
    example="example: modelsplit check-config ./model-policy.json --online",
)
ROUTE: Final = Command(
    "route",
    "which role and model a call would get, and why",
    "Dry run: which role and model a call would get, and why. "
    "Exit 0: it would be asked; 1: it would be refused.",
    _route,
    (
        Argument("model", metavar="MODEL", help="the model name a client would send"),
        Argument("--role", help="the X-LLM-Role header a client would send"),
        Argument("--key", help="the job, client or request by which an experiment picks the arm"),
        Argument("--policy", type=Path, metavar="FILE", help=_DEFAULT_FILE),
        JSON,
    ),
    example="example: modelsplit route planner",
)
