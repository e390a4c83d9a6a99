"""A row a minute says that the process is there and what it holds."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from modelsplit_policy.slo.heartbeat import Heartbeat
from modelsplit_proxy.records.slo_data import SloData
from modelsplit_proxy.runtime.loop_lag import LoopLag
from modelsplit_proxy.runtime.tasks import Tasks
from modelsplit_proxy.storage.writer import Store
from modelsplit_proxy.watch.heartbeat import HeartbeatKeeper, Held, held
from support.fake_time import passes
from support.stores import opened
from support.waiting import until

NOW = 1_795_393_740.0


class Clock:
    """The wall stands still, unless somebody moves it."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> float:
        return 0.0

    def wall(self) -> float:
        return self.at


def beats(store: Store) -> list[Heartbeat]:
    assert store.catch_up(3600)
    return SloData(store.read).heartbeats(0, round(2e6 * NOW))


async def test_the_first_comes_at_once_and_says_what_is_held(tmp_path: Path) -> None:
    lag = LoopLag()
    lag.observe(0.25)
    with opened(tmp_path) as store:
        keeper = HeartbeatKeeper(store, lag, Clock(), 1000, "run-1")
        tasks = Tasks()
        tasks.keep(keeper.watch, "heartbeat")
        await until(lambda: bool(beats(store)))
        await tasks.close()
        [beat] = beats(store)
        size = (store.path.stat().st_size, 0)
    assert (beat.run, beat.drained, beat.at_us) == ("run-1", False, round(NOW * 1e6))
    assert (beat.state_limit_bytes, beat.lag_p99_us) == (1000, 250_000)
    assert beat.rss_bytes is not None
    assert beat.rss_bytes > 1_000_000
    assert beat.descriptors is not None
    assert beat.descriptors > 3
    assert beat.tasks is not None
    assert beat.state_bytes is not None
    assert beat.state_bytes >= size[0] > 0


async def test_the_last_one_of_a_process_that_drained_says_so(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        keeper = HeartbeatKeeper(store, LoopLag(), Clock(), 1000, "run-1")
        keeper.drained()
        [beat] = beats(store)
    assert (beat.drained, beat.rss_bytes, beat.lag_p99_us) == (True, None, None)


@pytest.mark.fake_time
async def test_one_comes_in_every_minute(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path) as store:
        keeper = HeartbeatKeeper(store, LoopLag(), clock, 1000, "run-1")
        tasks = Tasks()
        tasks.keep(keeper.watch, "heartbeat")
        await until(lambda: bool(beats(store)))
        for minute in (1, 2):
            clock.at = NOW + 60 * minute + 30
            while len(beats(store)) <= minute:
                await passes(1)
                await asyncio.sleep(0)
        await tasks.close()
        minutes = [beat.at_us // 60_000_000 for beat in beats(store)]
    assert minutes == [*range(minutes[0], minutes[0] + 3)]


def test_what_the_system_does_not_say_is_not_known(tmp_path: Path) -> None:
    assert held(tmp_path / "nothing", tmp_path / "no-proc") == Held(None, None, None)
    (tmp_path / "statm").write_text("12")
    assert held(tmp_path / "nothing", tmp_path).rss_bytes is None


def test_the_log_of_the_state_file_counts_as_well(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"x" * 10)
    assert held(tmp_path / "state").state_bytes == 10
    (tmp_path / "state-wal").write_bytes(b"x" * 5)
    assert held(tmp_path / "state").state_bytes == 15


def test_descriptors_are_counted(tmp_path: Path) -> None:
    before = held(tmp_path).descriptors
    reader, writer = os.pipe()
    try:
        assert held(tmp_path).descriptors == (before or 0) + 2
    finally:
        os.close(reader)
        os.close(writer)
