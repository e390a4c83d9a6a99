"""How many calls at once are worth running, learned from what they report."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from modelsplit_policy import admission
from modelsplit_policy.config.parser import parse
from modelsplit_policy.learned import LearnedHost
from modelsplit_policy.parallelism import Basis, Parallelism, Report
from modelsplit_policy.vocabulary import Role
from support.host import Host, Job, Run

SHIPPED = Path(__file__).parents[2] / "config" / "model-policy.json"


def learning(**over: Any) -> admission.Admission:
    document = json.loads(SHIPPED.read_bytes())
    del document["$schema"]
    document["global"] |= over
    return admission.from_policy(parse(document))


def busy(seed: int, calls: int, seconds: float, model: str = "m") -> list[Job]:
    """Chats of one model, more of them than run one after the other."""
    rng = random.Random(seed)
    return [
        Job(at=rng.uniform(0, seconds), role=Role.CHAT, model=model, tokens=rng.randint(40, 160))
        for _ in range(calls)
    ]


def learned(host: Host, jobs: list[Job]) -> list[tuple[int, int]]:
    """The estimates (host, slots of "m") after each finished call."""
    under_test = learning()
    run = Run(under_test, host, jobs)
    seen: list[tuple[int, int]] = []
    finish = run._finish

    def noting(job: Job, *, completed: bool) -> None:
        finish(job, completed=completed)
        if completed:
            seen.append(
                (under_test.host().parallelism.host, under_test.host().parallelism.slots("m"))
            )

    run._finish = noting  # type: ignore[method-assign]
    run.run()
    return seen


@pytest.mark.parametrize(("slots", "seconds"), [(1, 150), (2, 60), (4, 60)])
def test_the_slots_of_a_model_are_found_within_tens_of_calls(slots: int, seconds: float) -> None:
    host = Host(contention=0.1, slots=slots)
    estimates = [known for _, known in learned(host, busy(1, 100, seconds))]
    assert len(estimates) > 40
    assert estimates[30] == slots
    late = estimates[30:]
    assert sum(known == slots for known in late) > 0.9 * len(late)
    assert min(estimates) >= 1


@pytest.mark.parametrize(("contention", "expected"), [(0.0, 5), (0.1, 5), (0.5, 2), (1.0, 1)])
def test_what_the_machine_is_good_for_is_found_within_tens_of_calls(
    contention: float, expected: int
) -> None:
    """Chats may take five of six seats: what nobody has seen is not known."""
    estimates = [
        host for host, _ in learned(Host(contention=contention, slots=6), busy(2, 120, 100))
    ]
    late = estimates[30:]
    assert len(late) > 20
    assert sum(host == expected for host in late) > 0.75 * len(late)
    assert min(estimates) >= 1


def test_fewer_slots_after_a_restart_of_ollama_are_noticed() -> None:
    host = Host(contention=0.1, slots=4)
    under_test = learning()
    Run(under_test, host, busy(3, 80, 60)).run()
    assert under_test.host().parallelism.slots("m") == 4
    host.slots = 1
    again = busy(4, 40, 40)
    for job in again:
        job.at += 1000
    Run(under_test, host, again).run()
    assert under_test.host().parallelism.slots("m") == 1


def test_more_slots_after_a_restart_of_ollama_are_noticed() -> None:
    host = Host(contention=0.0, slots=1)
    under_test = learning()
    Run(under_test, host, busy(5, 60, 60)).run()
    assert under_test.host().parallelism.slots("m") == 1
    host.slots = 4
    again = busy(6, 120, 90)
    for job in again:
        job.at += 1000
    Run(under_test, host, again).run()
    assert under_test.host().parallelism.slots("m") == 4


def test_a_number_in_the_policy_is_obeyed_and_not_learned() -> None:
    given = Parallelism(cap=6, host=3, models={"m": 2})
    assert (given.host, given.slots("m"), given.slots("other")) == (3, 2, 1)
    assert given.basis is Basis.POLICY
    flights = []
    for at in range(2):
        assert given.fits("m")
        flights.append(given.start("m", float(at), resident=True))
    assert not given.fits("m")
    assert not given.probe_due("m", 5.0)
    assert given.harms("m") is True
    for flight in flights:
        slow = Report(tokens=50, eval_s=1.0, prompt_s=0.1, load_s=0.0, total_s=9.0)
        given.end(flight, 10.0, 10.0, slow)
    assert (given.host, given.slots("m")) == (3, 2)


def test_more_calls_than_are_useful_are_told_and_whether_they_harm_each_other() -> None:
    one = Parallelism(cap=6, host=None, models={})
    now = together(one, alone(one, "m", "n"), 2.0, "m", "n")
    now = together(one, now, 2.0, "m", "n")
    flights = [one.start("m", now, resident=True)]
    assert (one.is_beyond, one.company_harms) == (False, False)
    flights.append(one.start("n", now, resident=True))
    assert (one.host, one.is_beyond, one.company_harms) == (1, True, False)
    flights.append(one.start("o", now, resident=True))
    assert (one.is_beyond, one.company_harms) == (True, None)


def test_more_calls_of_a_model_than_it_has_slots_are_more_than_is_useful() -> None:
    given = Parallelism(cap=6, host=2, models={"m": 1, "n": 1})
    given.start("m", 0.0, resident=True)
    assert not given.is_beyond
    given.start("m", 0.0, resident=True)
    assert (given.is_beyond, given.company_harms) == (True, False)
    given.start("n", 0.0, resident=True)
    assert given.company_harms is True, "what is given is obeyed"


def test_a_call_that_says_nothing_teaches_nothing() -> None:
    quiet = Parallelism(cap=6, host=None, models={})
    for at in range(20):
        flight = quiet.start("m", float(at), resident=True)
        quiet.end(flight, at + 0.5, 0.5, None)
    assert (quiet.host, quiet.slots("m"), quiet.contention) == (1, 1, 1.0)
    assert quiet.basis is Basis.START


def test_what_a_call_in_company_shows_makes_the_number_a_learned_one() -> None:
    taught = Parallelism(cap=6, host=None, models={})
    assert taught.basis is Basis.START
    taught.recall(LearnedHost((0.0, 0.0, 0.5), (0.0, 0.0, 1.0), 0.0, 0.0), 0.0)
    assert (taught.host, taught.basis) == (1, Basis.LEARNED)


def test_ending_a_flight_twice_changes_nothing() -> None:
    one = Parallelism(cap=6, host=None, models={})
    flight = one.start("m", 0.0, resident=True)
    one.end(flight, 1.0, 1.0, None)
    one.end(flight, 2.0, 2.0, None)
    assert one.fits("m")


WORK = Report(tokens=50, eval_s=1.0, prompt_s=0.0, load_s=0.0, total_s=1.0)


def alone(under_test: Parallelism, *models: str, at: float = 0.0) -> float:
    """One call after another, a second each; when the last one has ended."""
    for model in models:
        under_test.end(under_test.start(model, at, resident=True), at + 1.0, 1.0, WORK)
        at += 1.0
    return at


def together(under_test: Parallelism, at: float, seconds: float, *models: str) -> float:
    """Calls at once that each take so long for a second's work; when they have ended."""
    report = WORK._replace(eval_s=seconds, total_s=seconds)
    flights = [under_test.start(model, at, resident=True) for model in models]
    for flight in flights:
        under_test.end(flight, at + seconds, seconds, report)
    return at + seconds


