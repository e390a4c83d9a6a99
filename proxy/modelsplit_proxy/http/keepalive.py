"""A peer that has vanished without a word, its cable pulled or its address forgotten by a router.

Nothing is said on a connection that waits, so only the kernel's questions find out. By default
it asks after two hours; here after a minute, and then every few seconds.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

# Seconds: of silence before the first question, and between two. Four without an answer: gone.
IDLE_S: Final = 60
EVERY_S: Final = 15
QUESTIONS: Final = 4

# macOS calls the first TCP_KEEPALIVE; what a system lacks stays as it is.
_VALUES: Final = (
    ("TCP_KEEPIDLE", IDLE_S),
    ("TCP_KEEPALIVE", IDLE_S),
    ("TCP_KEEPINTVL", EVERY_S),
    ("TCP_KEEPCNT", QUESTIONS),
)


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Have the kernel ask whether the peer is still there."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _VALUES:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
