"""Classes of fields that say what a module needs."""

from __future__ import annotations

import pytest

from modelsplit_proxy.runtime.parts import parts


@parts
class Shelf:
    """What stands on it."""

    books: int
    lamp: bool = False


def test_it_is_filled_by_position_or_by_name_and_has_nothing_else() -> None:
    assert Shelf(3).books == Shelf(books=3).books == 3
    assert not Shelf(3).lamp
    with pytest.raises(TypeError):
        Shelf()  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Shelf(3).cup = 1  # type: ignore[attr-defined]


def test_each_is_itself_alone() -> None:
    shelf = Shelf(3)
    assert shelf == shelf  # noqa: PLR0124
    assert shelf != Shelf(3)
    assert len({shelf, Shelf(3)}) == 2
