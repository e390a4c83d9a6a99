"""Spoken to real datagram sockets and real inherited descriptors; systemd itself is not needed."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.runtime.systemd import (
    Notifier,
    by_name,
    has_unit,
    listen_sockets,
    watchdog_interval,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PID = 4711


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str | bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)

    def heard(self) -> str:
        return self.socket.recv(4096).decode()

    def heard_nothing_more(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.socket.close()


@pytest.fixture
def notifier(manager: Manager) -> Iterator[Notifier]:
    made = Notifier({"NOTIFY_SOCKET": manager.socket.getsockname()})
    yield made
    made.close()


@pytest.mark.parametrize(
    ("say", "datagram"),
    [
        (lambda n: n.ready("queue 0/6"), "READY=1\nSTATUS=queue 0/6"),
        (lambda n: n.status("draining, 3 left"), "STATUS=draining, 3 left"),
        (lambda n: n.stopping(), "STOPPING=1"),
        (lambda n: n.watchdog(), "WATCHDOG=1"),
        (lambda n: n.extend_timeout(30_000_000), "EXTEND_TIMEOUT_USEC=30000000"),
    ],
    ids=["ready", "status", "stopping", "watchdog", "extend_timeout"],
)
def test_each_message_is_one_datagram(
    manager: Manager, notifier: Notifier, say: Callable[[Notifier], bool], datagram: str
) -> None:
    assert say(notifier) is True
    assert manager.heard() == datagram
    assert manager.heard_nothing_more()


def test_an_abstract_socket_is_spoken_to() -> None:
    name = f"modelsplit-test-{os.getpid()}"
    manager = Manager(b"\0" + name.encode())
    notifier = Notifier({"NOTIFY_SOCKET": "@" + name})
    assert notifier.watchdog()
    assert manager.heard() == "WATCHDOG=1"
    notifier.close()
    manager.socket.close()


def test_a_status_cannot_smuggle_a_second_assignment(manager: Manager, notifier: Notifier) -> None:
    notifier.status("broken\nMAINPID=1\r\n ")
    assert manager.heard() == "STATUS=broken MAINPID=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_a_manager_every_word_is_a_no_op(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    assert not notifier.ready("up")
    assert not notifier.watchdog()
    notifier.close()


def test_a_manager_that_went_away_does_not_stop_the_service(
    manager: Manager, notifier: Notifier, tmp_path: Path
) -> None:
    manager.socket.close()
    assert not notifier.watchdog()
    (tmp_path / "notify").unlink()
    assert not notifier.stopping()


def test_a_path_longer_than_the_kernel_allows_does_not_stop_the_service() -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "/" + "x" * 300})
    assert not notifier.ready("up")
    notifier.close()


def test_a_manager_that_does_not_read_holds_nobody_up(notifier: Notifier) -> None:
    sent = 0
    while notifier.watchdog():
        sent += 1
    assert sent > 0  # and the call that found the queue full came back


def test_no_socket_left_to_open_does_not_stop_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("modelsplit_proxy.runtime.systemd.socket.socket", refuse)
    assert not Notifier({"NOTIFY_SOCKET": "/run/notify"}).ready("up")


def test_after_close_nothing_is_sent(manager: Manager, notifier: Notifier) -> None:
    notifier.close()
    notifier.close()
    assert not notifier.watchdog()
    assert manager.heard_nothing_more()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "4711"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "me"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "10s"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
        ({"WATCHDOG_USEC": "9" * 5000}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_asks(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert watchdog_interval(environ, PID) == seconds


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": "4711"},
        {"LISTEN_PID": "4711", "LISTEN_FDS": "0"},
        {"LISTEN_PID": "4711", "LISTEN_FDS": "x"},
    ],
)
def test_descriptors_meant_for_another_are_left_alone(environ: dict[str, str]) -> None:
    assert listen_sockets(environ, PID) == []


# Puts its own pid into the variables, as systemd does between fork and exec.
CHILD = """
import json, os, sys
from modelsplit_proxy.runtime.systemd import by_name, listen_sockets
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": sys.argv[1], "LISTEN_FDNAMES": sys.argv[2]}
sockets = listen_sockets(environ, os.getpid())
print(json.dumps([
    {name: [s.getsockname()[1] for s in of] for name, of in by_name(environ, sockets).items()},
    [s.fileno() for s in sockets],
    [s.getblocking() or s.get_inheritable() for s in sockets],
]))
for s in sockets:
    s.close()
"""


def child(sockets: list[socket.socket], count: int, names: str) -> subprocess.CompletedProcess[str]:
    """Run CHILD with the sockets at 3, 4, …, as systemd passes them."""
    # Far above 3, 4, … first: one of ours may itself have such a number.
    far = [os.dup2(sock.fileno(), 100 + index) for index, sock in enumerate(sockets)]
    moves = "; ".join(f"os.dup2({fd}, {3 + index})" for index, fd in enumerate(far))
    launcher = f"import os, sys; {moves or 'pass'}; os.execv(sys.executable, sys.argv[1:])"
    try:
        return subprocess.run(
            [sys.executable, "-c", launcher, sys.executable, "-c", CHILD, str(count), names],
            pass_fds=far,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        for fd in far:
            os.close(fd)


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    made = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield made
    for sock in made:
        sock.close()


def test_inherited_listeners_are_taken_over(listeners: list[socket.socket]) -> None:
    done = child(listeners, 2, "proxy:admin")
    assert done.returncode == 0, done.stderr
    proxy, admin = (sock.getsockname()[1] for sock in listeners)
    assert json.loads(done.stdout) == [
        {"proxy": [proxy], "admin": [admin]},
        [3, 4],
        [False, False],
    ]


def test_a_listener_outlives_the_process_that_closed_it(listeners: list[socket.socket]) -> None:
    """The point of socket activation: between two processes a client waits, it is not refused."""
    assert child(listeners, 2, "proxy:proxy").returncode == 0
    with socket.create_connection(listeners[0].getsockname()):
        accepted, _ = listeners[0].accept()
        accepted.close()


def test_a_descriptor_that_is_no_socket_is_an_error() -> None:
    done = child([], 1, "proxy")
    assert done.returncode != 0
    assert "OSError" in done.stderr


@pytest.mark.parametrize(
    ("names", "shape"),
    [
        ("proxy:admin", {"proxy": [0], "admin": [1]}),
        ("modelsplit.socket:modelsplit.socket", {"modelsplit.socket": [0, 1]}),
        ("proxy", {"proxy": [0], "unknown": [1]}),
        ("", {"unknown": [0, 1]}),
    ],
)
def test_sockets_are_found_by_name(
    listeners: list[socket.socket], names: str, shape: dict[str, list[int]]
) -> None:
    found = by_name({"LISTEN_FDNAMES": names}, listeners)
    assert {name: [listeners.index(s) for s in group] for name, group in found.items()} == shape


@pytest.mark.parametrize("folder", ["etc", "run", "usr/lib", "usr/local/lib", "lib"])
def test_a_unit_is_there_where_systemd_runs_and_has_its_file(tmp_path: Path, folder: str) -> None:
    assert not has_unit("ollama.service", tmp_path)
    units = tmp_path / folder / "systemd/system"
    units.mkdir(parents=True)
    (units / "ollama.service").write_text("[Service]\n")
    # A container may have the file of its image, and no systemd.
    assert has_unit("ollama.service", tmp_path) == (folder == "run")
    (tmp_path / "run/systemd/system").mkdir(parents=True, exist_ok=True)
    assert has_unit("ollama.service", tmp_path)
    assert not has_unit("other.service", tmp_path)