def test_only_one_probe_is_under_way_and_the_next_waits_until_its_effect_is_known() -> None:
    one = Parallelism(cap=6, host=None, models={})
    now = alone(one, "m", "n", "o")
    known = one.start("m", now, resident=True)
    assert not one.fits("n")
    assert one.probe_due("n", now)
    probe = one.start("n", now, resident=True)
    assert (known.probe, probe.probe) == (False, True)
    assert not one.probe_due("o", now)
    one.end(probe, now + 0.1, 0.1, None)
    assert not one.probe_due("o", now + 0.1), "it taught nothing, and who ran beside it still runs"
    one.end(known, now + 1.0, 1.0, WORK)
    assert one.settled


def test_a_probe_that_hurt_is_not_repeated_for_ten_minutes_and_then_for_twenty() -> None:
    one = Parallelism(cap=6, host=None, models={})
    now = together(one, alone(one, "m", "n"), 6.0, "m", "n")
    assert (one.host, one.harms("m")) == (1, False)
    busy = one.start("m", now, resident=True)
    assert one.harms("n") is True
    assert not one.probe_due("n", now + 599.0)
    assert one.probe_due("n", now + 601.0)
    one.end(busy, now + 601.0, 601.0, None)
    again = together(one, now + 700.0, 6.0, "m", "n")
    one.start("m", again, resident=True)
    assert not one.probe_due("n", again + 1100.0)
    assert one.probe_due("n", again + 1201.0)


