"""The policy's clouds, as ``modelsplit doctor`` sees them: keys, models, who answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.cli import cloud_check
from modelsplit_proxy.cli.doctor_findings import Finding, Unseen
from modelsplit_proxy.config import policy_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_proxy.cli.doctor_findings import Look

_CHECK: Final = "cloud"


def clouds(look: Look) -> Iterator[Finding | Unseen]:
    """Whether each provider of the policy takes its key and knows its models.

    Asked from here, with the keys that are here: where a running proxy has one that this command
    has not, it is not known whether it is good. Where that has none either, it says so.
    """
    if look.policy is None:
        return
    path = policy_file.find_policy(look.settings.policy, look.environ)
    for trouble in cloud_check.troubles(look.policy.cloud, look.environ, str(path)):
        if trouble.no_key and look.stats is not None and trouble.cause not in _told(look.stats):
            why = f"{trouble.at}: the running proxy has a key, this command has none to ask with"
            yield Unseen(_CHECK, why)
        else:
            yield Finding(_CHECK, trouble.cause, trouble.step)


def _told(stats: Mapping[str, Any]) -> list[str]:
    """What the running proxy says of itself."""
    health = stats.get("health")
    rows = [*health["causes"], *health["notes"]] if isinstance(health, dict) else []
    return [str(row["text"]) for row in rows]
