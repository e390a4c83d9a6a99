"""What several hosts have installed, as one list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from modelsplit_policy.loaded_models import Listed
from modelsplit_proxy.watch.fleet_model_list import FleetModelList
from modelsplit_proxy.watch.model_list import ModelList


class Known:
    """A host's list; None: it does not say."""

    def __init__(self, rows: Mapping[str, str] | None, *had: str) -> None:
        self._rows = rows
        self._had = had
        self.outdated = False

    def may_have(self, model: str) -> bool:
        return self._rows is None and model in self._had

    def names(self) -> list[str]:
        return list(self._rows or {})

    def outdate(self) -> None:
        self.outdated = True

    async def since(self, moment: float) -> Mapping[str, Listed] | None:
        del moment
        rows = self._rows
        return None if rows is None else {name: Listed(name, rows[name]) for name in rows}

    async def details(self, model: Listed) -> bytes:
        return f"{model.name} of {sorted(self._rows or {})}".encode()


def together(**lists: Known) -> FleetModelList:
    return FleetModelList(cast("dict[str, ModelList]", lists))


async def test_the_list_is_the_union_and_the_first_host_is_told_of() -> None:
    both = together(a=Known({"m": "1", "n": "2"}), b=Known({"m": "3", "k": "4"}))
    found = await both.since(0.0)
    assert found is not None
    assert {name: row.digest for name, row in found.items()} == {"m": "1", "n": "2", "k": "4"}
    assert both.names() == ["m", "n", "k"]


async def test_a_host_that_does_not_say_is_left_out() -> None:
    assert await together(a=Known(None), b=Known(None)).since(0.0) is None
    found = await together(a=Known(None), b=Known({"m": "1"})).since(0.0)
    assert list(found or ()) == ["m"]


async def test_a_model_is_asked_about_where_it_is() -> None:
    both = together(a=Known({"n": "1"}), b=Known({"m": "2"}))
    assert await both.details(Listed("m", "2")) == b"m of ['m']"
    assert await both.details(Listed("k", "3")) is None


def test_all_of_them_are_asked_anew() -> None:
    near, far = Known({}), Known({})
    both = together(a=near, b=far)
    both.outdate()
    assert (near.outdated, far.outdated) == (True, True)
    assert both.differs(b"{}") is False


async def test_of_a_model_that_nobody_lists_the_silent_hosts_may_be_asked_for() -> None:
    both = together(a=Known(None, "m"), b=Known({"n": "1"}), c=Known(None))
    assert both.silent_about("m") == ("a",)
    assert both.silent_about("n") == ()
