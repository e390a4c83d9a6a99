"""The wheel of this tree: built once, installed once."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import wheels
from support.wheels import Installed


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build("wheel", wheels.ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return wheels.install(wheel, tmp_path_factory.mktemp("installed") / "env")
