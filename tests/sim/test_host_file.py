"""A host's figures as JSON, and what is said of those that are none."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_sim import shipped
from modelsplit_sim.host_file import HostError, host_fields, host_of

RAW: dict[str, Any] = {
    "name": "mine",
    "vram_gb": 12,
    "batching": 0.2,
    "models": {"Qwen3:4B": {"ms_per_token": 14, "load_ms": 2500, "gb": 3.5}},
}


def test_a_models_name_may_be_spelled_as_ollama_reads_it() -> None:
    host = host_of(RAW)
    assert host.of("qwen3:4b").gb == 3.5
    assert (host.vram_gb, host.batching, host.num_parallel) == (12, 0.2, 1)


def test_what_one_more_context_takes_is_read_and_counted() -> None:
    small, large = ({"ms_per_token": 14, "load_ms": 1, "gb": gb, "slot_gb": 1.5} for gb in (4, 6))
    host = host_of(RAW | {"num_parallel": 2, "models": {"small": small, "large": large}})
    assert {name: model.slot_gb for name, model in host.models.items()} == {
        "small": 1.5,
        "large": 1.5,
    }
    sizes = {
        slots: [model.gb for model in host.with_slots(slots).models.values()]
        for slots in (1, 2, 3, 4)
    }
    assert sizes == {1: [2.5, 4.5], 2: [4.0, 6.0], 3: [5.5, 7.5], 4: [7.0, 9.0]}
    # 80 % of what the other one leaves of 12 GB.
    fit = {
        slots: host.with_slots(slots).has_room(small, 1, large)
        for slots, (small, large) in sizes.items()
    }
    assert fit == {1: True, 2: True, 3: False, 4: False}


def test_contexts_take_nothing_more_where_nobody_says_so() -> None:
    host = host_of(RAW)
    assert host.of("qwen3:4b").slot_gb == 0
    assert host.with_slots(8).of("qwen3:4b").gb == 3.5


@pytest.mark.parametrize("name", shipped.hosts())
def test_the_shipped_hosts_say_what_contexts_take(name: str) -> None:
    host = shipped.host(name)
    for model in host.models.values():
        assert 0 < model.slot_gb * host.num_parallel < model.gb


@pytest.mark.parametrize("name", ["", *shipped.hosts()])
def test_what_is_written_reads_as_the_same(name: str) -> None:
    host = (
        shipped.host(name)
        if name
        else host_of(RAW | {"neighbour": {"busy_s": 1, "idle_s": 2, "slowdown": 3}})
    )
    assert host_of(host_fields(host)) == host


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"speed": 1}, "speed is unknown; known are batching, "),
        ({"name": 3}, "name is no text"),
        ({"free": 1.5}, "free 1.5 is no whole number"),
        ({"vram_gb": "12"}, "vram_gb is no number"),
        ({"ms_per_token": 0}, "ms_per_token 0 is too small"),
        ({"contention": -1}, "contention -1 is too small"),
        ({"mute_while_loading": 1}, "mute_while_loading is neither true nor false"),
        ({"gpu_share": "all"}, "gpu_share is no number"),
        ({"models": []}, "models is no object"),
        ({"models": {"m": {"ms_per_token": 1}}}, "models.m: missing 1 required"),
        ({"models": {"m": {"tokens": 1}}}, "models.m.tokens is unknown"),
        ({"models": {"m": {"slot_gb": -0.5}}}, "models.m.slot_gb -0.5 is too small"),
        ({"models": {"m": {"blob": 7}}}, "models.m.blob is no text"),
        ({"models": {"m": {"slot_gb": "1"}}}, "models.m.slot_gb is no number"),
        ({"models": {"m": {"slot_gb": None}}}, "models.m.slot_gb is no number"),
        ({"neighbour": 3}, "neighbour is no object"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(HostError) as error:
        host_of(RAW | change)
    assert str(error.value).startswith(says)


def test_a_host_has_a_name() -> None:
    with pytest.raises(HostError, match="name is missing"):
        host_of({})
