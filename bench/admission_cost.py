"""What one call costs in admission: ask, fill, leave, fill, with many others in line.

Pure policy, no sockets, no event loop. A *turn* is one call's whole life in a busy line: a
seat comes free (leave, fill: the next in line is seated) and a new call joins (ask, fill).
A *give-up* is a call that joins and leaves the line again (ask, fill, leave, fill). What is
counted is the process's own time on the CPU, which others on the machine add little to.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit import mean, options, show, table
from modelsplit_policy.admission import Admission
from modelsplit_policy.hosts import HostSeats
from modelsplit_policy.parallelism import Parallelism, Report
from modelsplit_policy.pools import PoolLimits
from modelsplit_policy.tickets import Place, Ticket
from modelsplit_policy.vocabulary import Role

if TYPE_CHECKING:
    from collections.abc import Callable

WAITERS = (0, 10, 1_000, 10_000)
SEATS = 6
_LINE = 1_000_000
_REPORT = Report(tokens=50, eval_s=1.0, prompt_s=0.1, load_s=0.0, total_s=1.1)


@dataclass(frozen=True, slots=True)
class Shape:
    """Who asks: call number -> role, model and client. ``learns``: parallelism not given.

    ``step_s``: between two calls; each says that it ran for a second.
    """

    name: str
    role: Callable[[int], Role]
    model: Callable[[int], str]
    client: Callable[[int], str]
    learns: bool = False
    step_s: float = 0.2


def _planner(_: int) -> Role:
    return Role.PLANNER


def _either(number: int) -> Role:
    return (Role.PLANNER, Role.EXECUTOR)[number % 2]


def _any_local(number: int) -> Role:
    return (Role.PLANNER, Role.EXECUTOR, Role.HEAVY, Role.CHAT)[number % 4]


def _one(_: int) -> str:
    return "m"


def _of(count: int) -> Callable[[int], str]:
    return lambda number: f"n{number % count}"


def _own(number: int) -> str:
    return f"n{number}"


SHAPES = (
    Shape("one role", _planner, _one, _one),
    Shape("one role, learning", _planner, _one, _one, learns=True),
    Shape("two roles", _either, _one, _one),
    Shape("four roles, 4 models, learning", _any_local, _of(4), _one, learns=True),
    Shape("one role, 10 models", _planner, _of(10), _one),
    Shape("one role, 100 models", _planner, _of(100), _one),
    Shape("one role, 100 clients", _planner, _one, _of(100)),
    Shape("one role, every call its own client", _planner, _one, _own),
    Shape("200 short calls within each call's span", _planner, _one, _one, step_s=0.005),
    Shape("hostile: every call its own model", _planner, _own, _one),
)


class Desk:
    """An admission with every seat taken and ``waiters`` calls in line."""

    def __init__(self, shape: Shape, waiters: int) -> None:
        limits = PoolLimits(seats=None, max_queue=_LINE, ageing_s=4.0)
        # Given parallelism is as wide as the seats, so that only seats hold calls back.
        learned = Parallelism(cap=SEATS, host=None if shape.learns else SEATS, models={})
        if not shape.learns:
            learned.slots = lambda _model: SEATS  # type: ignore[method-assign,assignment]
        hosts = [HostSeats(SEATS, {}, learned)]
        self.admission = Admission(dict.fromkeys(Role, limits), hosts, forecasts=False)
        self._shape = shape
        self._number = 0
        self.now = 0.0
        self.running: list[Ticket] = []
        self.arrive()
        waiting = 0
        while waiting < waiters:
            waiting += self.arrive(fill=False).place is Place.WAITING
        self.running += self.admission.fill(self.now)

    def ticket(self) -> Ticket:
        number, shape = self._number, self._shape
        self._number += 1
        self.now += shape.step_s
        return Ticket(shape.role(number), shape.model(number), self.now, shape.client(number))

    def arrive(self, *, fill: bool = True) -> Ticket:
        ticket = self.ticket()
        self.admission.ask(ticket, self.now)
        if ticket.place is Place.SEATED:
            self.running.append(ticket)
        elif fill:
            self.running += self.admission.fill(self.now)
        return ticket

    def turn(self) -> None:
        """A seat comes free, the next takes it, a new call joins."""
        done = self.running.pop(0)
        self.admission.leave(done, self.now, _REPORT)
        self.running += self.admission.fill(self.now)
        self.arrive()

    def give_up(self) -> None:
        ticket = self.arrive()
        if ticket.place is Place.SEATED:
            self.running.remove(ticket)
        self.admission.leave(ticket, self.now)
        self.running += self.admission.fill(self.now)


def timed(action: Callable[[], None], budget_s: float, most: int) -> float:
    """Microseconds of the CPU an action, the best of five batches.

    ``most`` actions; ``budget_s`` in all, by the clock.
    """
    batch = max(1, most // 5)
    best = float("inf")
    began = time.perf_counter()
    for _ in range(5):
        count, start, spent = 0, time.perf_counter(), time.process_time()
        while count < batch:
            action()
            count += 1
            if time.perf_counter() - start > budget_s / 5:
                break
        best = min(best, (time.process_time() - spent) / count)
        if time.perf_counter() - began > budget_s:
            break
    return best * 1e6


def own_cost_us(shape: Shape) -> float:
    """What the bench itself adds to a turn: making a ticket and keeping its list."""
    desk = Desk(shape, 0)

    def bare() -> None:
        desk.running.append(desk.ticket())
        desk.running.pop(0)

    return timed(bare, 0.1, 20_000)


def measure(shape: Shape, waiters: int, budget_s: float) -> dict[str, Any]:
    desk = Desk(shape, waiters)
    turn = timed(desk.turn, budget_s, 20_000)
    give_up = timed(desk.give_up, budget_s, 20_000)
    return {"shape": shape.name, "waiters": waiters, "turn_us": turn, "give_up_us": give_up}


def churn(count: int) -> dict[str, Any]:
    """The cost of ``count`` give-ups behind a head that stays: what is left, and its price."""
    desk = Desk(SHAPES[0], 1)
    start = time.process_time()
    for _ in range(count):
        ticket = desk.ticket()
        desk.admission.ask(ticket, desk.now)
        desk.admission.leave(ticket, desk.now)
    spent = time.process_time() - start
    lanes = desk.admission._pools[Role.PLANNER].line._lanes  # noqa: SLF001 - what is being judged
    left = sum(len(lane) for lane in lanes.values())
    start = time.process_time()
    desk.turn()
    stall_ms = (time.process_time() - start) * 1000
    return {"give_ups": count, "us_each": spent / count * 1e6, "left": left, "stall_ms": stall_ms}


def profile(shape: Shape, waiters: int, turns: int) -> str:
    desk = Desk(shape, waiters)
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(turns):
        desk.turn()
    profiler.disable()
    out = io.StringIO()
    pstats.Stats(profiler, stream=out).sort_stats("tottime").print_stats(14)
    lines = [line for line in out.getvalue().splitlines() if line.strip()]
    return "\n".join(line.replace("\t", " ") for line in lines)


def text(rows: list[dict[str, Any]], costs: list[float], churned: list[dict[str, Any]]) -> str:
    by = {(row["shape"], row["waiters"]): row for row in rows}
    lines = []
    for shape in SHAPES:
        turns = [by[shape.name, count]["turn_us"] for count in WAITERS]
        ups = [by[shape.name, count]["give_up_us"] for count in WAITERS]
        cells = [f"{turn:.1f} / {up:.1f}" for turn, up in zip(turns, ups, strict=True)]
        lines.append([shape.name, *cells, f"{turns[-1] / turns[1]:.1f}"])
    head = ["µs a turn / a give-up", *(f"{count} waiting" for count in WAITERS), "10 000 ÷ 10"]
    churn_rows = [
        [row["give_ups"], f"{row['us_each']:.1f}", row["left"], f"{row['stall_ms']:.1f}"]
        for row in churned
    ]
    churn_head = ["give-ups behind a head that stays", "µs each", "entries left", "next turn, ms"]
    return "\n\n".join(
        (
            table(head, lines),
            f"Best of five batches. Of each figure {mean(costs):.1f} µs are the bench's own.",
            table(churn_head, churn_rows),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--budget", type=float, default=0.4, help="seconds for each figure")
    parser.add_argument("--profile", metavar="SHAPE", type=int, help="profile one shape, 0 to 9")
    given = options(parser)
    if given.profile is not None:
        show({}, profile(SHAPES[given.profile], 1000, 20_000), as_json=False)
        return
    rows = [measure(shape, count, given.budget) for shape in SHAPES for count in WAITERS]
    costs = [own_cost_us(shape) for shape in SHAPES]
    churned = [churn(count) for count in (1_000, 100_000)]
    found = {"rows": rows, "own_us": mean(costs), "churn": churned}
    show(found, text(rows, costs, churned), as_json=given.json)


if __name__ == "__main__":
    main()
