"""How checks look: a question over HTTP, a program's output, one of Ollama's lists."""

from __future__ import annotations

import asyncio
import socket
import sys

from modelsplit_proxy.cli.doctor_findings import (
    get,
    is_here,
    listens,
    output_of,
    rows_of,
)
from modelsplit_proxy.config.settings import Address
from support.doctoring import answer
from support.harness import running
from support.ports import kept_port


async def test_an_answer_is_told_with_who_passed_it_on() -> None:
    async with running() as up:
        here = Address("127.0.0.1", up.port)
        told = await asyncio.to_thread(get, here, "/api/version")
        text = await asyncio.to_thread(get, here, "/")
    assert told is not None
    assert (told.status, told.via) == (200, "1.1 modelsplit")
    assert "version" in told.body
    assert text is not None
    assert text.body is None


def test_nobody_gives_no_answer() -> None:
    with kept_port() as port:
        assert get(Address("127.0.0.1", port), "/") is None


def test_who_hangs_takes_connections_and_who_is_away_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert listens(Address("127.0.0.1", silent.getsockname()[1]))
    with kept_port() as port:
        assert not listens(Address("127.0.0.1", port))


def test_a_program_is_heard_unless_it_fails_or_is_not_there() -> None:
    assert output_of([sys.executable, "-c", "print(1)"]) == "1\n"
    assert output_of([sys.executable, "-c", "raise SystemExit(1)"]) is None
    assert output_of(["no-such-program"]) is None


def test_only_a_list_of_models_is_one() -> None:
    assert rows_of(answer({"models": [{"name": "a"}, 3]})) == [{"name": "a"}]
    assert rows_of(answer({"models": None})) is None
    assert rows_of(answer([1])) is None
    assert rows_of(None) is None


def test_here_is_loopback() -> None:
    assert is_here(Address("localhost", 1))
    assert not is_here(Address("10.0.0.1", 1))