def test_a_probe_that_showed_too_little_to_tell_is_repeated_at_once() -> None:
    one = Parallelism(cap=6, host=None, models={})
    now = alone(one, "m", "n")
    known = one.start("m", now, resident=True)
    probe = one.start("n", now + 0.95, resident=True)
    one.end(known, now + 1.0, 1.0, WORK)
    one.end(probe, now + 1.95, 1.0, WORK)
    one.start("m", now + 2.0, resident=True)
    assert (one.host, one.harms("n")) == (1, None)
    assert one.probe_due("n", now + 2.0)


def test_a_gpu_is_trusted_with_two_at_once_until_they_are_seen_to_cost() -> None:
    one = Parallelism(cap=6, host=None, models={})
    now = alone(one, "m", "n")
    assert (one.trusts_company, one.may_collapse) == (False, True)
    one.on_gpu = True
    assert (one.host, one.trusts_company, one.may_collapse) == (1, True, False)
    together(one, now, 6.0, "m", "n")
    assert (one.host, one.trusts_company, one.may_collapse) == (1, False, True)


@pytest.mark.parametrize("on_gpu", [True, False])
def test_where_two_at_once_pay_they_are_trusted_whatever_they_run_on(on_gpu: bool) -> None:
    one = Parallelism(cap=6, host=None, models={})
    one.on_gpu = on_gpu
    together(one, alone(one, "m", "n"), 1.1, "m", "n")
    assert (one.host, one.trusts_company, one.may_collapse) == (2, True, False)


def test_a_number_in_the_policy_is_obeyed_on_a_gpu_too() -> None:
    one = Parallelism(cap=6, host=1, models={"m": 1})
    one.on_gpu = True
    one.start("m", 0.0, resident=True)
    assert (one.trusts_company, one.harms("n"), one.probe_due("n", 0.0)) == (False, True, False)


def third_beside_a_probe(under_test: Parallelism, now: float) -> bool:
    """Two run, of which the second is a probe; whether a third may be one beside it."""
    under_test.start("m", now, resident=True)
    assert under_test.start("n", now, resident=True).probe
    return under_test.probe_due("o", now)


@pytest.mark.parametrize("on_gpu", [True, False])
def test_the_first_probe_is_alone_on_a_gpu_too(on_gpu: bool) -> None:
    one = Parallelism(cap=6, host=None, models={})
    one.on_gpu = on_gpu
    assert not third_beside_a_probe(one, alone(one, "m", "n", "o"))


@pytest.mark.parametrize("on_gpu", [True, False])
def test_once_two_pay_a_gpu_takes_several_probes_at_once(on_gpu: bool) -> None:
    one = Parallelism(cap=6, host=None, models={})
    one.on_gpu = on_gpu
    now = together(one, alone(one, "m", "n", "o"), 1.1, "m", "n")
    flights = [one.start(model, now, resident=True) for model in "mno"]
    assert [flight.probe for flight in flights] == [False, False, True]
    assert one.probes_any(now) is on_gpu
    assert one.probe_due("p", now) is on_gpu


