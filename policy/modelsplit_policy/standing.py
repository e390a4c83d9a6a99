"""How things stood when a call asked for a seat: what explains afterwards why it waited.

Read, never decided with. ``Seats`` is a few numbers and taken of every call; ``Crowd`` is
taken only of calls that found no seat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from modelsplit_policy.admission import Hold


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
