"""What is made when somebody asks for it first."""

from __future__ import annotations

import asyncio
import threading

import pytest

from modelsplit_proxy.runtime.late import Late, ReplacedError


async def test_it_is_made_once_for_all_who_ask_at_the_same_time_and_not_on_the_loop() -> None:
    made: list[int] = []

    def make() -> object:
        made.append(threading.get_ident())
        return object()

    late = Late(make)
    assert late.made is None
    first, *others = await asyncio.gather(*(late.get() for _ in range(5)))
    assert all(other is first for other in others)
    assert await late.get() is first is late.made
    assert len(made) == 1
    assert made[0] != threading.get_ident()


async def test_what_cannot_be_made_is_tried_again() -> None:
    tries: list[int] = []

    def make() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("no such file")
        return "made"

    late = Late(make)
    with pytest.raises(OSError, match="no such file"):
        await late.get()
    assert await late.get() == "made"


async def test_files_that_were_replaced_under_the_process_are_told_as_that() -> None:
    def make() -> object:
        raise ImportError("cannot import name 'refused_by'")

    with pytest.raises(ReplacedError, match="have changed since it was started") as told:
        await Late(make).get()
    assert "cannot import name 'refused_by'; restart it" in str(told.value)
