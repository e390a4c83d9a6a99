"""Minutes with a heartbeat, without one, and those of a restart in good order."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.slo.heartbeat import Heartbeat
from modelsplit_policy.slo.uptime import MINUTE_US, RESTART_MINUTES, Uptime, uptime

NOW = 1000 * MINUTE_US


def beats(*minutes: int, drained: tuple[int, ...] = ()) -> list[Heartbeat]:
    return [Heartbeat(minute * MINUTE_US + 7, "a", drained=minute in drained) for minute in minutes]


def test_every_minute_since_the_first_heartbeat_is_there() -> None:
    assert uptime(beats(*range(990, 1001)), 0, NOW) == Uptime(10, 0, 0)


def test_a_minute_without_a_heartbeat_is_downtime() -> None:
    seen = uptime(beats(995, 996, 999), 0, NOW)
    assert seen == Uptime(3, 2, 0, (997 * MINUTE_US,))


def test_a_process_that_is_gone_is_down_until_now() -> None:
    assert uptime(beats(990, 991), 0, NOW) == Uptime(2, 8, 0, (992 * MINUTE_US,))


def test_a_restart_in_good_order_is_set_apart() -> None:
    seen = uptime(beats(990, 993, *range(994, 1000), drained=(990,)), 0, NOW)
    assert seen == Uptime(8, 0, 2)


def test_a_stop_that_lasts_is_no_restart() -> None:
    back = 980 + RESTART_MINUTES
    assert uptime(beats(979, *range(back, 1000), drained=(979,)), 0, NOW).apart == RESTART_MINUTES
    late = uptime(beats(979, *range(back + 1, 1000), drained=(979,)), 0, NOW)
    assert (late.apart, late.missing) == (0, RESTART_MINUTES + 1)


def test_the_longest_downtime_comes_first() -> None:
    seen = uptime(beats(980, 982, 990, *range(991, 1000)), 0, NOW)
    assert seen.down_at_us == (983 * MINUTE_US, 981 * MINUTE_US)


def test_what_was_before_the_window_or_before_the_first_heartbeat_does_not_count() -> None:
    assert uptime(beats(*range(1000)), 995 * MINUTE_US, NOW) == Uptime(5, 0, 0)
    # A window that begins inside a minute begins with the next whole one.
    assert uptime(beats(*range(1000)), 995 * MINUTE_US + 1, NOW).present == 4


def test_without_heartbeats_nothing_is_known() -> None:
    assert uptime([], 0, NOW) == Uptime(0, 0, 0)


@given(
    minutes=st.sets(st.integers(900, 999), min_size=1),
    drained=st.sets(st.integers(900, 999)),
    gone=st.integers(900, 999),
)
def test_minutes_add_up_and_a_lost_heartbeat_never_helps(
    minutes: set[int], drained: set[int], gone: int
) -> None:
    all_beats = beats(*sorted(minutes), drained=tuple(drained))
    seen = uptime(all_beats, 0, NOW)
    assert seen.present + seen.missing + seen.apart == 1000 - min(minutes)
    without = [beat for beat in all_beats if beat.at_us // MINUTE_US != gone]
    if gone not in {min(minutes), max(minutes)} and gone not in drained:
        fewer = uptime([replace(beat) for beat in without], 0, NOW)
        assert fewer.present <= seen.present
        assert fewer.missing + fewer.apart >= seen.missing + seen.apart
