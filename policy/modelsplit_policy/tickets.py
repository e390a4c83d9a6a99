"""A call's claim to a seat, and how things stood when it asked for one.

``Seats`` and ``Crowd`` explain afterwards why a call waited; nothing is decided with them.
``Seats`` is a few numbers and taken of every call; ``Crowd`` only of calls that found no seat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from modelsplit_policy.parallelism import Flight
    from modelsplit_policy.vocabulary import Host, Role

# How long before the end of its wait a call is started at the latest that only usefulness
# holds back: a sixteenth of the wait, half a second at most. Late, because a seat may still
# come free; not at the last moment, because this timer must win against the one that ends
# the wait.
_DUE_SHARE: Final = 1 / 16
_DUE_MAX_S: Final = 0.5


class Place(StrEnum):
    """Where a ticket stands."""

    NEW = "new"
    WAITING = "waiting"
    SEATED = "seated"
    GONE = "gone"


class Hold(StrEnum):
    """Why a call waits."""

    ROLE_CAP = "role_cap"
    GLOBAL_CAP = "global_cap"
    RESERVED = "reserved"
    MODEL_CAP = "model_cap"
    PARALLELISM = "parallelism"
    TURN = "turn"
    AWAY = "away"
    DRAINED = "drained"
    MUTE = "mute"


class Placed(StrEnum):
    """What decided for a host, of those that had a useful seat free for a call.

    In the order in which they are asked: no other had one; no busy model is pushed out of memory
    there; its tier; it has the model loaded; it has the fewest calls for its weight; it read the
    beginning of the prompt; it stands first in the policy.
    """

    ONLY = "only"
    ROOM = "room"
    TIER = "tier"
    LOADED = "loaded"
    FEWEST = "fewest"
    PROMPT = "prompt"
    FIRST = "first"


@dataclass(slots=True, eq=False)
class Ticket:
    """One call's claim to a seat. Times are seconds of the caller's monotonic clock.

    ``request_id``: the call's, for those who look at the queue. ``position``: its place in
    its role's line when it was refused; 1 is the next.
    ``model``: its canonical name, so that no other spelling passes for another model.
    ``max_wait_s``: how long the call may stand in line; ``max_hold_s``: how much of that
    for usefulness alone. ``front``: it goes before all others of its role. ``sample``: how
    long it keeps its seat says something of the calls of its role. ``held``: what kept it from
    a seat when it was refused; None: it was not. ``host``: where it is seated; None: not yet, or
    on none of ours. ``avoid``: where it failed before, and goes only if there is no other host.
    ``marks``: of its prompt (``prompt_affinity``), where there are several hosts; ``placed``: what
    decided for the one of them.
    """

    role: Role
    model: str
    arrived: float
    client: str = ""
    request_id: str = ""
    max_wait_s: float = math.inf
    max_hold_s: float = math.inf
    front: bool = False
    sample: bool = True
    place: Place = Place.NEW
    seated: float = 0.0
    ahead: int = 0
    position: int | None = None
    urgent: bool = False
    overdue: bool = False
    doubted: bool = False
    held: Hold | None = None
    host: Host | None = None
    avoid: Host | None = None
    marks: tuple[int, ...] = ()
    placed: Placed | None = None
    flight: Flight | None = None

    @property
    def due_in_s(self) -> float:
        """How long it may stand in line before only hard limits hold it back (``due``)."""
        return min(self.max_hold_s, self.last_in_s)

    @property
    def last_in_s(self) -> float:
        """How long it may stand in line until shortly before its wait ends."""
        wait_s = self.max_wait_s
        return wait_s - min(_DUE_MAX_S, wait_s * _DUE_SHARE)


class Seats(NamedTuple):
    """What each limit on one call stood at, the call included if it had its seat.

    A cap that is None is not there. ``useful``: calls at once that were worth running.
    ``health``: empty, or why the Health Guard was not content.
    """

    role: int
    role_cap: int | None
    local: int
    local_cap: int
    model: int
    model_cap: int | None
    useful: int
    health: str


class Crowd(NamedTuple):
    """Who was there. ``hold``: what kept the call from a seat. Only counts above nought.

    ``running`` and ``waiting``: by role; ``models``: running, by model; ``line``: those of
    the call's own role that wait, by model.
    """

    hold: Hold
    running: dict[str, int]
    models: dict[str, int]
    waiting: dict[str, int]
    line: dict[str, int]