def test_a_gpu_takes_no_further_probe_where_so_many_at_once_are_known_to_cost() -> None:
    one = Parallelism(cap=6, host=None, models={})
    one.on_gpu = True
    now = together(one, alone(one, "m", "n", "o"), 1.1, "m", "n")
    now = together(one, now, 9.0, "m", "n", "o")
    one.start("m", now, resident=True)
    assert one.start("m", now, resident=True).over_slots
    assert (one.harms("n"), one.settled, one.probes_any(now)) == (True, False, False)
    assert not one.probe_due("n", now)


def test_one_call_at_a_time_looks_for_slots_of_its_model_on_a_gpu_too() -> None:
    one = Parallelism(cap=6, host=None, models={})
    one.on_gpu = True
    now = together(one, alone(one, "m", "n", "o"), 1.1, "m", "n")
    now = together(one, now, 1.1, "m", "n", "o")
    assert one.host == 3
    one.start("m", now, resident=True)
    assert one.start("m", now, resident=True).over_slots
    assert (one.fits("m"), one.probe_due("m", now)) == (False, False)


def test_a_gpu_takes_no_second_probe_beside_the_first_once_one_gained_little() -> None:
    one = Parallelism(cap=6, host=None, models={})
    one.on_gpu = True
    now = together(one, alone(one, "m", "n", "o"), 1.1, "m", "n")
    for _ in range(3):
        now = together(one, now, 1.4, "m", "n", "o")
    assert (one.host, one.shares.harms(3)) == (2, False)
    flights = [one.start(model, now, resident=True) for model in "mno"]
    assert [flight.probe for flight in flights] == [False, False, True]
    assert not one.probe_due("p", now)


def test_how_long_until_one_more_would_run_beside_the_last_half_only() -> None:
    one = Parallelism(cap=6, host=None, models={})
    assert one.left_s(0.0) == 0.0
    first = one.start("m", 0.0, resident=True, length_s=4.0)
    assert (one.left_s(1.0), one.last_half_in_s(1.0, now=1.0)) == (3.0, 2.5)
    assert one.last_half_in_s(10.0, now=1.0) == 1.0, "half of the shorter, which is what runs"
    assert one.left_s(5.0) == 1.0, "longer than expected: a quarter is left"
    one.start("n", 5.0, resident=True)
    assert (one.left_s(5.0), one.last_half_in_s(1.0, now=5.0)) == (None, None)
    one.end(first, 6.0, 6.0, None)


def test_a_call_that_ended_beside_a_probe_of_slots_counts_once_the_slot_is_known() -> None:
    """While nobody knew whether the probe ran, nobody knew whether the call had company."""
    one = Parallelism(cap=6, host=None, models={})
    now = alone(one, "m", "m")
    known = one.start("m", now, resident=True)
    probe = one.start("m", now + 0.2, resident=True)
    slowed = WORK._replace(eval_s=1.8, total_s=1.8)
    one.end(known, now + 1.8, 1.8, slowed)
    assert one.shares.share(2) is None
    one.end(probe, now + 2.0, 1.8, slowed)
    assert one.slots("m") == 2
    assert one.shares.share(2) == pytest.approx(0.5)
    assert one.shares.harms(2) is False, "two samples of it: known well enough to say so"


def test_a_call_that_ended_beside_a_probe_that_waited_inside_says_nothing() -> None:
    one = Parallelism(cap=6, host=None, models={})
    now = alone(one, "m", "m")
    known = one.start("m", now, resident=True)
    probe = one.start("m", now + 0.2, resident=True)
    one.end(known, now + 1.0, 1.0, WORK)
    one.end(probe, now + 2.0, 1.8, WORK._replace(total_s=1.8))
    assert (one.slots("m"), one.shares.share(2)) == (1, None)


def overlapping(under_test: Parallelism, model: str, at: float) -> None:
    """Two calls of one model that do not wait for each other."""
    first = under_test.start(model, at, resident=True)
    second = under_test.start(model, at + 0.2, resident=True)
    under_test.end(first, at + 1.0, 1.0, WORK)
    under_test.end(second, at + 1.2, 1.0, WORK)


