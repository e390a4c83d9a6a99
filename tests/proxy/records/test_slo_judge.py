"""The running proxy judges what it has kept, one report at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelsplit_policy.config.parser import parse
from modelsplit_policy.slo.report import Verdict
from modelsplit_proxy.records import slo_judge as module
from modelsplit_proxy.records.recorder import Recorder
from modelsplit_proxy.records.slo_judge import SloJudge
from modelsplit_proxy.storage.state_file import StoreError
from support.slo_history import NOW_US, passing, write
from support.stores import opened

SLO = parse(json.loads((Path(__file__).parents[3] / "config/model-policy.json").read_text())).slo


class Clock:
    """The wall says the end of the made-up week."""

    def __init__(self, step_s: float = 0.0) -> None:
        self._step_s = step_s
        self._now = 0.0

    def now(self) -> float:
        self._now += self._step_s
        return self._now

    def wall(self) -> float:
        return NOW_US / 1e6


async def test_a_made_up_week_passes(tmp_path: Path) -> None:
    write(tmp_path, passing())
    with opened(tmp_path) as store:
        judge = SloJudge(SLO, Recorder(store), store, Clock())
        report = await judge.report()
        alone = await judge.report(86_400, {2})
    assert report.verdict is Verdict.PASS
    assert [gate.number for gate in alone.gates] == [2]
    assert alone.gates[0].findings[0].n == 720


async def test_it_ends_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_S", 2.0)
    with opened(tmp_path) as store:
        judge = SloJudge(SLO, Recorder(store), store, Clock(step_s=1.0))
        with pytest.raises(StoreError, match=r"too long here; `modelsplit slo --state /.*` reads"):
            await judge.report()


async def test_a_process_that_ends_waits_for_no_report(tmp_path: Path) -> None:
    write(tmp_path, passing(days=1))
    with opened(tmp_path) as store:
        judge = SloJudge(SLO, Recorder(store), store, Clock())
        judge.close()
        with pytest.raises(StoreError, match="not judged while the process ends"):
            await judge.report()
