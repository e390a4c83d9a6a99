"""An answer that is held: what it decodes to."""

from __future__ import annotations

import pytest

from modelsplit_proxy.protocol.held_answer import HeldAnswer


@pytest.mark.parametrize(
    ("body", "fields"),
    [(b'{"a":1}\n', {"a": 1}), (b"[1]", {}), (b"null", {}), (b"", {}), (b"<html>", {})],
)
def test_its_fields_are_those_of_an_object(body: bytes, fields: dict[str, int]) -> None:
    held = HeldAnswer(body)
    assert held.fields == fields
    assert not held.is_large


def test_a_large_one_says_so() -> None:
    assert HeldAnswer(b" " * 300_000).is_large