def test_a_model_takes_as_many_calls_as_another_until_one_of_its_own_waits() -> None:
    """OLLAMA_NUM_PARALLEL is the server's; some models are run one call at a time all the same."""
    one = Parallelism(cap=6, host=6, models={})
    overlapping(one, "m", 0.0)
    assert (one.slots("m"), one.slots("n")) == (2, 1)
    alone(one, "n", at=10.0)
    assert one.slots("n") == 2
    first = one.start("n", 20.0, resident=True)
    second = one.start("n", 20.2, resident=True)
    one.end(first, 21.0, 1.0, WORK)
    one.end(second, 22.0, 1.8, WORK._replace(total_s=1.8))
    assert (one.slots("m"), one.slots("n")) == (2, 1)


def test_what_two_at_once_show_says_nothing_of_three() -> None:
    """Two for nothing, and three that share: no straight line through it."""
    one = Parallelism(cap=6, host=None, models={})
    now = together(one, alone(one, "m", "n"), 1.0, "m", "n")
    assert one.host == 2
    for _ in range(3):
        now = together(one, now, 1.5, "m", "n", "o")
    assert one.host == 2
    assert one.contention < 0.2


def test_a_model_is_not_known_to_take_two_because_another_call_of_it_failed() -> None:
    """It never reached a runner: a 501, say."""
    one = Parallelism(cap=6, host=6, models={})
    for at in range(0, 30, 3):
        failing = one.start("m", float(at), resident=True)
        working = one.start("m", at + 0.01, resident=True)
        one.end(failing, at + 0.5, 0.5, None)
        one.end(working, at + 1.01, 1.0, WORK)
    assert one.slots("m") == 1


def test_a_call_that_ended_within_what_counts_as_no_wait_proves_no_slot() -> None:
    """Ten seconds of work hide a wait of most of a second."""
    one = Parallelism(cap=6, host=6, models={})
    long = Report(tokens=500, eval_s=10.0, prompt_s=0.0, load_s=0.0, total_s=10.8)
    first = one.start("m", 0.0, resident=True)
    second = one.start("m", 0.2, resident=True)
    one.end(first, 1.0, 1.0, WORK)
    one.end(second, 11.0, 10.8, long)
    assert one.slots("m") == 1


def test_a_neighbour_that_slows_calls_alone_does_not_make_company_look_cheap() -> None:
    """Half of the calls alone take three times as long; two at once cost twice their work."""
    one = Parallelism(cap=6, host=None, models={})
    now = alone(one, "m", "n")
    slow = WORK._replace(eval_s=3.0, total_s=3.0)
    for number in range(12):
        model = "mn"[number % 2]
        report, seconds = (slow, 3.0) if number % 3 else (WORK, 1.0)
        one.end(one.start(model, now, resident=True), now + seconds, seconds, report)
        now += seconds
    together(one, now, 3.0, "m", "n")
    assert one.host == 1
    assert one.shares.harms(2) is True


def test_model_names_that_clients_invent_are_not_remembered_for_ever() -> None:
    one = Parallelism(cap=6, host=None, models={})
    for number in range(2000):
        flight = one.start(f"invented-{number}", float(number), resident=True)
        one.end(flight, number + 0.5, 0.5, None)
    assert len(one.known_models()) <= 257


def test_without_durations_of_its_own_a_calls_whole_time_stands_in() -> None:
    """The OpenAI and Anthropic dialects report tokens and nothing else."""
    one = Parallelism(cap=6, host=None, models={})
    now = 0.0
    for _ in range(6):
        alone = one.start("m", now, resident=True)
        one.end(alone, now + 1.0, 1.0, Report(tokens=50))
        first = one.start("m", now + 2, resident=True)
        second = one.start("n", now + 2, resident=True)
        one.end(first, now + 4, 2.0, Report(tokens=50))
        one.end(second, now + 4, 2.0, Report(tokens=50))
        now += 10
    assert one.contention == pytest.approx(1.0, abs=0.1)
    assert one.host == 1


