"""``check-config`` and ``route``: what a policy says, before anyone runs it."""

from __future__ import annotations

import http.client
import sys
from typing import TYPE_CHECKING, Any

import orjson

from modelsplit_policy.config.problems import PolicyError
from modelsplit_policy.experiment_warnings import warnings
from modelsplit_policy.failures import Failure
from modelsplit_policy.roles import Roles
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.admin.admin import dry_run, route_fields
from modelsplit_proxy.config import policy_file, prices
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.watch import installed_models

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from modelsplit_policy.config.model import Policy
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
        report_errors(error, as_json=as_json)
        return 1
    found = [*prices.read(loaded.policy, SystemClock().wall()).warnings]
    found += warnings(loaded.policy)
    if upstream is not None:
        found += _online_warnings(loaded.policy, upstream)
    if as_json:
        _print_json(
            {"ok": True, "source": loaded.source, "digest": loaded.digest, "warnings": found}
        )
    else:
        _print(f"{loaded.source}: ok ({loaded.short_digest})")
        for warning in found:
            _print(f"warning: {warning}")
    return 0


def route(loaded: LoadedPolicy, model: str, role: str, *, key: str = "", as_json: bool) -> int:
    """Show the decision for one model name and role header; ``key`` picks an arm."""
    decided = Roles(loaded.policy).route(dry_run(model, role, key))
    if isinstance(decided, Failure):
        if as_json:
            _print_json({"error": decided.message, "error_code": decided.code})
        else:
            sys.stderr.write(f"modelsplit: {decided.code}: {decided.message}\n")
        return 1
    fields = route_fields(decided)
    row = loaded.policy.roles[decided.role]
    fields |= {"max_concurrent": row.max_concurrent, "max_wait_ms": row.max_wait_ms}
    if as_json:
        _print_json(fields)
    else:
        _print("\n".join(_route_lines(fields)))
    if fields["needs_approval"]:
        sys.stderr.write("modelsplit: it needs an approval in force; see: modelsplit budget show\n")
    return 0


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


def report_errors(error: PolicyError, *, as_json: bool) -> None:
    """Everything that is wrong with a file: talk for people, or data."""
    if not as_json:
        sys.stderr.write(f"{error}\n")
        return
    problems = [{"path": p.path, "message": p.message} for p in error.problems]
    _print_json({"ok": False, "problems": problems})


def _online_warnings(policy: Policy, upstream: Address) -> Iterator[str]:
    """What the policy names and Ollama lacks, or a sentence why that is unknown."""
    connection = http.client.HTTPConnection(upstream.host, upstream.port, timeout=_ONLINE_TIMEOUT_S)
    try:
        connection.request("GET", "/api/tags")
        found = installed_models.names(connection.getresponse().read())
    except (OSError, http.client.HTTPException) as error:
        yield f"Ollama at http://{upstream} cannot be asked: {error}"
        return
    finally:
        connection.close()
    if found is None:
        yield f"Ollama at http://{upstream} answered /api/tags with something else"
    else:
        yield from installed_models.warnings(policy, found)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")
