"""A minute of a process, as it is kept."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from modelsplit_policy.slo.heartbeat import Heartbeat


def test_of_a_minute_no_more_need_be_known_than_when_and_whose_it_was() -> None:
    beat = Heartbeat(60_000_000, "run-1")
    assert (beat.drained, beat.rss_bytes, beat.state_limit_bytes) == (False, None, None)
    with pytest.raises(FrozenInstanceError):
        beat.run = "run-2"  # type: ignore[misc]
