"""Ollama, as ``modelsplit doctor`` sees it: there, new enough, no loop, and fit for the policy."""

from __future__ import annotations

import re
import shlex
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.approvals import Approvals
from modelsplit_policy.budget_clock import resume
from modelsplit_policy.hints import ollama_steps, pulling
from modelsplit_policy.model_names import canonical, canonical_stored
from modelsplit_policy.vocabulary import Provider, Role
from modelsplit_proxy.cli import doctor_sockets, state_access
from modelsplit_proxy.cli.doctor_findings import Finding, Unseen, is_here, rows_of
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.config.settings import other_than_usual
from modelsplit_proxy.limits import budget_store
from modelsplit_proxy.runtime.clock import boot_id, machine_clocks
from modelsplit_proxy.storage.state_file import StoreError
from modelsplit_proxy.watch import installed_models, model_list

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_policy.config.model import Policy
    from modelsplit_proxy.cli.doctor_findings import Answer, Look

_OURS: Final = "modelsplit"
# The first that tells what its models can do (`capabilities` in /api/show); what the policy
# asks of a fallback hangs on it.
OLDEST: Final = (0, 6, 4)
VERSION: Final = "/api/version"
LIST: Final = model_list.LIST
LOADED: Final = "/api/ps"
_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_CAT_UNIT: Final = ("systemctl", "cat", "ollama.service")
_EDIT: Final = "sudo systemctl edit ollama   # [Service] Environment="
_INSTALL: Final = "curl -fsSL https://ollama.com/install.sh | sh"
_NAME: Final = "roles.CLOUD.primary: a model that is served; then restart"
_MIB: Final = 2**20
_GB: Final = 1e9
# What a model takes in memory beside its file: context and buffers.
_BESIDE_WEIGHTS: Final = 1.2
_SHORT_S: Final = 300.0
_DURATION: Final = re.compile(r"(-?\d+(?:\.\d+)?)(s|m|h)?")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}


