"""Jobs in processes of their own come to what they come to in this one."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial

import pytest

from modelsplit_proxy.runtime.side_by_side import cores, results

# What other tests have left running in this process takes no part in what is tried here.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
HERE = os.getpid()


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def test_each_has_a_process_of_its_own_and_their_order_is_kept() -> None:
    told: list[int] = []
    found = results(2, [partial(square, number) for number in range(5)], told.append)
    assert [value for value, _ in found] == [0, 1, 4, 9, 16]
    assert len({pid for _, pid in found} - {HERE}) == 5
    assert told == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("jobs", "at_once"), [(3, 1), (1, 4)])
def test_one_after_the_other_needs_none(jobs: int, at_once: int) -> None:
    found = results(at_once, [partial(square, number) for number in range(jobs)])
    assert {pid for _, pid in found} == {HERE}


def test_what_one_raises_is_raised_here() -> None:
    def fails() -> int:
        raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        results(2, [fails, lambda: 1])


def test_what_a_process_that_was_killed_had_to_do_is_done_here() -> None:
    def dies_elsewhere() -> int:
        if os.getpid() != HERE:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    assert results(2, [dies_elsewhere, dies_elsewhere]) == [HERE, HERE]


def test_beside_other_threads_no_process_is_split_off() -> None:
    ends = threading.Event()
    thread = threading.Thread(target=ends.wait)
    thread.start()
    try:
        assert cores() == 1
    finally:
        ends.set()
        thread.join()
    assert cores() >= 1
