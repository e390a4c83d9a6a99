"""The client's clock goes on."""

from __future__ import annotations

from modelsplit_client import clock


def test_it_never_goes_back() -> None:
    first = clock.now()
    assert clock.now() >= first
