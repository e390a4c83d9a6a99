"""The load side up on its core, and proxies started on theirs."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING

from speed.cells import Bench, Target
from speed.host import answers, first_line, free_port, running, two_cores
from speed.peers import Absent, Place
from speed.tools import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from speed.peers import Start

DIRECT = "direct"


@contextlib.contextmanager
def load_side(folder: Path) -> Iterator[Bench]:
    """The mock, up on the load core, and the load generator beside it; we move there too."""
    cores = two_cores()
    os.sched_setaffinity(0, {cores.load})
    mock, load = build(folder)
    log = folder / "mock.log"
    with running([str(mock)], cores.load, log) as child:
        ports = json.loads(first_line(log.with_suffix(".out"), child))
        direct = Target(DIRECT, ports["port"])
        yield Bench(load, cores, direct, child.pid, ports["control_port"])


@contextlib.contextmanager
def proxy(
    bench: Bench, name: str, starting: Callable[[Place], Start], folder: Path
) -> Iterator[Target]:
    """A proxy that has answered a call; Absent if there is none."""
    folder.mkdir(exist_ok=True)
    place = Place(folder, free_port(), free_port(), bench.direct.port)
    start = starting(place)
    log = folder / "log"
    began = time.monotonic()
    with running(start.argv, bench.cores.proxy, log, start.env) as child:
        trouble = answers(
            child, place.port, start.route, start.model, within_s=start.ready_within_s
        )
        if trouble is not None:
            words = log.read_text().strip().splitlines()
            raise Absent(f"no answer ({trouble}): {words[-1] if words else 'it said nothing'}")
        admin = place.admin_port if start.has_admin else None
        ready_s = time.monotonic() - began
        yield Target(name, place.port, start.route, start.model, child.pid, admin, ready_s)
