"""What a process says of itself, and what it does on signals and for systemd."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.app import App
from modelsplit_proxy.cli import serve
from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.runtime import systemd
from support.harness import policy, settings

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_first_signal_stops_and_the_second_cuts() -> None:
    stop, cut = serve.signals()
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.wait()
    assert not cut.is_set()
    os.kill(os.getpid(), signal.SIGINT)
    await cut.wait()
    loop = asyncio.get_running_loop()
    assert loop.remove_signal_handler(signal.SIGTERM)
    assert loop.remove_signal_handler(signal.SIGINT)
    loop.remove_signal_handler(signal.SIGHUP)


async def test_a_hangup_stops_and_never_cuts() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    stop, cut = serve.signals()
    loop, seen = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, seen.set)
    os.kill(os.getpid(), signal.SIGHUP)
    await stop.wait()
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGUSR1)
    await seen.wait()
    assert not cut.is_set()
    os.kill(os.getpid(), signal.SIGTERM)
    await cut.wait()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        assert loop.remove_signal_handler(number)
    signal.signal(signal.SIGHUP, before)


async def test_a_hangup_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    serve.signals()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    loop = asyncio.get_running_loop()
    assert not loop.remove_signal_handler(signal.SIGHUP)
    for number in (signal.SIGTERM, signal.SIGINT):
        assert loop.remove_signal_handler(number)
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("said", "terminal", "json"),
    [("auto", True, False), ("auto", False, True), ("json", True, True), ("text", False, False)],
)
def test_lines_are_json_unless_a_person_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, *, terminal: bool, json: bool
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stdout", out)
    assert serve.wants_json(settings(9, tmp_path, log_format=said)) is json


async def test_the_announcement_can_be_copied(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "modelsplit")
    app = App(settings(9, tmp_path), policy(), sink=len, json_log=True)
    await app.start()
    caplog.clear()
    serve.announce(app, policy(), Address("127.0.0.1", 0))
    listens, under, budget, client = caplog.messages
    assert listens.endswith(f" listens on http://{app.address} in front of http://127.0.0.1:9")
    assert under == f"policy test (000000000000), admin http://{app.admin_address}"
    assert budget == (
        "budget heavy-20b: 10 calls in 1h to gpt-oss:20b, whoever asks; "
        '"budgets" in the policy changes that'
    )
    assert client == f"point a client here:  export OLLAMA_HOST=http://{app.address}"
    await app.stop()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
async def test_a_listener_for_all_without_keys_is_warned_of_and_told_as_one_reaches_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    caplog.set_level(logging.INFO, "modelsplit")
    app = App(settings(9, tmp_path), policy(), sink=len, json_log=True)
    await app.start()
    serve.announce(app, policy(), Address(host, 0))
    [warning] = [text for text in caplog.messages if "wants no keys" in text]
    assert "`modelsplit keys new --name NAME --into keys.json`" in warning
    clients = [text for text in caplog.messages if "export OLLAMA_HOST=" in text]
    assert clients[0] == f"point a client here:  export OLLAMA_HOST=http://{app.address}"
    assert app.address is not None
    elsewhere = f"http://{socket.gethostname()}:{app.address.port}"
    assert clients[1:] == (
        [f"from other machines:  export OLLAMA_HOST={elsewhere}"] if host != "192.0.2.7" else []
    )
    await app.stop()


async def test_the_watchdog_is_fed_by_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        notifier = systemd.Notifier({"NOTIFY_SOCKET": str(path)})
        watchdog = serve.Watchdog(notifier, 0.005, lambda: True)
        watchdog.start()
        loop = asyncio.get_running_loop()
        for _ in range(3):
            assert await loop.sock_recv(manager, 100) == b"WATCHDOG=1"
        watchdog.stop()
        notifier.close()


async def test_the_watchdog_is_not_fed_once_the_writer_thread_hangs(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.setblocking(False)
        notifier = systemd.Notifier({"NOTIFY_SOCKET": str(path)})
        lives = iter([True, True, False, False])
        asked = asyncio.Event()

        def alive() -> bool:
            answer = next(lives, None)
            if answer is None:
                asked.set()
            return bool(answer)

        watchdog = serve.Watchdog(notifier, 0.001, alive)
        watchdog.start()
        await asked.wait()
        watchdog.stop()
        notifier.close()
        assert [manager.recv(100) for _ in range(2)] == [b"WATCHDOG=1"] * 2
        with pytest.raises(BlockingIOError):
            manager.recv(100)
