"""How the state file does, for people and for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from modelsplit_proxy.metrics.storage import StoreMetrics, fields
from modelsplit_proxy.records.recorder import Recorder
from modelsplit_proxy.storage.state_file import FILE_NAME
from support.stores import opened

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_that_is_well(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert fields(store, Recorder(store)) == {
            "error": None,
            "waiting": 0,
            "dropped": 0,
            "checked": True,
            "set_aside": None,
            "counts_lost_at": None,
        }


def test_a_damaged_file_shows_until_the_next_start_and_its_loss_for_ever(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1000)
    with opened(tmp_path) as store:
        said = fields(store, Recorder(store))
        assert said["set_aside"].startswith(f"{FILE_NAME}.corrupt-")
        assert store.lost_at is not None
        registry = CollectorRegistry()
        registry.register(StoreMetrics(store, Recorder(store)))
        assert registry.get_sample_value("modelsplit_state_replaced") == 1
        assert registry.get_sample_value("modelsplit_state_error") == 0
        assert registry.get_sample_value("modelsplit_records_dropped_total") == 0
    with opened(tmp_path) as store:
        again = fields(store, Recorder(store))
        assert again["set_aside"] is None
        assert again["counts_lost_at"] == said["counts_lost_at"]
