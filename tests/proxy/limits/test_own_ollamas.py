"""Whether two modelsplits ask the same Ollama."""

from __future__ import annotations

import pytest

from modelsplit_proxy.limits import own_ollamas
from modelsplit_proxy.limits.own_ollamas import OwnOllamas, copies, marks_of


async def test_an_address_of_this_machine_is_one_by_every_name() -> None:
    here = [("127.0.0.1", 11434), ("localhost", 11434), ("0.0.0.0", 11434)]
    marks = [set(await marks_of([upstream], "boot", None)) for upstream in here]
    assert marks[0]
    assert all(mark == marks[0] for mark in marks)
    assert set(await marks_of([("127.0.0.1", 11435)], "boot", None)).isdisjoint(marks[0])
    # Another machine, and another container.
    assert set(await marks_of(here, "other", None)).isdisjoint(marks[0])


async def test_others_know_it_by_the_address_at_which_they_reach_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(own_ollamas, "_own_address", lambda _: "10.0.0.7")
    there = await marks_of([("127.0.0.1", 11434)], "boot", "10.0.0.5")
    monkeypatch.setattr(own_ollamas, "_is_ours", lambda _: False)
    elsewhere = await marks_of([("10.0.0.7", 11434)], "other", "10.0.0.5")
    assert elsewhere == {"10.0.0.7:11434": "10.0.0.7:11434"}
    assert set(elsewhere) & set(there)


async def test_a_name_that_nobody_knows_has_no_mark() -> None:
    assert await marks_of([("no-such-host.invalid", 11434)], "boot", None) == {}
    # Where the boot is not known, another machine might have the same mark.
    assert await marks_of([("127.0.0.1", 11434)], None, None) == {}
    assert own_ollamas._own_address("127.0.0.1") is None


def test_who_asks_one_of_ours_is_named() -> None:
    ours = OwnOllamas("a", {"m:11434": "127.0.0.1:11434", "m:11500": "localhost:11500"})
    other = OwnOllamas("127.0.0.1:11445 on box", {"m:11434": "localhost:11434"})
    assert ours.rivals([other.text()]) == (
        "127.0.0.1:11434 is asked by another modelsplit too, 127.0.0.1:11445 on box",
    )
    assert ours.rivals([OwnOllamas("c", {"n:11434": "x"}).text(), "", "{", "[]"]) == ()


def test_who_had_our_name_is_named() -> None:
    other = OwnOllamas("b on box", {})
    [copy] = copies([other.text("n"), other.text("m"), other.text(), "", "{", "[]"], "n")
    assert copy.startswith("b on box runs with a copy of this state directory")
