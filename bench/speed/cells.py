"""What is measured: one cell is one kind of load against one proxy, told by one child."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from speed.host import pinned

if TYPE_CHECKING:
    from pathlib import Path

    from speed.host import Cores

# Other processes on the two cores, in cores: a cell with more is taken again.
NOISY_CORES = 0.15


@dataclass(frozen=True, slots=True)
class Cell:
    """``mode`` and ``flags`` are the load generator's; ``once``: in the first round only."""

    name: str
    mode: str
    flags: dict[str, float]
    once: bool = False


FULL = (
    Cell("rest", "rest", {"seconds": 2}, once=True),
    Cell("crowd", "crowd", {"conns": 500, "seconds": 3}, once=True),
    Cell("requests", "closed", {"conns": 32, "seconds": 3}),
    Cell("open", "open", {"rate": 50, "seconds": 4}),
    Cell("streams64", "streams", {"conns": 64, "tokens": 200, "rate": 50, "seconds": 8}),
    Cell("streams256", "streams", {"conns": 256, "tokens": 200, "rate": 50, "seconds": 8}),
    Cell("unpaced", "streams", {"conns": 16, "tokens": 10**7, "rate": 0, "seconds": 2}),
    Cell("aborts", "aborts", {"conns": 10}),
)
QUICK = (
    Cell("rest", "rest", {"seconds": 0.5}, once=True),
    Cell("crowd", "crowd", {"conns": 500, "seconds": 1.5}, once=True),
    Cell("requests", "closed", {"conns": 32, "seconds": 1}),
    Cell("open", "open", {"rate": 50, "seconds": 1}),
    Cell("streams64", "streams", {"conns": 64, "tokens": 50, "rate": 50, "seconds": 4}),
    Cell("streams256", "streams", {"conns": 256, "tokens": 50, "rate": 50, "seconds": 4}),
    Cell("unpaced", "streams", {"conns": 16, "tokens": 10**7, "rate": 0, "seconds": 0.7}),
    Cell("aborts", "aborts", {"conns": 4}),
)


@dataclass(frozen=True, slots=True)
class Target:
    """Something to ask. ``pid`` 0: nobody's CPU is counted (the upstream itself).

    ``ready_s``: from its start to its first answer.
    """

    name: str
    port: int
    route: str = "/api/chat"
    model: str = "llama3.2"
    pid: int = 0
    admin_port: int | None = None
    ready_s: float = 0.0


@dataclass(slots=True)
class Row:
    """What one cell told of one target in one round."""

    cell: str
    target: str
    round: int
    told: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bench:
    """The load side: its programs, its cores, and the mock that is up."""

    load: Path
    cores: Cores
    direct: Target
    mock_pid: int
    control_port: int

    def measure(self, cell: Cell, target: Target) -> dict[str, Any]:
        argv = [
            *(str(self.load), cell.mode),
            *("-addr", f"127.0.0.1:{target.port}"),
            *("-route", target.route, "-model", target.model),
            *("-direct", f"127.0.0.1:{self.direct.port}"),
            *("-control", f"127.0.0.1:{self.control_port}"),
            *("-pid", str(target.pid), "-mock-pid", str(self.mock_pid)),
            *("-cores", str(self.cores)),
        ]
        for name, value in cell.flags.items():
            argv += [f"-{name}", str(value)]
        with pinned(self.cores.load):
            done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120)
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def cleanest(self, cell: Cell, target: Target, tries: int) -> dict[str, Any]:
        """The same, again while others are at work on the two cores; the quietest of them."""
        found: list[dict[str, Any]] = []
        while len(found) < tries:
            found.append(self.measure(cell, target))
            if found[-1].get("foreign_cores", 0.0) <= NOISY_CORES:
                break
        return min(found, key=lambda told: float(told.get("foreign_cores", 0.0)))
