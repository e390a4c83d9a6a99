"""How few calls a scheduler that knew all of them beforehand would lose on the fierce host.

Two calls at once do a third of the work of one there, so it runs one at a time; it knows when
each comes and how long it takes, and chooses whom to run next, or to wait for who is about to
come. A beam search: what it finds can be reached, and a wider beam may find better. Beside it
one at a time in the shipped order, and the shipped policy from a cold start.

    python bench/clairvoyant.py                      seeds 101 to 120, 201 to 220, 501 to 520
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple

from kit import options, show, table
from modelsplit_policy.vocabulary import Role
from modelsplit_sim.virtual_traffic import read_scenario
from virtual import ROOT, SECONDS, hosts, lost, run_of, ways

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from modelsplit_sim.replay.run import Played

HOST = "fierce, NUM_PARALLEL 1"
# How long a call may wait in line, as shipped.
WAIT_S = {"PLANNER": 8.0, "EXECUTOR": 8.0, "HEAVY": 10.0, "CHAT": 10.0}
# What a call of another role counts, beside a planner.
ALIKE, PLANNERS_FIRST = 1.0, 0.001
# All schedules are brought to the same moment, and the best are kept, so often.
STEP_S = 2.0


class Job(NamedTuple):
    """One call. ``begin_by``: begun later it is refused, or its client has left before its end."""

    at: float
    length_s: float
    begin_by: float
    planner: bool


class Schedule(NamedTuple):
    """``next``: the first job that has not come by ``now``; ``waiting``: those that have."""

    now: float
    waiting: tuple[int, ...]
    next: int
    planners: int = 0
    others: int = 0


def jobs_of(seed: int) -> list[Job]:
    host, traffic = hosts()[HOST], read_scenario("fierce").traffic
    found = []
    for call in sorted(traffic.trace(SECONDS, seed, 1.0, host.spread)):
        length_s = (host.prompt_ms + call.tokens * host.ms_per_token) * call.pace / 1000
        begin_by = call.at + min(WAIT_S[call.role], call.patience_s - length_s)
        found.append(Job(call.at, length_s, begin_by, call.role == "PLANNER"))
    return found


class Search:
    """The best schedule of one run's jobs. ``other``: what losing one that is no planner counts."""

    def __init__(self, jobs: Sequence[Job], other: float, beam: int) -> None:
        self._jobs = jobs
        self._other = other
        self._beam = beam

    def best(self) -> Schedule:
        kept, until = [Schedule(0.0, (), 0)], 0.0
        while any(not self._ended(schedule) for schedule in kept):
            until += STEP_S
            kept = self._step(kept, until)
        return min(kept, key=self._cost)

    def _step(self, schedules: Sequence[Schedule], until: float) -> list[Schedule]:
        """All that these may become by ``until``, the best of them."""
        found: dict[tuple[tuple[int, ...], int], Schedule] = {}
        open_ = [self._arrived(schedule) for schedule in schedules]
        while open_:
            schedule = open_.pop()
            if schedule.now < until and not self._ended(schedule):
                open_ += self._choices(schedule)
                continue
            key = schedule.waiting, schedule.next
            other = found.get(key)
            if other is None or self._rank(schedule) < self._rank(other):
                found[key] = schedule
        return sorted(found.values(), key=lambda each: self._outlook(each, until))[: self._beam]

    def _choices(self, schedule: Schedule) -> Iterable[Schedule]:
        jobs, waiting = self._jobs, schedule.waiting
        for number in self._worth_trying(waiting):
            left = tuple(other for other in waiting if other != number)
            ends = schedule.now + jobs[number].length_s
            yield self._arrived(schedule._replace(now=ends, waiting=left))
        if schedule.next < len(jobs) and not any(jobs[number].planner for number in waiting):
            yield self._arrived(schedule._replace(now=jobs[schedule.next].at))

    def _worth_trying(self, waiting: Sequence[int]) -> set[int]:
        """Of planners and of the others: the most urgent, the shortest and the longest."""
        jobs, found = self._jobs, set()
        for planner in (True, False):
            group = [number for number in waiting if jobs[number].planner == planner]
            if group:
                found.add(min(group, key=lambda number: jobs[number].begin_by))
                found.add(min(group, key=lambda number: jobs[number].length_s))
                found.add(max(group, key=lambda number: jobs[number].length_s))
        return found

    def _arrived(self, schedule: Schedule) -> Schedule:
        """With those who have come by now, and without those for whom it is too late."""
        now, waiting, following, planners, others = schedule
        numbers = list(waiting)
        while following < len(self._jobs) and self._jobs[following].at <= now:
            numbers.append(following)
            following += 1
        left = []
        for number in numbers:
            job = self._jobs[number]
            if job.begin_by >= now:
                left.append(number)
            elif job.planner:
                planners += 1
            else:
                others += 1
        return Schedule(now, tuple(left), following, planners, others)

    def _ended(self, schedule: Schedule) -> bool:
        return not schedule.waiting and schedule.next == len(self._jobs)

    def _cost(self, schedule: Schedule) -> float:
        return schedule.planners + self._other * schedule.others

    def _rank(self, schedule: Schedule) -> tuple[float, float]:
        return self._cost(schedule), schedule.now

    def _outlook(self, schedule: Schedule, until: float) -> tuple[float, float]:
        """Its cost and those who are lost if the most urgent goes first; and when it is free."""
        at, cost = max(schedule.now, until), self._cost(schedule)
        for number in sorted(schedule.waiting, key=lambda each: self._jobs[each].begin_by):
            job = self._jobs[number]
            if at <= job.begin_by:
                at += job.length_s
            else:
                cost += 1.0 if job.planner else self._other
        return cost, at


def clairvoyant(seeds: Sequence[int], other: float, beam: int) -> str:
    found = [Search(jobs_of(seed), other, beam).best() for seed in seeds]
    planners = sum(schedule.planners for schedule in found)
    return f"{planners}, {sum(schedule.others for schedule in found)}"


def scheduled(seeds: Sequence[int], name: str) -> str:
    own = ROOT / "config" / "model-policy.json"
    way = next(way for way in ways(own, "as shipped") if way.name == name)
    runs = [run_of(way, hosts()[HOST], seed).play() for seed in seeds]
    planners = sum(map(planners_lost, runs))
    return f"{planners}, {sum(lost(run.calls) for run in runs) - planners}"


def planners_lost(run: Played) -> int:
    return lost(call for call in run.calls if call.route.role is Role.PLANNER)


def main() -> None:
    parser = argparse.ArgumentParser(description="How few calls could be lost on the fierce host.")
    parser.add_argument("--first", type=int, nargs="*", default=[101, 201, 501], help="seeds")
    parser.add_argument("--seeds", type=int, default=20, help="from each")
    parser.add_argument("--beam", type=int, default=40, help="schedules that are kept")
    given = options(parser)
    rows = []
    for first in given.first:
        seeds = range(first, first + given.seeds)
        planners = sum(job.planner for seed in seeds for job in jobs_of(seed))
        rows.append(
            [
                f"{seeds[0]} to {seeds[-1]}",
                str(planners),
                clairvoyant(seeds, PLANNERS_FIRST, given.beam),
                clairvoyant(seeds, ALIKE, given.beam),
                scheduled(seeds, "one at a time"),
                scheduled(seeds, "as shipped"),
            ]
        )
    head = [
        "seeds",
        "planners",
        "clairvoyant, planners first: planners, others lost",
        "clairvoyant, all alike",
        "one at a time",
        "as shipped, from a cold start",
    ]
    show({"rows": rows}, table(head, rows), as_json=given.json)


if __name__ == "__main__":
    main()
