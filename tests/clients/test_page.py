"""``docs/clients.md`` is what the matrix saw; ``--write-clients-doc`` makes it so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from clients import page
from clients.catalogue import CLIENTS

if TYPE_CHECKING:
    from clients.conftest import See


@pytest.mark.tools("curl", "node", "npm")
def test_the_page_shows_what_was_seen(see: See, pytestconfig: pytest.Config) -> None:
    sightings = {client.title: see(client) for client in CLIENTS}
    if pytestconfig.getoption("--write-clients-doc"):
        page.write(sightings)
    assert page.written() == page.tables(sightings)
