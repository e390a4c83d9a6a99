"""What becomes of a test whose client cannot run here."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import pytest

from clients import install

if TYPE_CHECKING:
    from clients.install import Unavailable


def absent(reason: Unavailable, title: str) -> NoReturn:
    """Skipped where its packages cannot be reached, failed otherwise."""
    end = pytest.skip if isinstance(reason, install.Unreachable) else pytest.fail
    end(f"{title}: {reason}")
