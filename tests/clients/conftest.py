"""The clients run once for all tests that ask what they saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import uvloop

from clients import install, world
from clients.absence import absent
from clients.catalogue import CLIENTS, Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from clients.world import Sighting

    See = Callable[[Client], Sighting]


@pytest.fixture(scope="session")
def sightings(request: pytest.FixtureRequest) -> dict[str, Sighting | install.Unavailable]:
    """By title: what the client saw, or why it could not run here.

    Only the clients of the tests that were chosen run; a test that names no client wants all.
    """
    wanted = _wanted(request.session)
    places = install.places(sorted({client.language for client in wanted}))
    runnable = [client for client in wanted if client.language in places.found]
    absent = {
        client.title: places.missing[client.language]
        for client in wanted
        if client.language in places.missing
    }
    return absent | uvloop.run(world.watch(runnable, places))


def _wanted(session: pytest.Session) -> list[Client]:
    users = [
        item
        for item in session.items
        if isinstance(item, pytest.Function) and "sightings" in item.fixturenames
    ]
    named = [item.callspec.params["client"] for item in users if hasattr(item, "callspec")]
    return [client for client in CLIENTS if client in named or len(named) < len(users)]


@pytest.fixture(scope="session")
def see(sightings: dict[str, Sighting | install.Unavailable]) -> See:
    """What one client's user saw; skipped where its packages cannot be reached."""

    def sighting(client: Client) -> Sighting:
        found = sightings[client.title]
        if isinstance(found, install.Unavailable):
            absent(found, client.title)
        return found

    return sighting
