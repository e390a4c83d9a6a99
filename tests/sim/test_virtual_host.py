"""The host in virtual time: what it does with calls, to the millisecond."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest

from modelsplit_sim.host_shape import HostShape, ModelShape, Neighbour
from modelsplit_sim.virtual_host import Answered, VirtualHost, Work

PLAIN = HostShape("plain", ms_per_token=10.0, prompt_ms=0.0, load_ms=500.0, spread=0.0)


def until_idle(host: VirtualHost) -> dict[Work, float]:
    """When each call was done."""
    ends: dict[Work, float] = {}
    while (at := host.next_at()) < float("inf"):
        for work in host.advance(at):
            ends[work] = round(host.now, 6)
            host.leave(work)
    return ends


def sent(host: VirtualHost, model: str, tokens: int = 100) -> Work:
    work = host.work(model, tokens, 1.0)
    host.send(work)
    return work


def shape(**more: Any) -> HostShape:
    fields = {name: getattr(PLAIN, name) for name in PLAIN.__slots__} | more
    return HostShape(**fields)


def test_a_call_alone_takes_its_tokens_time() -> None:
    host = VirtualHost(PLAIN, loaded=["m"])
    work = sent(host, "m")
    assert until_idle(host) == {work: 1.0}


@pytest.mark.parametrize(
    ("contention", "free", "end"), [(0.0, 1, 1.0), (1.0, 1, 2.0), (5.0, 1, 6.0), (0.5, 2, 1.0)]
)
def test_two_models_at_once_share_the_host_as_it_contends(
    contention: float, free: int, end: float
) -> None:
    host = VirtualHost(shape(contention=contention, free=free), loaded=["m", "n"])
    works = [sent(host, "m"), sent(host, "n")]
    assert until_idle(host) == dict.fromkeys(works, end)


def test_two_are_free_and_three_share() -> None:
    host = VirtualHost(shape(contention=0.5, free=2), loaded=["m", "n", "o"])
    works = [sent(host, model) for model in "mno"]
    assert until_idle(host) == dict.fromkeys(works, 1.5)


def test_a_call_beyond_a_models_slots_waits_inside_and_says_so_only_by_its_total() -> None:
    host = VirtualHost(PLAIN, loaded=["m"])
    for _ in range(2):
        sent(host, "m")
    ends: list[float] = []
    reports: list[Answered] = []
    while (at := host.next_at()) < float("inf"):
        for work in host.advance(at):
            ends.append(host.now)
            reports.append(host.report(work))
            host.leave(work)
    assert ends == pytest.approx([1.0, 2.0])
    assert [report.total_s for report in reports] == pytest.approx([1.001, 2.001])
    assert [report.eval_s for report in reports] == pytest.approx([1.0, 1.0])


def test_slots_are_as_many_as_num_parallel_says() -> None:
    host = VirtualHost(shape(num_parallel=2, contention=0.0), loaded=["m"])
    works = [sent(host, "m") for _ in range(3)]
    assert list(until_idle(host).values()) == [1.0, 1.0, 2.0]
    assert len(works) == 3


def test_a_model_that_is_not_loaded_is_loaded_and_the_oldest_idle_one_goes() -> None:
    host = VirtualHost(shape(max_loaded=2), loaded=["m", "n"])
    first = sent(host, "m")
    until_idle(host)
    cold = sent(host, "o")
    assert until_idle(host) == {cold: 2.5}
    assert host.loaded == {"m", "o"}
    assert (first.load_s, cold.load_s) == (0.0, 0.5)


def test_a_client_that_leaves_makes_room_at_once() -> None:
    host = VirtualHost(PLAIN, loaded=["m"])
    first, second = sent(host, "m"), sent(host, "m")
    host.advance(0.25)
    host.leave(first)
    assert until_idle(host) == {second: 1.25}


def test_the_prompt_is_read_before_the_answer_begins() -> None:
    host = VirtualHost(shape(prompt_ms=200.0), loaded=["m"])
    work = sent(host, "m")
    while not host.advance(host.next_at()):
        pass
    report = host.report(work)
    assert report.prompt_s == pytest.approx(0.2)
    assert report.eval_s == pytest.approx(1.0)


def test_a_neighbour_slows_everything_down_while_it_is_busy() -> None:
    fields = {name: getattr(PLAIN, name) for name in PLAIN.__slots__}
    host = VirtualHost(HostShape(**fields | {"neighbour": Neighbour(1e9, 1e-9, 2.0)}), loaded=["m"])
    work = sent(host, "m")
    assert until_idle(host)[work] == pytest.approx(2.0)


def swapping(**more: Any) -> VirtualHost:
    """Room for one of two models."""
    return VirtualHost(shape(max_loaded=1, **more), loaded=["m"])


def test_a_machine_that_drifts_has_another_speed_in_each_run() -> None:
    def took_s(seed: int, drift: float) -> float:
        host = VirtualHost(shape(drift=drift), seed, loaded=["m"])
        host.send(host.work("m", 100, pace=1.0))
        return host.next_at()

    assert [took_s(seed, 0.0) for seed in range(5)] == [1.0] * 5
    drawn = [math.log(took_s(seed, 0.1)) for seed in range(200)]
    assert drawn[:5] == [math.log(took_s(seed, 0.1)) for seed in range(5)]
    assert statistics.stdev(drawn) == pytest.approx(0.1, rel=0.1)
    for some in (drawn[1:6], drawn[1:11], drawn[1:21], drawn):
        assert statistics.fmean(some) == pytest.approx(0.0, abs=0.03), "no luck of a few seeds"


def test_a_load_holds_up_all_loads_behind_it_and_no_call_for_a_loaded_model() -> None:
    host = VirtualHost(shape(max_loaded=3, contention=0.0), loaded=["m"])
    cold, colder, warm = (sent(host, model) for model in ("n", "o", "m"))
    ends = until_idle(host)
    assert ends == {warm: 1.0, cold: 1.5, colder: 2.0}
    assert (cold.load_s, colder.load_s) == (0.5, 1.0), (
        "the wait for the other's load is told as its own"
    )
    assert host.loads == {"n": 1, "o": 1}


def test_a_busy_model_is_unloaded_when_it_comes_to_rest_and_serves_its_own_till_then() -> None:
    host = swapping()
    running, other = sent(host, "m"), sent(host, "n")
    host.advance(0.5)
    late = sent(host, "m")
    ends = until_idle(host)
    assert ends == {running: 1.0, late: 2.0, other: 3.5}
    assert host.loaded == {"n"}


@pytest.mark.parametrize(
    ("blobs", "stays"),
    [({}, "n"), ({"m": "b", "n": "a"}, "m"), ({"m": "a", "n": "b"}, "n"), ({"m": "a"}, "m")],
    ids=["the older one", "n's file is first", "m's file is first", "only one is known"],
)
def test_who_makes_room_is_told_by_its_file_or_else_by_its_last_use(
    blobs: dict[str, str], stays: str
) -> None:
    models = {name: ModelShape(10.0, 500.0, blob=blobs.get(name, "")) for name in "mno"}
    host = VirtualHost(shape(max_loaded=2, models=models), loaded=["m", "n"])
    for model in "mno":
        sent(host, model)
        until_idle(host)
    assert host.loaded == {stays, "o"}


def test_a_client_that_leaves_its_load_ends_it_and_the_next_begins() -> None:
    host = VirtualHost(shape(max_loaded=2), loaded=["m"])
    gone, next_one = sent(host, "n"), sent(host, "o")
    host.advance(0.25)
    host.leave(gone)
    assert until_idle(host) == {next_one: 1.75}
    assert host.loaded == {"m", "o"}


def test_the_queue_for_loads_is_bounded_and_waiters_of_a_loaded_model_are_not() -> None:
    host = swapping(max_queue=2)
    assert all(host.send(host.work("m", 10, 1.0)) for _ in range(20))
    assert [host.send(host.work(model, 10, 1.0)) for model in "nopq"] == [True, True, True, False]


def test_an_idle_model_is_unloaded_after_its_time() -> None:
    host = VirtualHost(shape(keep_alive_s=60.0), loaded=["m"])
    sent(host, "m")
    assert until_idle(host)
    assert (host.now, host.loaded) == (61.0, frozenset())


def test_models_must_fit_the_memory_with_room_to_spare() -> None:
    models = {name: ModelShape(10.0, 500.0, gb=gb) for name, gb in (("m", 5), ("n", 5), ("o", 8))}
    host = VirtualHost(shape(vram_gb=12.0, models=models), loaded=["m"])
    fits = sent(host, "n")
    until_idle(host)
    assert host.loaded == {"m", "n"}, "5 of the 7 that are free"
    sent(host, "o")
    until_idle(host)
    assert host.loaded == {"o"}, "8 of the 7 that one would leave"
    assert fits.load_s == 0.5


def test_what_does_not_fit_the_memory_at_all_is_slower_by_what_is_left_out() -> None:
    models = {"m": ModelShape(10.0, 500.0, gb=16.0)}
    host = VirtualHost(shape(vram_gb=12.0, offload=9.0, models=models), loaded=["m"])
    work = sent(host, "m")
    assert until_idle(host) == {work: 3.0}, "a quarter of it takes nine times as long"


@pytest.mark.parametrize(
    ("fields", "share"),
    [
        ({}, None),
        ({"gpu_share": 0.0}, 0.0),
        ({"vram_gb": 24.0}, 1.0),
        ({"vram_gb": 12.0}, 0.75),
        ({"vram_gb": 24.0, "gpu_share": 0.0}, 0.0),
    ],
)
def test_how_much_of_a_model_is_in_a_gpu_is_what_fits_unless_it_says_otherwise(
    fields: dict[str, float], share: float | None
) -> None:
    models = {"m": ModelShape(10.0, 500.0, gb=16.0)}
    host = VirtualHost(shape(models=models, **fields), loaded=["m"])
    assert host.share_on_gpu("m") == share


def test_calls_of_one_runner_are_batched_and_runners_share_the_machine() -> None:
    host = VirtualHost(shape(num_parallel=2, contention=1.0, batching=0.25), loaded=["m", "n"])
    first, second = sent(host, "m"), sent(host, "m")
    assert until_idle(host) == dict.fromkeys((first, second), 1.25)
    third, fourth, other = sent(host, "m"), sent(host, "m"), sent(host, "n")
    ends = until_idle(host)
    assert ends == {other: 3.25, third: 3.5, fourth: 3.5}


def test_a_runner_remembers_a_prompt_until_it_is_unloaded() -> None:
    models = {"m": ModelShape(10.0, 500.0, prompt_ms_per_token=1.0)}
    host = VirtualHost(shape(models=models, keep_alive_s=10.0), loaded=["m"])
    times = []
    for _ in range(2):
        work = host.work("m", 100, 1.0, prompt_tokens=800, known_tokens=600)
        began = host.now
        host.send(work)
        while not host.advance(host.next_at()):
            pass
        times.append(round(host.now - began, 6))
        host.leave(work)
        until_idle(host)
    assert times == [1.2, 2.3], "the second is read whole, and loaded for"


def test_the_first_token_of_a_stream_is_a_moment_of_its_own() -> None:
    host = VirtualHost(shape(prompt_ms=200.0), loaded=["m"])
    work = host.work("m", 100, 1.0)
    work.streams = True
    host.send(work)
    assert not host.advance(host.next_at())
    assert host.begun == [work]
    assert host.now == pytest.approx(0.2)
    assert host.advance(host.next_at()) == [work]


def test_a_runner_that_dies_takes_its_calls_along_and_is_loaded_anew() -> None:
    host = VirtualHost(PLAIN, loaded=["m"])
    first, second = sent(host, "m"), sent(host, "m")
    host.advance(0.5)
    assert host.crash("m") == [first, second]
    assert host.loaded == {"m"}, "it stays listed"
    third = sent(host, "m")
    assert until_idle(host) == {third: 2.0}


def test_runners_die_so_often_while_they_compute() -> None:
    host = VirtualHost(shape(crash_every_s=50.0, keep_alive_s=1e9), loaded=["m"])
    lost = 0
    for _ in range(400):
        sent(host, "m")
        while host.running or host.is_loading:
            for work in host.advance(host.next_at()):
                host.leave(work)
            lost += len(host.crashed)
    assert 3 <= lost <= 16, "about one in fifty calls of a second"
