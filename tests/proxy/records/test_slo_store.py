"""What is written for objectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from modelsplit_policy.slo.samples import DOCUMENT_BASELINE, Opinion, Review
from modelsplit_proxy.records import slo_store
from modelsplit_proxy.records.slo_data import SloData
from support.slo_history import COMPARED, NOW_US, heartbeat
from support.stores import execute, opened

if TYPE_CHECKING:
    from pathlib import Path

    from modelsplit_proxy.storage.writer import Store


def kept(store: Store, write: Callable[..., None], *values: object) -> None:
    store.submit(lambda db: write(db, *values)).result()


def test_of_two_heartbeats_in_a_minute_the_later_counts(tmp_path: Path) -> None:
    """A process that is back in the same minute has not drained."""
    with opened(tmp_path) as store:
        for beat in (heartbeat(NOW_US, drained=True), heartbeat(NOW_US + 9, run="next")):
            kept(store, slo_store.keep_heartbeat, beat)
        [found] = SloData(store.read).heartbeats(0, NOW_US + 10)
    assert (found.run, found.drained, found.at_us) == ("next", False, NOW_US + 9)


def test_a_second_verdict_takes_the_place_of_the_first(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for opinion in (Opinion.GOOD, Opinion.BAD):
            review = Review("r", NOW_US, opinion)
            kept(store, slo_store.keep_review, review, 7, "failure_analysis")
        assert SloData(store.read).reviews(0) == [Review("r", NOW_US, Opinion.BAD)]
    assert execute(tmp_path, "SELECT at_us, purpose FROM reviews") == [(7, "failure_analysis")]


def test_the_last_baseline_counts_and_those_before_it_stay(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for baseline in (DOCUMENT_BASELINE, COMPARED, replace(COMPARED, source="newer")):
            kept(store, slo_store.keep_baseline, baseline, 1)
        found = SloData(store.read).baseline()
    assert found == replace(COMPARED, source="newer")
    assert execute(tmp_path, "SELECT count(*) FROM baselines") == [(3,)]
