"""What commands ask of a running proxy, and what they say if there is none."""

from __future__ import annotations

import asyncio

import pytest

from modelsplit_proxy.cli import admin_client
from modelsplit_proxy.config.settings import Address
from support.harness import running
from support.ports import kept_port


async def test_an_object_comes_with_its_status() -> None:
    async with running() as up:
        admin = Address("127.0.0.1", up.admin_port)
        status, told = await asyncio.to_thread(admin_client.get, admin, "/route?model=planner")
        refused, error = await asyncio.to_thread(admin_client.get, admin, "/route?role=BOSS")
    assert (status, told["llm_role"]) == (200, "PLANNER")
    assert (refused, error["error_code"]) == (400, "E_BAD_REQUEST")


def test_where_nothing_listens_it_says_what_to_start() -> None:
    with kept_port() as port:
        what = f"127.0.0.1:{port} .*modelsplit serve"
        with pytest.raises(admin_client.NotRunningError, match=what):
            admin_client.get(Address("127.0.0.1", port), "/stats")


async def test_a_stranger_on_the_port_is_not_taken_for_ours() -> None:
    async with running() as up:
        stranger = Address("127.0.0.1", up.sim.port)
        with pytest.raises(
            admin_client.NotRunningError, match=r"/x answered 404, .* the admin port"
        ):
            await asyncio.to_thread(admin_client.get, stranger, "/x?y=1")
