"""Which attempt a call makes next, and what its client is told when there is none.

A call makes at most as many attempts as it has candidates: one or two. Each ends with the
client answered, and then the call is over, or with nothing shown to the client. Of the
latter, ``Tried`` says what this module needs to know, and ``next_step`` decides what
follows:

- A second attempt follows where the failure is one another model may be spared
  (``fallback``), where that helps a call that only loads (``loading``), and where the other
  model is not known to be of no use: not installed, or without what the request needs
  (``capabilities``).
- Where there are several hosts, and one of them failed a call that it had been sent, the second
  attempt asks another host for the same model.
- After an answer that did not fit its schema it follows at once: ahead of its role's line,
  while the first attempt still holds its seat, so that nobody comes between.
- The wait in line is capped for the whole call, not for each attempt.
- A second attempt that was not sent (no seat, no budget, an open breaker) explains nothing:
  the call is told, and remembered, by the attempt before it. So it is where the second model
  turned the request away: it lacks what the request needs, is not installed, or is nobody's
  to use. That is about a model that the client did not ask for, and would tell it never to
  try again.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy import fallback, loading
from modelsplit_policy.failures import BUDGET, ErrorCode, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modelsplit_policy.capabilities import Unable
    from modelsplit_policy.failures import Failure
    from modelsplit_policy.roles import Candidate, Route
    from modelsplit_policy.vocabulary import Loading


class Check(StrEnum):
    """Who may say no to a call."""

    DRAIN = "drain"
    ROLE = "role"
    CLIENT_SEATS = "client seats"
    CLIENT_RATE = "client rate"
    BREAKER = "breaker"
    BUDGET = "budget"
    SEAT = "seat"


# In the order in which they are asked; the first no is told. Once for the call:
BEFORE_ANY_ATTEMPT: Final = (Check.DRAIN, Check.ROLE, Check.CLIENT_SEATS, Check.CLIENT_RATE)
# Of each attempt, where a no costs nothing and nobody waits in vain:
BEFORE_A_SEAT: Final = (Check.BREAKER, Check.BUDGET, Check.SEAT)
# Of each attempt that has its seat, for it may have waited: the budget first, because what
# is charged and then not sent is given back, and a breaker's trial is not to be wasted.
BEFORE_SENDING: Final = (Check.BUDGET, Check.BREAKER)


# Of a second attempt: it was not sent, or it was turned away by a model nobody had asked for.
_SAY_NOTHING: Final = frozenset(
    {
        Reason.BREAKER_OPEN,
        Reason.NOT_INSTALLED,
        Reason.UPSTREAM_REJECTED,
        Reason.NO_PROVIDER,
        Reason.EGRESS_DENIED,
        Reason.UNTRANSLATABLE,
        Reason.PROVIDER_CREDENTIAL,
    }
)


# What a host does that goes away, hangs, is full, or has not the model that it was known to have.
_OF_ITS_HOST: Final = frozenset(
    {
        *(Reason.RESET, Reason.CUT, Reason.TRUNCATED, Reason.NO_ANSWER),
        *(Reason.UPSTREAM_MUTE, Reason.UPSTREAM_BUSY, Reason.NOT_INSTALLED),
    }
)


class Tried(NamedTuple):
    """An attempt that gave the client nothing.

    ``seated``: it had its seat, or needed none. ``waited_s``: seconds it stood in line.
    """

    failure: Failure
    seated: bool
    waited_s: float = 0.0


class Ask(NamedTuple):
    """Make this attempt. ``waited_s``: how long the call has stood in line before.

    ``front``: it stands first in its line, and the attempt before it keeps its seat until
    it does. ``elsewhere``: of another host than the attempt before it.
    """

    candidate: Candidate
    waited_s: float = 0.0
    front: bool = False
    elsewhere: bool = False


class Tell(NamedTuple):
    """The call ends unanswered, told by this attempt (0: the first).

    An attempt after that one explains nothing (``explains``). ``unable``: why no other was
    made, where its model is known to be of no use.
    """

    attempt: int
    unable: Unable | None = None


def worth_asking(
    route: Route,
    *,
    prefers_resident: bool,
    loaded: Callable[[str], bool | None],
    has_room: Callable[[str], bool],
    unable: Callable[[Candidate], Unable | None],
) -> tuple[Candidate, ...]:
    """The candidates, without a primary whose cold start the policy wants avoided.

    ``prefers_resident``: the role does. ``loaded``: whether a model is, None if nobody
    knows; ``has_room``: whether the budgets of calls would let one to a model through;
    ``unable``: why a model cannot serve the request, None if it may. An experiment's arm is
    asked all the same: else both arms would measure the fallback.
    """
    candidates = route.candidates
    if not prefers_resident or route.arm is not None or len(candidates) < 2:
        return candidates
    primary, second = candidates
    if loaded(primary.model) is not False or loaded(second.model) is not True:
        return candidates
    if unable(second) is not None:
        return candidates
    return (second,) if has_room(second.model) else candidates


def first_step(candidates: Sequence[Candidate]) -> Ask:
    """What a call with these candidates begins with."""
    return Ask(candidates[0])


def _nowhere_else() -> bool:
    return False


def _nobody_knows(candidate: Candidate) -> Unable | None:
    del candidate
    return None


def next_step(
    candidates: Sequence[Candidate],
    loads: Loading | None,
    tried: Sequence[Tried],
    unable: Callable[[Candidate], Unable | None] = _nobody_knows,
    has_other_host: Callable[[], bool] = _nowhere_else,
) -> Ask | Tell:
    """What follows the attempts made so far, of which there is at least one.

    ``loads``: what the call does to its model if it asks it nothing. ``unable``: why a model
    is known to be of no use to the call, None if it may be; asked of a second model alone.
    ``has_other_host``: whether another host may be asked for the same model now; asked where the
    first attempt failed of its host.
    """
    made, last = len(tried), tried[-1]
    if made > 1 and not explains(last):
        return Tell(made - 2)
    if made == 1 and of_its_host(last.failure) and has_other_host():
        return Ask(candidates[0], last.waited_s, elsewhere=True)
    if made == len(candidates) or not may_follow(last.failure, loads):
        return Tell(made - 1)
    useless = unable(candidates[made])
    if useless is not None:
        return Tell(made - 1, useless)
    waited_s = sum(attempt.waited_s for attempt in tried)
    return Ask(candidates[made], waited_s, retries_at_once(last.failure))


def explains(second: Tried) -> bool:
    """Whether a call that failed twice is explained by its second failure, not by its first."""
    if not second.seated or second.failure.code in BUDGET:
        return False
    return second.failure.reason not in _SAY_NOTHING


def of_its_host(failure: Failure) -> bool:
    """Whether a call that was sent failed of the host, so that another may serve it."""
    return failure.reason in _OF_ITS_HOST


def may_follow(failure: Failure, loads: Loading | None) -> bool:
    """Whether another attempt may follow one that failed so."""
    return fallback.is_cause(failure) and loading.may_fall_back(loads, failure)


def retries_at_once(failure: Failure) -> bool:
    """An answer that did not fit its schema: its attempt keeps its seat for the next one."""
    return failure.code is ErrorCode.SCHEMA_INVALID and fallback.is_cause(failure)


def wait_left_s(own_s: float, asked_s: float | None, waited_s: float) -> float:
    """How long an attempt may stand in line.

    ``own_s``: what its role allows a call; ``asked_s``: what its client does, None: no less;
    ``waited_s``: what attempts before it have used up.
    """
    most_s = own_s if asked_s is None else min(own_s, asked_s)
    return most_s - waited_s if waited_s < most_s else 0.0
