"""What systemd and this process say to each other: notify, watchdog, inherited sockets.

The protocols are one datagram and three environment variables, so they are spoken here directly
(sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3)). The environment is always handed in:
nothing here reads ``os.environ``, and a process that systemd did not start gets no-ops.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIRST_FD: Final = 3  # SD_LISTEN_FDS_START
UNNAMED: Final = "unknown"  # what systemd itself calls a descriptor without a name

# The manager reads its socket promptly; when it does not, a lost status line is better than a
# stalled event loop. Long enough for a manager that is busy with its own boot.
SEND_TIMEOUT_S: Final = 0.25
_BOOTED: Final = "run/systemd/system"  # sd_booted(3)
# Where systemd.unit(5) has the units of the system.
_UNIT_FOLDERS: Final = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)


def has_unit(name: str, root: Path = Path("/")) -> bool:
    """Whether systemd runs this machine and has a unit of that name; it need not be started."""
    if not (root / _BOOTED).is_dir():
        return False
    return any((root / folder / name).is_file() for folder in _UNIT_FOLDERS)


class Notifier:
    """Tells the service manager how this process is; silent where there is no manager.

    The socket is opened once, at the start: a process that has run out of descriptors must still
    be able to say that it is alive. Every method answers whether the manager's socket took the
    message and never raises for a socket that is absent, full or broken.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._socket = _open() if self._address else None

    @property
    def has_a_manager(self) -> bool:
        """Whether anybody is told."""
        return self._socket is not None

    def ready(self, status: str) -> bool:
        """Say that listeners accept and the state is open; ``status`` is one line for people."""
        return self._send("READY=1", _status(status))

    def status(self, text: str) -> bool:
        """Set the line that ``systemctl status`` shows."""
        return self._send(_status(text))

    def stopping(self) -> bool:
        """Say that the drain has begun."""
        return self._send("STOPPING=1")

    def watchdog(self) -> bool:
        """Say that the caller is alive: call it from the event loop, never from a thread."""
        return self._send("WATCHDOG=1")

    def extend_timeout(self, usec: int) -> bool:
        """Ask for ``usec`` more microseconds, counted from now, to start or to stop."""
        return self._send(f"EXTEND_TIMEOUT_USEC={usec}")

    def close(self) -> None:
        """Let the socket go; whatever is said afterwards is not sent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *assignments: str) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.sendto("\n".join(assignments).encode(), self._address)
        except OSError:
            return False
        return True


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds between two pings: half of what systemd allows. None: nobody is waiting for any.

    ``WATCHDOG_PID`` names the process the watchdog is about; a child that inherited the variables
    is not it.
    """
    microseconds = _number(environ, "WATCHDOG_USEC")
    if not microseconds or _number(environ, "WATCHDOG_PID", default=pid) != pid:
        return None
    return microseconds / 2_000_000


def listen_sockets(environ: Mapping[str, str], pid: int) -> list[socket.socket]:
    """Take over the listeners systemd opened for this process; empty: it opened none.

    Non-blocking and not inherited by children. They are systemd's: close them, but never shut
    them down and never unlink their paths, or the successor of this process finds them dead.
    Call it once, since each call makes new owners of the same descriptors. Raises OSError when a
    passed descriptor is not a socket.
    """
    if _number(environ, "LISTEN_PID") != pid:
        return []
    count = _number(environ, "LISTEN_FDS") or 0
    return [_adopt(fd) for fd in range(FIRST_FD, FIRST_FD + count)]


def by_name(
    environ: Mapping[str, str], sockets: Sequence[socket.socket]
) -> dict[str, list[socket.socket]]:
    """Group the sockets of ``listen_sockets`` by their ``FileDescriptorName=``, order kept.

    A name holds several when one socket unit has several ``ListenStream=`` lines.
    """
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    named: dict[str, list[socket.socket]] = {}
    for index, sock in enumerate(sockets):
        name = names[index] if index < len(names) else ""
        named.setdefault(name or UNNAMED, []).append(sock)
    return named


def _address(path: str) -> bytes:
    """Make the kernel's form of NOTIFY_SOCKET: ``@name`` is abstract; only unix sockets count."""
    if path.startswith("@"):
        return b"\0" + os.fsencode(path[1:])
    return os.fsencode(path) if path.startswith("/") else b""


def _open() -> socket.socket | None:
    try:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    except OSError:
        return None
    opened.settimeout(SEND_TIMEOUT_S)
    return opened


def _status(text: str) -> str:
    """One assignment, whatever the text: a line break would start another one."""
    return "STATUS=" + " ".join(text.split())


def _adopt(fd: int) -> socket.socket:
    adopted = socket.socket(fileno=fd)
    adopted.set_inheritable(False)
    adopted.setblocking(False)
    return adopted


def _number(environ: Mapping[str, str], name: str, default: int | None = None) -> int | None:
    """Read a count; absent gives ``default``, and what is no decimal number is no count."""
    text = environ.get(name)
    if text is None:
        return default
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
