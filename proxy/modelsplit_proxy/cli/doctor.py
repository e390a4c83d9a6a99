"""``modelsplit doctor``: one screen of what is wrong with this set-up, and what mends it."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modelsplit_policy.config.problems import PolicyError
from modelsplit_proxy.cli import (
    doctor_bundle,
    doctor_cloud,
    doctor_hosts,
    doctor_machine,
    doctor_network,
    doctor_running,
    doctor_upstream,
    status,
)
from modelsplit_proxy.cli.command import JSON, Argument, Command, flags_of, settings_of
from modelsplit_proxy.cli.doctor_findings import (
    Finding,
    Look,
    Unseen,
    get,
    listens,
    output_of,
)
from modelsplit_proxy.cli.output import ExitCode, show, talk
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.config.settings import DEFAULT, where_said
from modelsplit_proxy.runtime.clock import SystemClock

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from modelsplit_policy.config.model import Policy
    from modelsplit_proxy.config.settings import Said, Settings


_WIDTH: Final = 80
_OLLAMA: Final = "Ollama does not answer"
_RUNNING: Final = "modelsplit does not answer"
_POLICY: Final = "the policy cannot be read"
_SERVICE: Final = "service"


class Check(NamedTuple):
    """One subject. ``needs``: what must be there for it, each in words that say that it is not."""

    name: str
    look: Callable[[Look], Iterator[Finding | Unseen]]
    needs: tuple[str, ...] = ()


# What is looked at, in the order in which it is told.
CHECKS: Final = (
    Check("SQLite", doctor_machine.sqlite),
    Check("policy", doctor_machine.policy),
    Check("Ollama", doctor_upstream.presence),
    Check("fleet", doctor_hosts.hosts, (_POLICY,)),
    Check("loop", doctor_upstream.address),
    Check("ports", doctor_network.ports),
    Check("models", doctor_upstream.models, (_OLLAMA, _POLICY)),
    Check("memory", doctor_upstream.memory, (_OLLAMA,)),
    Check("parallel", doctor_upstream.parallel, (_OLLAMA, _POLICY)),
    Check("keep-alive", doctor_upstream.keep_alive, (_OLLAMA,)),
    Check("loads", doctor_running.loads, (_RUNNING,)),
    Check("state", doctor_machine.state),
    Check("state file", doctor_machine.schema),
    Check("clock", doctor_machine.clock),
    Check("hosts", doctor_running.denied, (_RUNNING,)),
    Check("direct", doctor_network.direct),
    Check("filter", doctor_network.filters),
    Check("cloud", doctor_cloud.clouds, (_POLICY,)),
    Check("certificates", doctor_network.certificates),
    Check("unit", doctor_running.unit),
    Check("shared", doctor_running.shared),
    Check(_SERVICE, doctor_running.verdict, (_RUNNING,)),
)
# What the proxy's own verdict says of what a check finds itself, with the command that mends it.
_SAID_OF: Final = MappingProxyType(
    {
        "Ollama": ("Ollama at ", "what listens at "),
        "models": (" is not installed", " is installed"),
        "fleet": ("no host takes calls", "host "),
        "state": ("the state file: ",),
        "cloud": (" has no key, ",),
    }
)


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. ``about``: where. ``unseen``: what ought to have been seen.

    ``fine``: what was looked at and is well. ``skipped``: what was not, by why.
    """

    about: Mapping[str, Any]
    findings: tuple[Finding, ...]
    unseen: tuple[Unseen, ...]
    fine: tuple[str, ...]
    skipped: Mapping[str, list[str]]

    @property
    def code(self) -> ExitCode:
        if self.findings:
            return ExitCode.FAILED
        return ExitCode.CANNOT_LOOK if self.unseen or self.skipped else ExitCode.OK

    def fields(self) -> dict[str, Any]:
        return {
            **self.about,
            "findings": [finding._asdict() for finding in self.findings],
            "unseen": [unseen._asdict() for unseen in self.unseen],
            "fine": list(self.fine),
            "skipped": dict(self.skipped),
        }

    def lines(self) -> Iterator[str]:
        running = "runs" if self.about["running"] else "does not answer"
        yield (
            f"modelsplit {self.about['version']} {running}; Ollama "
            f"{self.about['ollama'] or 'unknown'} at {self.about['upstream']}"
        )
        yield f"policy {self.about['policy']}; state {self.about['state']}"
        for check, cause, step in self.findings:
            yield ""
            yield from _wrapped(f"FINDING  {check}: {cause}", " " * 9)
            yield f"   mend  {step}"
        if self.unseen:
            yield ""
        for check, why in self.unseen:
            yield f"UNSEEN   {check}: {why}"
        yield ""
        count = len(self.findings)
        fine = f"{count} finding{'s' * (count != 1)}; fine: {', '.join(self.fine) or 'nothing'}"
        yield from _wrapped(fine, "")
        for why, names in self.skipped.items():
            yield f"not looked at, since {why}: {', '.join(names)}"
        if _RUNNING in self.skipped and all(row.check != "unit" for row in self.findings):
            yield f"next     {self.about['start']}"


