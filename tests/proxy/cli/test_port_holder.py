"""Who has the port that we were to listen on, and what to do about it."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.app import PortBusyError, bind_all
from modelsplit_proxy.cli import port_holder
from modelsplit_proxy.cli.port_holder import beside, explained, others
from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.storage.state_lock import StateBusyError
from support.harness import in_front_of, running, settings
from support.ports import stand_in
from support.stopped import way

if TYPE_CHECKING:
    from pathlib import Path

    from modelsplit_proxy.config.settings import Settings


@pytest.fixture(autouse=True)
def spare_ports_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs on this machine."""
    is_free = port_holder._is_free
    spare = frozenset(port_holder._SPARE.values())
    monkeypatch.setattr(port_holder, "_is_free", lambda at: at.port in spare or is_free(at))


def taken(address: Address) -> PortBusyError:
    return PortBusyError(f"cannot listen on {address}: another program listens there", (address,))


async def told(error: PortBusyError, asked: Settings) -> str:
    return await asyncio.to_thread(explained, error, asked)


async def test_a_modelsplit_is_told_as_that_on_either_port(tmp_path: Path) -> None:
    async with running() as up:
        for address, flag, path in (
            (Address("127.0.0.1", up.port), "listen", "--listen 127.0.0.1:11500"),
            (Address("127.0.0.1", up.admin_port), "admin", "--admin 127.0.0.1:11501"),
        ):
            asked = settings(9, tmp_path, **{flag: address})
            text = await told(taken(address), asked)
            status = "modelsplit status" + f" --admin {address}" * (flag == "admin")
            assert text == (
                f"cannot listen on {address}: another program listens there; it is a modelsplit "
                f"that runs there: see `{status}`, or give this one addresses of its own, as "
                f"in {path}"
            )


async def test_two_addresses_are_told_at_once_with_what_frees_of_both(tmp_path: Path) -> None:
    """Also where the usual spare ports are somebody's."""
    async with running() as up:
        asked = settings(
            *(9, tmp_path),
            listen=Address("127.0.0.1", up.port),
            admin=Address("127.0.0.1", up.admin_port),
        )
        with pytest.raises(PortBusyError) as refused:
            bind_all([asked.listen, asked.admin])
        text = await told(refused.value, asked)
    assert text == (
        f"cannot listen on {asked.listen} and {asked.admin}: another program listens there; it is "
        f"a modelsplit that runs there: see `modelsplit status --admin {asked.admin}`, or give "
        "this one addresses of its own, as in --listen 127.0.0.1:11500 --admin 127.0.0.1:11501"
    )


def test_a_port_that_is_named_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        spare = {"--listen": port, "--admin": port + 1, "--agent": port + 2}
        monkeypatch.setattr(port_holder, "_SPARE", spare)
        named = others({"--listen": Address("127.0.0.1", 11435)})
    assert named["--listen"] != f"127.0.0.1:{port}"
    assert named["--listen"].startswith("127.0.0.1:")


async def test_who_may_run_beside_the_one_that_has_the_state_is_told_all_it_needs(
    tmp_path: Path,
) -> None:
    text = "another modelsplit already serves; give this one a --state of its own"
    error = StateBusyError(text, tmp_path / "my state-2")
    state = f"--state '{tmp_path}/my state-2'"
    async with running() as up:
        asked = settings(9, tmp_path, listen=Address("127.0.0.1", up.port))
        said = await asyncio.to_thread(beside, error, asked)
    assert said == f"{text}, as in {state} --listen 127.0.0.1:11500"
    assert beside(StateBusyError("it does not end"), asked) == "it does not end"


async def test_a_modelsplit_is_told_as_that_while_its_ollama_hangs() -> None:
    """It answers for itself: nothing is asked of what is behind it."""
    async with stand_in() as sim, way(sim.port) as upstream, in_front_of(upstream.port) as up:
        upstream.hang()
        here = Address("127.0.0.1", up.port)
        assert await asyncio.to_thread(port_holder.is_ours, here, "--listen")


async def test_the_port_for_an_agent_check_is_told_too(tmp_path: Path) -> None:
    async with running(agent=Address("127.0.0.1", 0)) as up:
        address = up.app.agent_address
        assert address is not None
        text = await told(taken(address), settings(9, tmp_path, agent=address))
        assert "it is a modelsplit that runs there" in text
        assert text.endswith(" as in --agent 127.0.0.1:11502")


def test_who_waits_to_be_asked_answers_no_agent_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_holder, "_TIMEOUT_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address("127.0.0.1", silent.getsockname()[1])
        text = explained(taken(address), settings(9, tmp_path, agent=address))
        assert text.endswith("; choose another, as in --agent 127.0.0.1:11502")


async def test_somebody_else_is_not_and_another_port_is_named(tmp_path: Path) -> None:
    async with running() as up:
        assert up.sim.port is not None
        address = Address("127.0.0.1", up.sim.port)
        text = await told(taken(address), settings(9, tmp_path, listen=address))
        assert text.endswith(" listens there; choose another, as in --listen 127.0.0.1:11500")


def test_who_says_nothing_is_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_holder, "_TIMEOUT_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address("127.0.0.1", silent.getsockname()[1])
        text = explained(taken(address), settings(9, tmp_path, admin=address))
        assert text.endswith("; choose another, as in --admin 127.0.0.1:11501")


def test_the_port_that_others_have_by_default_too_is_told_as_that(tmp_path: Path) -> None:
    address = Address("localhost.invalid", 11435)
    text = explained(taken(address), settings(9, tmp_path, listen=address))
    assert "(other programs in front of Ollama use 11435 too); choose another" in text


def test_an_address_that_is_not_ours_to_have_is_told_as_it_is(tmp_path: Path) -> None:
    error = PortBusyError("cannot listen on 192.0.2.1:1: Cannot assign requested address")
    asked = settings(9, tmp_path, listen=Address("192.0.2.1", 1))
    assert explained(error, asked) == str(error)
