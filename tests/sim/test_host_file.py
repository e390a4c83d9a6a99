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
        ({"models": []}, "models is no object"),
        ({"models": {"m": {"ms_per_token": 1}}}, "models.m: missing 1 required"),
        ({"models": {"m": {"tokens": 1}}}, "models.m.tokens is unknown"),
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
