"""Sockets and their owners, as the kernel's tables tell them."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from modelsplit_proxy.cli import doctor_sockets
from modelsplit_proxy.cli.doctor_sockets import Owner, TcpSocket
from modelsplit_proxy.config.settings import Address
from support.doctoring import look, process, table

ANYWHERE = "00000000:0000"
little = pytest.mark.skipif(sys.byteorder != "little", reason="the rows are of such a machine")


@little
def test_listening_and_established_sockets_are_read(tmp_path: Path) -> None:
    proc = look(tmp_path).proc
    table(
        proc,
        ("0100007F:2CAB", ANYWHERE, "0A", 64, 7),
        ("0100007F:C350", "0100007F:2CAA", "01", 1000, 8),
        ("0100007F:C351", "0100007F:2CAA", "06", 0, 0),
    )
    (proc / "net" / "tcp6").write_text(
        "head\n 0: 00000000000000000000000001000000:2CAC 00000000000000000000000000000000:0000 "
        "0A 0:0 0:0 0 0 0 9 1\n 1: 0000000000000000FFFF00000100007F:1F90 "
        "00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 10 1\n"
    )
    assert doctor_sockets.sockets(proc) == [
        TcpSocket(Address("127.0.0.1", 11435), Address("0.0.0.0", 0), True, 64, 7),
        TcpSocket(Address("127.0.0.1", 50000), Address("127.0.0.1", 11434), False, 1000, 8),
        TcpSocket(Address("::1", 11436), Address("::", 0), True, 0, 9),
        TcpSocket(Address("127.0.0.1", 8080), Address("::", 0), True, 0, 10),
    ]


def test_a_system_without_the_tables_tells_nothing(tmp_path: Path) -> None:
    assert doctor_sockets.sockets(tmp_path) is None


@pytest.mark.parametrize(
    ("host", "asked", "found"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "localhost", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("10.0.0.1", "127.0.0.1", False),
        ("10.0.0.1", "0.0.0.0", True),
    ],
)
def test_who_listens_on_a_port_is_found(host: str, asked: str, found: bool) -> None:
    row = TcpSocket(Address(host, 5), Address("0.0.0.0", 0), True, 0, 1)
    assert (doctor_sockets.listener([row], Address(asked, 5)) == row) is found
    assert doctor_sockets.listener([row._replace(listens=False)], Address(asked, 5)) is None


def test_owners_and_their_environment_are_told(tmp_path: Path) -> None:
    proc = look(tmp_path).proc
    process(proc, 12, "ollama", 7, 8, OLLAMA_HOST="127.0.0.1:11434")
    process(proc, 13, "other", 9)
    assert doctor_sockets.owners(proc, {8, 10}) == {8: Owner(12, "ollama")}
    assert str(Owner(12, "ollama")) == "ollama (pid 12)"
    assert doctor_sockets.environment(proc, 12) == {"OLLAMA_HOST": "127.0.0.1:11434"}
    assert doctor_sockets.environment(proc, 99) is None


def test_this_machine_tells_of_a_socket_of_ours() -> None:
    proc = Path("/proc")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = Address(*listening.getsockname())
        rows = doctor_sockets.sockets(proc)
        assert rows is not None
        row = doctor_sockets.listener(rows, address)
        assert row is not None
        assert doctor_sockets.owners(proc, {row.inode})[row.inode].name