def presence(look: Look) -> Iterator[Finding | Unseen]:
    """Whether it is there, is itself, and is not too old."""
    upstream = look.settings.upstream
    is_unit = not other_than_usual(str(upstream)) and look.run(_CAT_UNIT) is not None
    steps = ollama_steps(str(upstream), is_here=is_here(upstream), has_unit=is_unit)
    if look.hangs:
        cause = f"Ollama at http://{upstream} takes connections and does not answer: it hangs"
        yield Finding("Ollama", cause, f"sudo {steps.restart}" if is_unit else steps.restart)
        return
    if look.version is None:
        start = "sudo systemctl start ollama" if is_unit else steps.start
        yield Finding("Ollama", f"nothing answers at http://{upstream}", start)
        return
    if _OURS in look.version.via:
        yield Finding(
            "loop",
            f"--upstream http://{upstream} is a modelsplit, not Ollama: calls would go round",
            look.serve(instead={"--upstream": _elsewhere(look)}),
        )
        return
    match = _version(look.version)
    if match is None:
        yield Finding(
            "Ollama",
            f"what answers at http://{upstream} does not say that it is Ollama{_whose(look)}",
            f"curl http://{upstream}/api/version",
        )
    elif (0, 0, 0) < tuple(map(int, match.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        yield Finding("Ollama", f"Ollama {match.string} is older than {oldest}", _INSTALL)


def is_there(look: Look) -> bool:
    """Whether what answers can be asked as Ollama."""
    version = look.version
    return version is not None and _OURS not in version.via and _version(version) is not None


def _version(answer: Answer) -> re.Match[str] | None:
    """Its numbers; None: what answers is no Ollama."""
    body = answer.body
    return _VERSION.match(str(body.get("version", "")) if isinstance(body, dict) else "")


def _whose(look: Look) -> str:
    """Who listens on its port, to go behind a sentence; empty: not here, or nobody we may see."""
    upstream, rows = look.settings.upstream, doctor_sockets.sockets(look.proc)
    row = doctor_sockets.listener(rows or (), upstream) if is_here(upstream) else None
    owner = None if row is None else doctor_sockets.owners(look.proc, {row.inode}).get(row.inode)
    return f": {owner} listens there" if owner is not None else ""


def _elsewhere(look: Look) -> str:
    """Where Ollama might be instead."""
    taken = {look.settings.listen.port, look.settings.upstream.port}
    return f"http://127.0.0.1:{next(port for port in (11434, 11433, 11437) if port not in taken)}"


def address(look: Look) -> Iterator[Finding | Unseen]:
    """Whether Ollama itself was told to listen where we do."""
    environ = ollama_environ(look)
    host = (environ or {}).get("OLLAMA_HOST", "")
    port = look.settings.listen.port
    if environ is None or not host.rstrip("/").endswith(f":{port}"):
        return
    yield Finding(
        "loop",
        f"OLLAMA_HOST={host} tells Ollama to listen on our own port; the port is for clients, and "
        "Ollama needs another",
        f"{_EDIT}OLLAMA_HOST={look.settings.upstream}",
    )


def _lacking(look: Look, policy: Policy, installed: frozenset[str]) -> Iterator[Finding | Unseen]:
    """Models that are not ``installed``; where a host does not answer, it may have them."""
    lacking = {n: m for n, m in installed_models.named(policy).items() if n not in installed}
    silent = [name for name, version in look.hosts.items() if version is None]
    if silent and lacking:
        do = "does" if len(silent) == 1 else "do"
        yield Unseen("models", f"{', '.join(silent)} {do} not answer")
        return
    for name, model in lacking.items():
        roles = ", ".join(_roles_of(policy, name))
        pull = pulling([model], other_than_usual(str(look.settings.upstream)))
        yield Finding("models", f"{roles}: {model} is not installed", pull)


def models(look: Look) -> Iterator[Finding | Unseen]:
    """Models that the policy names and Ollama lacks, and aliases that hide one."""
    rows = rows_of(look.installed)
    if look.policy is None:
        return  # a finding of its own
    if rows is None:
        yield Unseen("models", "Ollama does not say what is installed")
        return
    installed = frozenset(canonical_stored(str(row.get("name", ""))) for row in rows)
    yield from _lacking(look, look.policy, installed)
    for role, row in look.policy.roles.items():
        for alias in row.aliases:
            if canonical(alias) in installed:
                yield Finding(
                    "models",
                    f'alias "{alias}" of {role} hides the installed model of that name',
                    f"ollama cp {alias} my-{alias} && ollama rm {alias}",
                )
    # A cloud that nobody has approved is asked by nobody.
    if _approvals(look):
        for text in installed_models.cloud_gaps(look.policy, installed):
            cause, _, _ = text.partition("; ")
            yield Finding("models", cause, _other_cloud(look))


def _other_cloud(look: Look) -> str:
    """How to name another model in the policy in force, or in a first one."""
    path = policy_file.find_policy(look.settings.policy, look.environ)
    if path is not None:
        return f"${{EDITOR:-vi}} {shlex.quote(str(path))}   # {_NAME}"
    step = "modelsplit print-policy --into ."
    if Path(policy_file.FILE_NAME).exists():  # one that nobody serves with yet
        step = f"${{EDITOR:-vi}} {policy_file.FILE_NAME}"
    return f"{step}   # {_NAME} with --policy {policy_file.FILE_NAME}"


def _approvals(look: Look) -> int:
    """Approvals of the cloud in force: as the running proxy counts them, else by the file."""
    if look.stats is not None:
        spending = look.stats.get("spending")
        return int(spending.get("approvals") or 0) if isinstance(spending, dict) else 0
    try:
        with state_access.reading(look.state) as db:
            if db is None:
                return 0
            clocks = machine_clocks(boot_id(look.settings.boot_id))()
            now = resume(budget_store.anchor(db), clocks)
            return len(Approvals(budget_store.changes(db)).in_force(now))
    except StoreError:
        return 0  # which is a finding of its own


def _roles_of(policy: Policy, name: str) -> list[str]:
    return [
        str(role)
        for role, row in policy.roles.items()
        if name in {canonical(model) for model in (row.primary, row.fallback) if model is not None}
    ] or ["an experiment"]


def memory(look: Look) -> Iterator[Finding | Unseen]:
    """Roles whose models cannot be in memory together; models that are not all in video memory."""
    for row in rows_of(look.loaded) or ():
        size, video = _number(row.get("size")), _number(row.get("size_vram"))
        if size and video and video < 0.99 * size:
            yield Finding(
                "memory",
                f"{row.get('name')} is {video / size:.0%} in video memory, the rest computes "
                "on the processor",
                "ollama ps   # then a smaller context, or a smaller model",
            )
    total, kind = memory_bytes(look)
    if look.policy is None or not total or not is_here(look.settings.upstream):
        return
    for names, cause in _crowded(look.policy, _needs(look), total):
        yield Finding(
            "memory",
            f"{cause} of {total / _GB:.1f} GB of {kind}: a call of one has the other unloaded",
            f"modelsplit simulate --advise   # or smaller models for {names}",
        )


def _crowded(policy: Policy, needs: Mapping[str, float], total: float) -> Iterator[tuple[str, str]]:
    first = {
        role: row.primary
        for role, row in policy.roles.items()
        if row.provider is Provider.LOCAL and row.primary and canonical(row.primary) in needs
    }
    for one, other in combinations(first, 2):
        models = {canonical(first[one]), canonical(first[other])}
        sum_ = sum(needs[model] for model in models)
        if len(models) == 2 and sum_ > total:
            text = f"{one} ({first[one]}) and {other} ({first[other]}) need about"
            yield f"{one} and {other}", f"{text} {sum_ / _GB:.1f} GB"


def _needs(look: Look) -> dict[str, float]:
    """Bytes that each installed model takes, by canonical name: measured where it is loaded."""
    needs = {
        canonical_stored(str(row.get("name", ""))): _number(row.get("size")) * _BESIDE_WEIGHTS
        for row in rows_of(look.installed) or ()
    }
    for row in rows_of(look.loaded) or ():
        needs[canonical_stored(str(row.get("name", "")))] = _number(row.get("size"))
    return {name: size for name, size in needs.items() if size}


def memory_bytes(look: Look) -> tuple[float, str]:
    """What models can be loaded into, and its name: all video memory, else the machine's."""
    nvidia = look.run(["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"])
    cards = [float(line) for line in (nvidia or "").split() if line.isdecimal()]
    if cards:
        return sum(cards) * _MIB, "video memory"
    match = re.search(r"^MemTotal:\s+(\d+) kB", _read(look.proc / "meminfo"), re.MULTILINE)
    return (float(match[1]) * 1024 if match else 0.0), "memory"


def parallel(look: Look) -> Iterator[Finding | Unseen]:
    """How many calls and models at once Ollama was told, and shows, against the policy."""
    if look.policy is None:
        return
    environ = ollama_environ(look) or {}
    slots = _whole(environ.get("OLLAMA_NUM_PARALLEL"))
    learned = _learned(look)
    for name, row in look.policy.models.items():
        known = slots or learned.get(canonical(name))
        if row.parallel is not None and known is not None and row.parallel > known:
            yield Finding(
                "parallel",
                f"the policy says that Ollama computes {row.parallel} calls of {name} together, "
                f"it computes {known}",
                f"{_EDIT}OLLAMA_NUM_PARALLEL={row.parallel}",
            )
    most = _whole(environ.get("OLLAMA_MAX_LOADED_MODELS"))
    first = {
        canonical(row.primary)
        for role, row in look.policy.roles.items()
        if row.provider is Provider.LOCAL and row.primary is not None and role is not Role.HEAVY
    }
    if most and most < len(first):
        yield Finding(
            "parallel",
            f"OLLAMA_MAX_LOADED_MODELS={most}, and the roles' first models are {len(first)}: a "
            "call of one has another unloaded",
            f"{_EDIT}OLLAMA_MAX_LOADED_MODELS={len(first)}",
        )


def _learned(look: Look) -> dict[str, int]:
    """Slots of each model as the running proxy has learned them; nothing before it has."""
    told = (look.stats or {}).get("parallelism")
    if not isinstance(told, dict) or told.get("basis") == "start":
        return {}
    slots = told.get("slots")
    return {canonical(name): count for name, count in slots.items()} if slots else {}


def keep_alive(look: Look) -> Iterator[Finding | Unseen]:
    """Whether the planner's model is unloaded while nobody asks."""
    text = (ollama_environ(look) or {}).get("OLLAMA_KEEP_ALIVE", "")
    seconds = _seconds(text)
    if seconds is not None and 0 <= seconds < _SHORT_S:
        yield Finding(
            "keep-alive",
            f"OLLAMA_KEEP_ALIVE={text} unloads the planner's model after {seconds:g} s without a "
            "call; the next one waits for it to load",
            f"{_EDIT}OLLAMA_KEEP_ALIVE=24h",
        )


def ollama_environ(look: Look) -> dict[str, str] | None:
    """What Ollama was started with; None: that cannot be seen."""
    if not is_here(look.settings.upstream):
        return None
    rows = doctor_sockets.sockets(look.proc) or []
    row = doctor_sockets.listener(rows, look.settings.upstream)
    if row is not None:
        owner = doctor_sockets.owners(look.proc, {row.inode}).get(row.inode)
        found = None if owner is None else doctor_sockets.environment(look.proc, owner.pid)
        if found is not None:
            return found
    told = look.run(["systemctl", "show", "ollama.service", "--property=Environment", "--value"])
    if not told:
        return None
    pairs = (word.partition("=") for word in told.split())
    return {name: value for name, _, value in pairs}


def _seconds(text: str) -> float | None:
    match = _DURATION.fullmatch(text.strip())
    return None if match is None else float(match[1]) * _SECONDS[match[2] or "s"]


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
