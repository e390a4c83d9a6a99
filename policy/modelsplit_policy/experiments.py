"""Which arm of an experiment a call gets: by weight, and always the same for the same key.

Weighted rendezvous hashing. Every arm draws one number for a key, and the highest wins:

    u     = (the first 53 bits of SHA-256("EXPERIMENT/ARM/KEY") + 1/2) / 2**53
    score = weight / -ln(u)

so an arm wins with a chance of its weight over the sum of weights, and anyone can work out
who won. Nothing is stored. Because the arms draw independently, a new weight moves only
the share of keys by which that arm grows or shrinks, all of them to or from that arm, and
a new arm takes its share from the others and moves nobody between them: the least that can
move. (Cutting one hash into slices by weight would move keys between arms that nobody
touched.) The experiment's name is part of the hash, so two experiments deal independently.

A key says what kind it is: ``job:ID``, ``client:ADDRESS`` or ``request:ID``.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_policy.config.model import ArmPolicy, ExperimentPolicy

_BITS: Final = 53  # as many as a float holds exactly


def sticky_key(test: ExperimentPolicy, *, job: str, client: str, request: str) -> str:
    """What a call keeps its arm by; empty strings are unknown, and so may be the key.

    A call without a job of its own is dealt by itself. Its client would be no substitute:
    one process without job ids would bring all its calls into one arm.
    """
    if test.sticky == "client":
        return f"client:{client}" if client else ""
    if test.sticky == "job" and job:
        return f"job:{job}"
    return f"request:{request}" if request else ""


def arm_of(test: ExperimentPolicy, key: str) -> ArmPolicy:
    """The arm that ``key`` falls to. An arm of weight 0 gets nobody."""
    return max(test.arms, key=lambda arm: _score(test.name, arm, key))


def shares(test: ExperimentPolicy) -> Mapping[str, float]:
    """What part of all keys each arm gets; they add up to 1."""
    total = sum(arm.weight for arm in test.arms)
    return {arm.name: arm.weight / total for arm in test.arms}


def _score(experiment: str, arm: ArmPolicy, key: str) -> float:
    digest = hashlib.sha256(f"{experiment}/{arm.name}/{key}".encode()).digest()
    drawn = int.from_bytes(digest[:8], "big") >> (64 - _BITS)
    return arm.weight / -math.log((drawn + 0.5) / 2**_BITS)
