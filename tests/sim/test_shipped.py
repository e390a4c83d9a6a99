"""What is shipped for simulations can be read, and is what the documents say."""

from __future__ import annotations

import pytest

from modelsplit_sim import shipped
from modelsplit_sim.replay.run import Contender, missing_figures, play
from support.replays import rules


@pytest.mark.parametrize("name", shipped.workloads())
def test_each_workload_runs_on_its_host(name: str) -> None:
    workload, host = shipped.workload(name)
    contender = Contender("x", rules())
    traffic = workload.drawn(1, load=0.1)
    assert missing_figures(contender, host, traffic.demands) == []
    assert missing_figures(Contender("x", rules(), ""), host, traffic.demands) == []
    played = play(contender, host, traffic, 1)
    assert played.calls
    assert all(call.ended is not None for call in played.calls)


def test_what_is_not_shipped_is_told_with_what_is() -> None:
    with pytest.raises(shipped.UnknownNameError, match="burst, chat-heavy, mission"):
        shipped.workload("day")
    with pytest.raises(shipped.UnknownNameError, match="gpu-12gb, gpu-24gb"):
        shipped.host("laptop")
