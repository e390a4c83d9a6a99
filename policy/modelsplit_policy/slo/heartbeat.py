"""What a process says of itself once a minute."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One minute of it. None: not known.

    ``run``: which process, from its start to its end. ``drained``: it has ended in good order
    in this minute. ``state_bytes``: the state file with its log; ``state_limit_bytes``: how
    large it may grow. ``lag_p99_us``: of the event loop, over the last minute.
    """

    at_us: int
    run: str
    drained: bool = False
    rss_bytes: int | None = None
    descriptors: int | None = None
    tasks: int | None = None
    state_bytes: int | None = None
    state_limit_bytes: int | None = None
    lag_p99_us: int | None = None
