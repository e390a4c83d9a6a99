"""What clients can name is remembered within bounds."""

from __future__ import annotations

from modelsplit_policy.remembered import MOST, NAME_MAX, Remembered


def test_what_is_kept_is_there_and_given_back() -> None:
    known: Remembered[str, int] = Remembered()
    assert known.keep("a", "a", 1) == 1
    assert known == {"a": 1}


def test_there_are_never_more_than_so_many_and_the_newest_is_one_of_them() -> None:
    known: Remembered[int, int] = Remembered()
    for number in range(3 * MOST + 1):
        known.keep(str(number), number, number)
        assert len(known) <= MOST
        assert known[number] == number


def test_an_endless_name_is_not_kept_and_drives_nobody_out() -> None:
    known: Remembered[str, int] = Remembered()
    known.keep("a", "a", 1)
    assert known.keep("x" * (NAME_MAX + 1), "endless", 2) == 2
    assert known == {"a": 1}
    known.keep("x" * NAME_MAX, "long", 3)
    assert known["long"] == 3
