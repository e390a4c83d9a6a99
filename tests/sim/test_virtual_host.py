"""The host in virtual time: what it does with calls, to the millisecond."""

from __future__ import annotations

import pytest

from modelsplit_sim.virtual_host import Answered, HostShape, Neighbour, VirtualHost, Work

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


def shape(**more: float) -> HostShape:
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
