"""docs/records.md is complete: every field, every word."""

from __future__ import annotations

import re
from pathlib import Path

from modelsplit_policy.tickets import Hold
from modelsplit_proxy.records import explain, rows, trace
from support.records import answered
from support.stores import kept

PAGE = (Path(__file__).parents[1] / "docs" / "records.md").read_text(encoding="utf-8")


def table(head: str) -> set[str]:
    """The words in the first column of the table whose first column is called ``head``."""
    body = PAGE.partition(f"\n| {head} |")[2].partition("\n\n")[0]
    lines = body.splitlines()[2:]
    return {word for line in lines for word in re.findall(r"`([^`]+)`", line.split("|")[1])}


def test_every_field_of_an_attempt_is_described() -> None:
    [attempt] = rows.attempts_fields(answered())
    assert table("field of an attempt") == {
        *attempt,
        *("error", "crowd", "crowd_at_end", "health", "trial", "returned_ms", "gone_ms"),
        *("host", "placed"),
    }


def test_every_hold_is_described() -> None:
    assert table("`hold`") == set(Hold)
    assert set(explain._HOLDS) == set(Hold)


def test_every_reason_for_no_fallback_is_described() -> None:
    assert table("no fallback") == set(explain._NO_FALLBACK)


def test_every_field_of_the_trace_is_described() -> None:
    call = trace.call(kept(answered())[0], [])
    section = PAGE.partition("## The trace")[2].partition("| field |")[2]
    said = {
        word
        for line in section.splitlines()[2:]
        if line
        for word in re.findall(r"`([^`]+)`", line.split("|")[1])
    }
    assert said == set(call)
