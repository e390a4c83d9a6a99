"""The unit files as values."""

from __future__ import annotations

from pathlib import Path

UNITS = Path(__file__).parents[2] / "systemd"

Unit = dict[str, list[str]]


def read(name: str) -> Unit:
    """Give ``Section.Key`` -> values in order of appearance; a unit file may repeat a key."""
    found: Unit = {}
    section = ""
    for line in (UNITS / name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            found.setdefault(f"{section}.{key}", []).append(value)
    return found
