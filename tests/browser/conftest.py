"""What drives the browser, and where its pictures go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clients import install
from clients.absence import absent
from support import browsers


@pytest.fixture(scope="session")
def driver() -> Path:
    try:
        return browsers.modules()
    except install.Unavailable as reason:
        absent(reason, "playwright-core")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where the screenshots are put: kept where PAGE_PICTURES says so."""
    kept = os.environ.get("PAGE_PICTURES")
    return tmp_path if kept is None else Path(kept)
