"""The demo's own small decisions; its whole run is in the end-to-end tests."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.app import PortBusyError
from modelsplit_proxy.cli import demo
from modelsplit_proxy.config.settings import Address
from modelsplit_sim.models import DEFAULT_MODELS
from support.harness import policy
from support.ports import kept_port

if TYPE_CHECKING:
    from support.harness import Overlay


def test_the_usual_port_is_used_if_it_is_free() -> None:
    with kept_port() as port:
        assert demo._free(Address("127.0.0.1", port)) == Address("127.0.0.1", port)


def test_another_port_is_found_if_it_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = demo._free(Address("127.0.0.1", port))
    assert found.host == "127.0.0.1"
    assert found.port not in {0, port}


def test_an_address_of_another_machine_is_an_error_that_names_it() -> None:
    with pytest.raises(PortBusyError, match=r"192\.0\.2\.1"):
        demo._free(Address("192.0.2.1", 11435))


def test_the_stand_in_has_the_models_of_the_shipped_policy() -> None:
    nothing: Overlay = {}
    rows = policy(nothing).policy.roles.values()
    wanted = {model for row in rows for model in (row.primary, row.fallback) if model}
    assert wanted - {"claude-3-opus"} <= {spec.name for spec in DEFAULT_MODELS}