def _wrapped(text: str, indent: str) -> list[str]:
    """Lines of a terminal's usual width; paths and URLs stay whole."""
    wrapper = textwrap.TextWrapper(
        _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.wrap(text)


def examine(look: Look, source: str) -> Report:
    """Make every check. ``source``: where the policy is from."""
    told: list[Finding | Unseen] = []
    fine = []
    skipped: dict[str, list[str]] = {}
    absent = {
        _OLLAMA: not doctor_upstream.is_there(look),
        _RUNNING: look.stats is None,
        _POLICY: look.policy is None,
    }
    for name, check, needs in CHECKS:
        missing = next((need for need in needs if absent[need]), None)
        if missing is not None:
            skipped.setdefault(missing, []).append(name)
            continue
        found = [*check(look)]
        told += found
        if not found:
            fine.append(name)
    body = None if look.version is None else look.version.body
    about = {
        "version": version("modelsplit"),
        "running": look.stats is not None,
        "ollama": body.get("version") if isinstance(body, dict) else None,
        "upstream": f"http://{look.settings.upstream}",
        "policy": source,
        "state": str(look.state),
        "start": look.serve(),
    }
    findings = _once(item for item in told if isinstance(item, Finding))
    unseen = tuple(item for item in told if isinstance(item, Unseen))
    return Report(about, findings, unseen, tuple(fine), skipped)


def _once(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each cause once: what the running proxy says of it too is left out."""
    distinct = tuple(dict.fromkeys(findings))
    checks = {finding.check for finding in distinct} - {_SERVICE}
    words = [word for check in checks for word in _SAID_OF.get(check, ())]

    def is_told(finding: Finding) -> bool:
        return finding.check == _SERVICE and any(word in finding.cause for word in words)

    return tuple(finding for finding in distinct if not is_told(finding))


def look_at(
    settings: Settings, said: Mapping[str, Said], environ: Mapping[str, str]
) -> tuple[Look, str]:
    """Gather what checks look at, and where the policy is from.

    ``said``: where the settings come from; a default gives way to what the running proxy has.
    """
    stats = status.ask(settings.admin)
    running = stats if isinstance(stats, dict) else None
    if running is not None:
        settings = doctor_running.in_force(settings, said, running)
    policy, source = _policy(settings, environ)
    hosts = doctor_hosts.asked(policy)
    upstream = doctor_hosts.first_that_answers(settings, policy, hosts)
    settings = replace(settings, upstream=upstream)
    up = get(settings.upstream, doctor_upstream.VERSION)
    there = up is not None
    return Look(
        settings=settings,
        environ=environ,
        policy=policy,
        stats=running,
        state=_state(settings, said, running),
        version=up,
        installed=doctor_hosts.installed(policy, settings.upstream) if there else None,
        loaded=get(settings.upstream, doctor_upstream.LOADED) if there else None,
        clock=SystemClock(),
        run=output_of,
        hangs=not there and listens(settings.upstream),
        hosts=hosts,
        flags={
            entry.origin: entry.values
            for name, entry in said.items()
            if entry.origin == f"--{name}"
        },
    ), source


def _policy(settings: Settings, environ: Mapping[str, str]) -> tuple[Policy | None, str]:
    try:
        loaded = policy_file.load(policy_file.find_policy(settings.policy, environ))
    except PolicyError:
        return None, "unreadable"
    return loaded.policy, f"{loaded.source} ({loaded.short_digest})"


def _state(settings: Settings, said: Mapping[str, Said], stats: Mapping[str, Any] | None) -> Path:
    """The state directory that somebody named, the running proxy's, else the default."""
    if said["state"].origin != DEFAULT:
        return settings.state
    spending = (stats or {}).get("spending")
    told = spending.get("state") if isinstance(spending, dict) else None
    return Path(told) if told else settings.state


def _command(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = settings_of(args, environ)
    look, source = look_at(settings, where_said(flags_of(args), environ), environ)
    report = examine(look, source)
    show(report.fields(), report.lines(), as_json=args.json)
    if args.bundle is not None:
        doctor_bundle.write(args.bundle, look, report.fields(), Path.home(), os.uname().nodename)
        talk(f"{args.bundle} is for a bug report; look into it before you send it")
    return report.code


COMMAND: Final = Command(
    "doctor",
    "what is wrong with this set-up, and the command that mends it",
    "Look at Ollama, the policy, the state, the ports and this machine; tell each finding with its "
    "cause and the command that mends it. It changes nothing. "
    "Exit 0: fine; 1: findings; 2: wrong usage; 3: something could not be looked at.",
    _command,
    (
        Argument("--bundle", type=Path, metavar="FILE", help="also write a redacted .tar.gz"),
        JSON,
    ),
    settings=("listen", "admin", "upstream", "policy", "state", "otlp-endpoint", "allow-host"),
    example="examples:\n  modelsplit doctor\n  sudo modelsplit doctor --bundle doctor.tar.gz\n",
)
