"""One role's seats, and how long its calls take."""

from __future__ import annotations

import pytest

from modelsplit_policy.pools import FORECAST_NEEDS, MODELS_MAX, Pool, PoolLimits


def test_seats_are_kept_for_a_role_that_has_reserved_them_and_does_not_use_them() -> None:
    pool = Pool(PoolLimits(seats=3, max_queue=9, reserved=2))
    assert (pool.kept, pool.claims()) == (2, True)
    assert [pool.moved(1), pool.moved(1), pool.moved(1)] == [-1, -1, 0]
    assert (pool.kept, pool.claims()) == (0, False)
    assert pool.moved(-1) == 0
    assert pool.moved(-1) == 1


def test_a_role_that_lends_its_seats_keeps_none() -> None:
    pool = Pool(PoolLimits(seats=3, max_queue=9, reserved=2, lends=True))
    assert (pool.kept, pool.claims(), pool.moved(1)) == (0, True, 0)


def test_how_long_calls_take_is_known_by_model_and_the_latest_count_most() -> None:
    pool = Pool(PoolLimits(seats=None, max_queue=9))
    assert pool.length_s("m") == pool.service_s == 1.0
    assert pool.known_length_s("m") is None
    for _ in range(4):
        pool.served("m", 4.0)
    assert pool.length_s("m") == pool.known_length_s("m") == 4.0
    assert pool.known_length_s("other") is None
    assert pool.length_s("other") == pool.service_s < 4.0
    for _ in range(20):
        pool.served("m", 2.0)
    assert pool.length_s("m") == pytest.approx(2.0, abs=0.1)


def test_a_wait_is_foreseen_from_the_sixteenth_call_of_a_model_on() -> None:
    pool = Pool(PoolLimits(seats=None, max_queue=9))
    for number in range(FORECAST_NEEDS):
        assert not pool.foresees("m"), number
        pool.served("m", 1.0)
    assert pool.foresees("m")
    assert not pool.foresees("n")


def test_model_names_that_clients_invent_are_not_remembered_for_ever() -> None:
    pool = Pool(PoolLimits(seats=None, max_queue=9))
    for number in range(2 * MODELS_MAX):
        pool.served(f"invented-{number}", 1.0)
    assert len(pool.services) == MODELS_MAX
