"""What had been counted a while ago, and how much of it is kept."""

from __future__ import annotations

from modelsplit_proxy.metrics.copies import Copies


def test_the_oldest_is_as_old_as_the_length_or_the_first_there_was() -> None:
    copies: Copies[str] = Copies(30.0)
    for at, counted in ((0.0, "a"), (10.0, "b"), (20.0, "c")):
        copies.keep(at, counted)
    assert copies.oldest(25.0) == (0.0, "a")
    assert copies.oldest(39.9) == (0.0, "a")
    assert copies.oldest(40.0) == (10.0, "b")


def test_before_is_the_latest_that_is_so_old() -> None:
    copies: Copies[str] = Copies(300.0)
    for at, counted in ((0.0, "a"), (10.0, "b"), (20.0, "c")):
        copies.keep(at, counted)
    assert [copies.before(25.0, age) for age in (0.0, 5.0, 5.1, 15.0, 99.0)] == [*"ccbba"]


def test_copies_too_close_to_the_last_are_not_kept() -> None:
    copies: Copies[str] = Copies(300.0, apart_s=9.9)
    for at, counted in ((0.0, "a"), (9.8, "b"), (9.9, "c")):
        copies.keep(at, counted)
    assert [copies.before(10.0, age) for age in (0.0, 0.15, 10.0)] == ["c", "a", "a"]
