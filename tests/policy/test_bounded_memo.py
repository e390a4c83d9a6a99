"""What clients can name is remembered within bounds."""

from __future__ import annotations

from modelsplit_policy.bounded_memo import MOST, NAME_MAX, BoundedMemo


def test_what_is_kept_is_there_and_given_back() -> None:
    known: BoundedMemo[str, int] = BoundedMemo()
    assert known.keep("a", "a", 1) == 1
    assert known == {"a": 1}


def test_there_are_never_more_than_so_many_and_the_newest_is_one_of_them() -> None:
    known: BoundedMemo[int, int] = BoundedMemo()
    for number in range(3 * MOST + 1):
        known.keep(str(number), number, number)
        assert len(known) <= MOST
        assert known[number] == number


def test_an_endless_name_is_not_kept_and_drives_nobody_out() -> None:
    known: BoundedMemo[str, int] = BoundedMemo()
    known.keep("a", "a", 1)
    assert known.keep("x" * (NAME_MAX + 1), "endless", 2) == 2
    assert known == {"a": 1}
    known.keep("x" * NAME_MAX, "long", 3)
    assert known["long"] == 3
