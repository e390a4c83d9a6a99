"""Who listens and who is connected on this machine, as ``/proc/net/tcp`` tells it."""

from __future__ import annotations

import ipaddress
import re
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_proxy.config.settings import Address

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

_ESTABLISHED, _LISTEN = "01", "0A"
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})


class TcpSocket(NamedTuple):
    """One row of the kernel's table. ``uid``: whose it is."""

    local: Address
    remote: Address
    listens: bool
    uid: int
    inode: int


class Owner(NamedTuple):
    """A process that has a socket open."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def sockets(proc: Path) -> list[TcpSocket] | None:
    """Listening and established sockets; None: this system does not tell."""
    found: list[TcpSocket] = []
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        found += [row for line in lines if (row := _row(line)) is not None]
    return found or None


def listener(rows: Collection[TcpSocket], address: Address) -> TcpSocket | None:
    """Who takes what connects to an address."""
    host = "127.0.0.1" if address.host == "localhost" else address.host
    return next(
        (
            row
            for row in rows
            if row.listens
            and row.local.port == address.port
            and (row.local.host in {host, *_EVERYWHERE} or host in _EVERYWHERE)
        ),
        None,
    )


def owners(proc: Path, inodes: Collection[int]) -> dict[int, Owner]:
    """Who has each of these sockets, of processes whose descriptors we may see."""
    found: dict[int, Owner] = {}
    for process in _processes(proc):
        for inode in _inodes(process):
            if inode in inodes:
                found.setdefault(inode, Owner(int(process.name), _name(process)))
    return found


def environment(proc: Path, pid: int) -> dict[str, str] | None:
    """The environment that a process was started with; None: we may not see it."""
    try:
        raw = (proc / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    pairs = (item.decode(errors="replace").partition("=") for item in raw.split(b"\0") if item)
    return {name: value for name, _, value in pairs}


def _row(line: str) -> TcpSocket | None:
    fields = line.split()
    if len(fields) < 10 or fields[3] not in {_ESTABLISHED, _LISTEN}:
        return None
    local, remote = _address(fields[1]), _address(fields[2])
    return TcpSocket(local, remote, fields[3] == _LISTEN, int(fields[7]), int(fields[9]))


def _address(text: str) -> Address:
    """``0100007F:2CAA``: words of 32 bits in the machine's order, then the port."""
    host, _, port = text.partition(":")
    raw = bytes.fromhex(host)
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    address = ipaddress.ip_address(raw)
    mapped = getattr(address, "ipv4_mapped", None)
    return Address(str(mapped or address), int(port, 16))


def _processes(proc: Path) -> Iterator[Path]:
    return (path for path in proc.iterdir() if path.name.isdecimal())


def _inodes(process: Path) -> Iterator[int]:
    try:
        for link in (process / "fd").iterdir():
            match = _SOCKET.fullmatch(str(link.readlink()))
            if match is not None:
                yield int(match[1])
    except OSError:
        return


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a process"
