"""What is replayed: each call as its client wants it, before any policy has seen it.

A demand holds every chance there is in a call, so that two policies meet the same calls:
paired runs differ by what the policies decide and by nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from modelsplit_policy.failures import ErrorCode, Reason

NO_CHANCE: Final = (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Demand:
    """One call. Seconds; ``at``: since the run began.

    ``after``: the number of the call that its client waits for first, and then ``think_s``
    more; None: it comes at ``at``, whatever becomes of the others. ``role``: the ``X-LLM-Role``
    header; empty: the model's name says it. ``max_wait_s`` and ``timeout_s``: how long its client
    wants it to stand in line, and an attempt to take, at most; None: it does not say.
    ``retry_level`` 1: it begins with the fallback. ``schema``: whether its answer has to fit one;
    None: nobody knows, and the shares of its role hold. ``known_tokens``: of its
    prompt, what a runner that is not fresh remembers. ``pace``: how many times as long as usual
    it computes. ``unfit`` and ``failing``: chances, one for each attempt, with which its answer
    does not fit its schema, or the upstream fails it (``Shares``). ``cloud_s``: how long a cloud
    takes for it.
    """

    at: float
    model: str
    output_tokens: int
    prompt_tokens: int = 0
    role: str = ""
    patience_s: float = math.inf
    client: str = ""
    job: str = ""
    stream: bool = False
    no_fallback: bool = False
    max_wait_s: float | None = None
    timeout_s: float | None = None
    retry_level: int = 0
    schema: bool | None = None
    known_tokens: int = 0
    pace: float = 1.0
    unfit: tuple[float, float] = NO_CHANCE
    failing: tuple[float, float] = NO_CHANCE
    after: int | None = None
    think_s: float = 0.0
    cloud_s: float | None = None


class Kind(NamedTuple):
    """One way to fail; ``share``: of those that fail, of this kind and the ones before it."""

    code: ErrorCode
    reason: Reason
    share: float


class Shares(NamedTuple):
    """Shares of attempts, of one role and model, that end so where nothing else ends them.

    ``unfit``: of those whose answer has to fit a schema it does not; of further ``cut`` it was
    cut before it could. ``failing``: the upstream fails; ``kinds``: how, the last with share 1;
    empty: with a status.
    """

    unfit: float = 0.0
    failing: float = 0.0
    cut: float = 0.0
    kinds: tuple[Kind, ...] = ()


class Retries(NamedTuple):
    """How a client's library tries again by itself: so often, and never after a longer advice."""

    most: int = 0
    longest_s: float = 60.0


NO_RETRIES: Final = Retries()
