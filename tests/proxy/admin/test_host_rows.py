"""The hosts as a table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from modelsplit_proxy.admin import host_rows


def row(**changes: object) -> dict[str, object]:
    return {
        "name": "big",
        "address": "http://10.0.0.7:11434",
        "state": "up",
        "running": 1,
        "seats": 6,
        "useful": 2,
        "tier": 1,
        "version": "0.33.0",
        "loaded": ["qwen3:8b"],
    } | changes


def test_a_line_for_each_host_and_none_without_hosts() -> None:
    head, first, second = host_rows.lines(
        [row(), row(name="s", state="away", version=None, loaded=None)]
    )
    assert head.split() == [
        "HOST",
        "STATE",
        "RUN/CAP",
        "USEFUL",
        "TIER",
        "OLLAMA",
        "LOADED",
        "ADDRESS",
    ]
    assert first.split() == [
        *("big", "up", "1/6", "2", "1", "0.33.0", "qwen3:8b", "http://10.0.0.7:11434")
    ]
    assert second.split()[:7] == ["s", "away", "1/6", "2", "1", "-", "unknown"]


def test_a_host_whose_breaker_is_open_is_told_so_and_one_that_is_away_is_away() -> None:
    told = [
        row(stopped=[""]),
        row(stopped=["qwen3:8b"]),
        row(stopped=["", "qwen3:8b"], state="hangs"),
    ]
    assert [line.split()[1] for line in list(host_rows.lines(told))[1:]] == [
        *("breaker", "up", "hangs")
    ]


def test_the_one_upstream_is_no_host() -> None:
    alone = cast("Any", SimpleNamespace(fleet=None))
    assert host_rows.rows(alone) == host_rows.whole_rows(alone) == []
