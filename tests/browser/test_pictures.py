"""The pictures in the README are made by a script that works, and are small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clients import install
from clients.absence import absent
from support import pictures

ROOT = Path(__file__).parents[2]
LARGEST = {pictures.PAGE: 300_000, pictures.TOP: 80_000}


@pytest.mark.tools("chromium", "node", "npm")
async def test_the_script_makes_them(tmp_path: Path) -> None:
    try:
        await pictures.make(tmp_path)
    except install.Unavailable as reason:
        absent(reason, "playwright-core")
    page = (tmp_path / pictures.PAGE).read_bytes()
    assert page.startswith(b"\x89PNG\r\n\x1a\n")
    svg = (tmp_path / pictures.TOP).read_text()
    assert svg.startswith("<svg ")
    for word in ("PLANNER", "EXECUTOR", "streaming", "qwen3:4b"):
        assert word in svg
    for name, most in LARGEST.items():
        assert (tmp_path / name).stat().st_size < most


@pytest.mark.parametrize("name", LARGEST)
def test_the_readme_shows_them_and_they_are_small(name: str) -> None:
    shown = re.findall(r"!\[[^\]]+\]\((docs/pictures/[^)]+)\)", (ROOT / "README.md").read_text())
    assert f"docs/pictures/{name}" in shown
    assert (pictures.FOLDER / name).stat().st_size < LARGEST[name]


def test_the_picture_of_the_terminal_asks_no_other_host() -> None:
    svg = (pictures.FOLDER / pictures.TOP).read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://(?!127\.0\.0\.1)|@import|@font-face", svg)
