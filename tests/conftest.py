"""Every test runs on uvloop, as the product does; and the one option of the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvloop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Mapping

    import pytest


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


def pytest_addoption(parser: pytest.Parser) -> None:
    # It is said here because pytest asks for options before it looks into the folders.
    parser.addoption(
        "--write-clients-doc",
        action="store_true",
        help="write what tests/clients saw into docs/clients.md",
    )
