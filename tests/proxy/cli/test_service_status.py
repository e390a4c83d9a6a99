"""What ``systemctl status`` shows, and how a long drain is not killed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from modelsplit_policy.tickets import Ticket
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.app import App
from modelsplit_proxy.cli.service_status import ServiceStatus, status_line
from modelsplit_proxy.runtime import systemd
from support.harness import policy, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextlib.contextmanager
def told(path: Path, text: Callable[[], str], *, ends: bool = False) -> Iterator[socket.socket]:
    """A manager's socket, and a status that is looked at every millisecond."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path / "notify"))
        manager.setblocking(False)
        notifier = systemd.Notifier({"NOTIFY_SOCKET": str(path / "notify")})
        status = ServiceStatus(notifier, text, lambda: ends)
        status.start(0.001)
        yield manager
        status.stop()
        notifier.close()


async def test_a_line_is_sent_when_it_has_changed(tmp_path: Path) -> None:
    lines = iter(["one", "one", "one", "two\nlines", "two\nlines"])
    loop = asyncio.get_running_loop()
    with told(tmp_path, lambda: next(lines, "three")) as manager:
        heard = [await loop.sock_recv(manager, 100) for _ in range(3)]
    assert heard == [b"STATUS=one", b"STATUS=two lines", b"STATUS=three"]


async def test_a_drain_asks_for_time_at_each_look(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    with told(tmp_path, lambda: "draining", ends=True) as manager:
        heard = [await loop.sock_recv(manager, 100) for _ in range(4)]
    assert heard == [b"STATUS=draining", *[b"EXTEND_TIMEOUT_USEC=10000000"] * 3]


async def test_the_line_says_where_how_well_and_who(tmp_path: Path) -> None:
    app = App(settings(9, tmp_path), policy(), sink=len, json_log=True)
    await app.start()
    # Nobody listens at its upstream, and the line says the same as every other page.
    idle = f"listening on {app.address}; health CRITICAL; running: none; waiting: none"
    assert status_line(app) == idle
    seats = app.admission.limits(Role.PLANNER).seats
    assert seats is not None
    for _ in range(seats + 1):
        app.admission.ask(Ticket(Role.PLANNER, "qwen3:4b", app.clock.now()), app.clock.now())
    assert status_line(app).endswith(f"running: PLANNER {seats}; waiting: PLANNER 1")
    app.lifecycle.begin()
    app.lifecycle.draining = True
    assert status_line(app) == "draining: 1 requests are being answered"
    app.lifecycle.end()
    await app.stop()
