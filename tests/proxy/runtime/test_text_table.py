"""A table as text."""

from __future__ import annotations

from modelsplit_proxy.runtime.text_table import table


def test_a_table_is_as_wide_as_its_cells() -> None:
    assert table([("ROLE", "N"), ("PLANNER", "10"), ("CHAT", "2")], "<>") == [
        "ROLE      N",
        "PLANNER  10",
        "CHAT      2",
    ]
