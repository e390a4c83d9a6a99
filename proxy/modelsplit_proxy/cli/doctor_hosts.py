"""Several hosts, as ``modelsplit doctor`` sees them: each there, each an Ollama, none drained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_policy.host_rules import address
from modelsplit_proxy.cli.doctor_findings import Answer, Finding, Unseen, get
from modelsplit_proxy.cli.doctor_upstream import LIST, VERSION
from modelsplit_proxy.config.settings import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelsplit_policy.config.model import Policy
    from modelsplit_proxy.cli.doctor_findings import Look
    from modelsplit_proxy.config.settings import Settings

_OURS = "modelsplit"


def places(policy: Policy | None) -> dict[str, Address]:
    """Where each host of the policy listens, by its name; empty: there is the one upstream."""
    if policy is None:
        return {}
    return {name: Address(*address(row.url)) for name, row in policy.hosts.items()}


def asked(policy: Policy | None) -> dict[str, Answer | None]:
    """What each host says of its version; None: it does not answer."""
    return {name: get(at, VERSION) for name, at in places(policy).items()}


def first_that_answers(
    settings: Settings, policy: Policy | None, versions: dict[str, Answer | None]
) -> Address:
    """The Ollama that is looked at for all: of several hosts the first that is there."""
    at = places(policy)
    there = [at[name] for name, version in versions.items() if version is not None]
    return (there or [*at.values()] or [settings.upstream])[0]


def installed(policy: Policy | None, upstream: Address) -> Answer | None:
    """What is installed on any host, as one of them would list it; None: none says."""
    told = [get(at, LIST) for at in [*places(policy).values()] or [upstream]]
    answers = [answer for answer in told if answer is not None]
    rows = [
        row
        for answer in answers
        if isinstance(answer.body, dict) and isinstance(answer.body.get("models"), list)
        for row in answer.body["models"]
    ]
    if len(answers) < 2:
        return answers[0] if answers else None
    return Answer(200, "", {"models": rows})


def hosts(look: Look) -> Iterator[Finding | Unseen]:
    """Hosts of the policy that nobody answers for, that are no Ollama, or that are drained."""
    rows = [row for row in (look.stats or {}).get("hosts") or () if isinstance(row, dict)]
    drained = {str(row.get("name")) for row in rows if row.get("drained")}
    takes = {name for name, version in look.hosts.items() if version is not None} - drained
    left = "its calls go to the others" if takes else "and no other host takes calls"
    for name, at in places(look.policy).items():
        version = look.hosts.get(name)
        if version is None:
            cause = f"host {name}: nothing answers at http://{at}; {left}"
            yield Finding("fleet", cause, f"curl http://{at}{VERSION}")
        elif _OURS in version.via:
            cause = f"host {name}: http://{at} is a modelsplit, not Ollama"
            yield Finding("fleet", cause, "modelsplit check-config")
    for name in sorted(drained):
        cause = f"host {name} is drained: it takes no new calls"
        yield Finding("fleet", cause, f"modelsplit host undrain {name}")
