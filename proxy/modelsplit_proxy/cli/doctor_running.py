"""The running proxy, as ``modelsplit doctor`` sees it: its verdict, and what its records show."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.cli.doctor_findings import Finding, Unseen, get
from modelsplit_proxy.config.settings import DEFAULT, SettingError, read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_proxy.cli.doctor_findings import Look
    from modelsplit_proxy.config.settings import Said, Settings

_DENIED: Final = {"host_denied": "--allow-host", "origin_denied": "--allow-origin"}
# A web page of somebody else's may have sent it.
_IF_YOURS: Final = "only if it is yours, and with the flags of the one that runs"
_UNIT: Final = "modelsplit.service"
_PROPERTIES: Final = (
    *("LoadState", "UnitFileState", "ActiveState", "Result", "ExecMainStatus", "NRestarts"),
)
# A planner's call that waited so long for its model, and how many of them are a pattern.
_LOADED_MS: Final = 1000.0
_LOADS: Final = 3
_LOADS_SHARE: Final = 0.05


def in_force(settings: Settings, said: Mapping[str, Said], stats: Mapping[str, Any]) -> Settings:
    """The settings with the running proxy's upstream and policy file where nobody said others.

    Its unit may say them, which a shell does not see.
    """
    changes: dict[str, Any] = {}
    upstream, policy = stats.get("upstream"), stats.get("policy")
    if said["upstream"].origin == DEFAULT and isinstance(upstream, dict):
        with suppress(SettingError, KeyError):
            changes["upstream"] = read_settings({"upstream": upstream["address"]}, {}).upstream
    if said["policy"].origin == DEFAULT and isinstance(policy, dict):
        path = Path(str(policy.get("source")))
        if path.is_absolute() and path.is_file():
            changes["policy"] = path
    return replace(settings, **changes)


def unit(look: Look) -> Iterator[Finding | Unseen]:
    """Whether systemd has our service and does not keep it running."""
    if look.stats is not None:
        return
    told = look.run(["systemctl", "show", _UNIT, f"--property={','.join(_PROPERTIES)}"])
    parted = (line.partition("=") for line in (told or "").splitlines())
    has = {name: value for name, _, value in parted}
    state = has.get("ActiveState")
    if has.get("LoadState") != "loaded" or state not in {"failed", "activating", "inactive"}:
        return
    if state != "inactive":
        result = f"{has.get('Result')}, status {has.get('ExecMainStatus')}"
        cause = f"{_UNIT} does not come up: {state} ({result}, {has.get('NRestarts')} restarts)"
        yield Finding("unit", cause, f"journalctl -u {_UNIT} -n 30")
    elif has.get("UnitFileState") == "enabled":
        yield Finding(
            "unit", f"{_UNIT} is enabled and not started", f"sudo systemctl start {_UNIT}"
        )


def shared(look: Look) -> Iterator[Finding | Unseen]:
    """Of the shared Redis a running proxy says in its verdict what is wrong; nobody else does."""
    if look.settings.shared and look.stats is None:
        why = "the Redis of --shared was not asked: a running modelsplit asks it, and none answers"
        yield Unseen("shared", why)


def verdict(look: Look) -> Iterator[Finding | Unseen]:
    """What the proxy itself says is wrong; each with its next command."""
    health = (look.stats or {}).get("health")
    if not isinstance(health, dict):
        return
    for cause in health.get("causes", []):
        yield Finding("service", str(cause["text"]), str(cause["next"]))


def denied(look: Look) -> Iterator[Finding | Unseen]:
    """Hosts and origins that were refused in the last day, each once."""
    told = set()
    for call in _calls(look, "outcome=E_FORBIDDEN&since=1d&limit=200"):
        flag = _DENIED.get(str(call.get("reason")))
        cause, _, _ = str(call.get("error") or "").partition("; ")
        if flag is None or cause in told:
            continue
        told.add(cause)
        name = cause.partition('"')[2].partition('"')[0]
        serve = look.serve(f"--take-over {flag} {name}")
        step = f"{serve}   # {_IF_YOURS}"
        yield Finding("hosts", f"refused: {cause}", step)


def loads(look: Look) -> Iterator[Finding | Unseen]:
    """Whether planners wait for their model again and again: something evicts it."""
    calls = _calls(look, f"role={Role.PLANNER}&since=1d&limit=1000")
    answered = [call for call in calls if call.get("load_ms") is not None]
    loaded = [call for call in answered if float(call["load_ms"]) >= _LOADED_MS]
    if len(loaded) >= _LOADS and len(loaded) >= _LOADS_SHARE * len(answered):
        yield Finding(
            "keep-alive",
            f"{len(loaded)} of {len(answered)} PLANNER calls of the last day waited for "
            f"{loaded[0].get('llm_model')} to be loaded: it is evicted in between",
            "sudo systemctl edit ollama   # [Service] Environment=OLLAMA_KEEP_ALIVE=24h",
        )


def _calls(look: Look, query: str) -> list[Mapping[str, Any]]:
    if look.stats is None:
        return []
    answer = get(look.settings.admin, f"/requests?{query}")
    rows = None if answer is None else answer.body
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
