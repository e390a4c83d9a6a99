"""Which calls a person is asked to review: as many of each purpose, chosen by nothing but chance.

The chance is in the ids: they are ordered by their digests, so that the same calls give the
same sample, and nobody's calls are preferred.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Reviewable(NamedTuple):
    """A call that may be reviewed. ``purpose``, ``job_id`` None: its client named none."""

    request_id: str
    started_us: int
    job_id: str | None
    purpose: str | None
    model: str | None


def sample(calls: Iterable[Reviewable], count: int) -> list[Reviewable]:
    """``count`` of the calls at most: in turn one of each purpose, while there are any."""
    by_purpose: dict[str, list[Reviewable]] = {}
    for call in calls:
        by_purpose.setdefault(call.purpose or "", []).append(call)
    ranked = [
        (rank, purpose, call)
        for purpose, own in by_purpose.items()
        for rank, call in enumerate(sorted(own, key=_by_digest))
    ]
    ranked.sort(key=lambda entry: entry[:2])
    return [call for _, _, call in ranked[:count]]


def _by_digest(call: Reviewable) -> tuple[str, str]:
    return sha256(call.request_id.encode()).hexdigest(), call.request_id
