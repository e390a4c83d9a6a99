"""SIGKILL at any moment: no call that was sent is lost, and few are counted that were not."""

from __future__ import annotations

import random
from pathlib import Path

from support.kills import CLIENTS, Load, kill_again_and_again


async def test_a_killed_proxy_has_counted_what_it_sent(tmp_path: Path) -> None:
    chance = random.Random(7)

    async def moment(load: Load) -> None:
        await load.until_answered(chance.randrange(1, 60))

    lives = await kill_again_and_again(tmp_path, 4, moment)
    assert len(lives) == 4
    for life in lives:
        assert life.lost == 0
        assert life.over <= life.in_flight <= CLIENTS
        assert life.answered <= life.counted