def waited(wait_s: float) -> Report:
    """A call of one second that waited inside the upstream for so long before it ran."""
    return Report(tokens=50, eval_s=1.0, prompt_s=0.0, load_s=0.0, total_s=1.0 + wait_s)


def test_a_wait_without_company_says_nothing_of_slots() -> None:
    """Most likely the model was loaded once more, and the list of loaded models was old."""
    one = Parallelism(cap=6, host=6, models={})
    first = one.start("m", 0.0, resident=True)
    second = one.start("m", 0.0, resident=True)
    one.end(first, 1.0, 1.0, waited(0.0))
    one.end(second, 1.0, 1.0, waited(0.0))
    assert one.slots("m") == 2
    one.end(one.start("m", 2.0, resident=True), 6.0, 4.0, waited(3.0))
    assert one.slots("m") == 2


def test_of_calls_sent_in_one_moment_nobody_knows_which_came_first() -> None:
    """The first of three waited, so they were seen in another order: still two slots."""
    one = Parallelism(cap=6, host=6, models={})
    flights = [one.start("m", number / 1000, resident=True) for number in range(3)]
    one.end(flights[1], 1.0, 1.0, waited(0.0))
    assert one.slots("m") == 2
    one.end(flights[2], 1.0, 1.0, waited(0.0))
    one.end(flights[0], 2.0, 2.0, waited(1.0))
    assert one.slots("m") == 2


def test_calls_that_end_in_the_moment_another_begins_prove_no_slot() -> None:
    one = Parallelism(cap=6, host=6, models={})
    running, late = (one.start("m", 0.0, resident=True) for _ in range(2))
    one.end(running, 1.0, 1.0, waited(0.0))
    one.end(late, 2.0, 2.0, waited(1.0))
    assert one.slots("m") == 1
    for now in range(10, 20):
        old = one.start("m", float(now), resident=True)
        new = one.start("m", now + 0.5, resident=True)
        one.end(old, now + 0.55, 0.55, waited(0.0))
        one.end(new, now + 0.95, 0.45, waited(0.0))
    assert one.slots("m") == 1
    for now in range(20, 23):
        old = one.start("m", float(now), resident=True)
        new = one.start("m", now + 0.5, resident=True)
        one.end(new, now + 0.9, 0.4, waited(0.0))
        one.end(old, now + 0.95, 0.95, waited(0.0))
    assert one.slots("m") == 2


def test_a_wait_that_says_less_than_is_known_changes_nothing() -> None:
    one = Parallelism(cap=6, host=6, models={})
    pair = [one.start("n", 0.0, resident=True) for _ in range(2)]
    one.end(pair[1], 2.0, 2.0, waited(1.0))
    assert one.slots("n") == 1
    one.end(pair[0], 2.0, 2.0, waited(0.0))
    crowd = [one.start("n", 3.0, resident=True) for _ in range(3)]
    one.end(crowd[2], 6.0, 3.0, waited(2.0))
    one.end(crowd[1], 6.0, 3.0, waited(0.0))
    assert one.slots("n") == 1


def test_a_call_that_took_anothers_place_is_no_more_company() -> None:
    one = Parallelism(cap=6, host=6, models={})
    flights = [one.start("m", float(number), resident=True) for number in range(5)]
    one.end(flights.pop(), 5.0, 1.0, waited(0.0))
    assert one.slots("m") == 5
    waiting = one.start("m", 6.0, resident=True)
    # Hardly has it begun when the oldest ends and makes room for another.
    one.end(flights.pop(0), 6.02, 6.0, waited(0.0))
    one.start("m", 6.03, resident=True)
    one.end(waiting, 8.0, 2.0, waited(0.2))
    assert one.slots("m") == 4


def test_how_many_certainly_wait_inside_is_told() -> None:
    one = Parallelism(cap=6, host=6, models={})
    pair = [one.start("m", 0.0, resident=True) for _ in range(2)]
    assert one.inside == 0, "nobody knows yet"
    one.end(pair[1], 2.0, 2.0, waited(1.0))
    one.start("m", 2.5, resident=True)
    assert one.inside == 1
