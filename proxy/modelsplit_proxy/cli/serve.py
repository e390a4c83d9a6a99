"""``modelsplit serve``: the process from start to drained."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import uvloop

from modelsplit_policy.quantity import in_digits
from modelsplit_proxy.app import App, PortBusyError, address_of, bind
from modelsplit_proxy.cli import port_holder
from modelsplit_proxy.cli.command import Command, settings_of
from modelsplit_proxy.cli.service_status import ServiceStatus, status_line
from modelsplit_proxy.config import key_path, policy_file
from modelsplit_proxy.config.settings import OPTIONS, unknown_variables
from modelsplit_proxy.http.origin_guard import is_loopback
from modelsplit_proxy.protocol import budget_text
from modelsplit_proxy.runtime import process_log, streams, systemd
from modelsplit_proxy.storage.state_lock import StateBusyError, StateLock, take_over

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from modelsplit_proxy.config.policy_file import LoadedPolicy
    from modelsplit_proxy.config.settings import Address, Settings
    from modelsplit_proxy.limits.client_keys import Keyring

logger = logging.getLogger("modelsplit")

# New objects after which the garbage collector looks for cycles among them.
_GC_AFTER: Final = 5000
# What a process takes to end beyond its drain time, and some.
_LONGER_THAN_DRAIN_S: Final = 10.0
# Who connects while the process before us drains; the kernel takes the less of this and its own.
_BACKLOG: Final = 4096
# Addresses on which a socket hears whoever comes.
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})
_OPEN: Final = (
    "http://%s can be reached from other machines and wants no keys: whoever reaches it can use "
    "it; make one with `modelsplit keys new --name NAME --into keys.json`, and serve with "
    "--keys keys.json"
)
_EXAMPLES: Final = """\
examples:
  modelsplit serve
  modelsplit serve --listen 127.0.0.1:11500 --upstream http://127.0.0.1:11434
  modelsplit serve --policy /etc/modelsplit/model-policy.json --log-format json

Every setting can also come from the environment, e.g. MODELSPLIT_LISTEN.
"""


def run(
    settings: Settings,
    loaded: LoadedPolicy,
    keyring: Keyring | None,
    environ: Mapping[str, str],
) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP; 0 after a drained end."""
    with streams.unhurried(sys.stderr):
        journal = process_log.is_journal(environ, streams.STDERR)
        process_log.set_up(sys.stderr, as_json=wants_json(settings), journal=journal)
        for text in unknown_variables(environ):
            logger.warning("%s", text)
        lock = StateLock(settings.state)
        sockets = _inherited(environ)
        if settings.take_over:
            sockets = _take_over(lock, settings, sockets)
        try:
            uvloop.run(_serve(settings, loaded, keyring, environ, lock, sockets))
        except PortBusyError as error:
            raise PortBusyError(port_holder.explained(error, settings)) from None
        except StateBusyError as error:
            raise StateBusyError(port_holder.beside(error, settings)) from None
    return 0


def _take_over(
    lock: StateLock, settings: Settings, inherited: list[socket.socket]
) -> list[socket.socket]:
    """Take the state; the sockets to serve on.

    Its holder lets go of the port as it begins to drain: from then on we have it, and who connects
    waits in the backlog until we serve, as before a socket of systemd's.
    """
    held: list[socket.socket] = []

    def hold() -> bool:
        if inherited or settings.listen.port == 0:
            return True
        with suppress(PortBusyError):
            sock = bind(settings.listen)
            sock.listen(_BACKLOG)
            held.append(sock)
            logger.info("%s is held: who connects now waits for this process", settings.listen)
        return bool(held)

    try:
        take_over(lock, settings.drain_s + _LONGER_THAN_DRAIN_S, hold)
    except StateBusyError:
        for sock in held:
            sock.close()
        raise
    return inherited or held


def _command(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = settings_of(args, environ)
    path = policy_file.find_policy(settings.policy, environ)
    loaded = policy_file.load(path)
    if path is not None:
        # Who asks this process which policy it has may be in another directory.
        loaded = replace(loaded, source=str(path.absolute()))
    return run(settings, loaded, _keyring(settings, environ), environ)


def _keyring(settings: Settings, environ: Mapping[str, str]) -> Keyring | None:
    path = key_path.find(settings.keys, environ)
    if path is None:
        return None
    # Most serve nobody but their own machine, without keys.
    from modelsplit_proxy.config import key_file  # noqa: PLC0415

    return key_file.load(path, environ)


COMMAND: Final = Command(
    "serve",
    "run the proxy",
    "Run the proxy until SIGTERM, SIGHUP or Ctrl-C.",
    _command,
    settings=tuple(option.name for option in OPTIONS),
    example=_EXAMPLES,
)


async def _serve(
    settings: Settings,
    loaded: LoadedPolicy,
    keyring: Keyring | None,
    environ: Mapping[str, str],
    lock: StateLock,
    inherited: list[socket.socket],
) -> None:
    """``inherited``: sockets that listen already, for us to serve on; none: we make our own."""
    stop, cut = signals()
    notifier = systemd.Notifier(environ)
    if inherited:
        settings = replace(settings, listen=_widest(inherited))
    json_log = wants_json(settings)
    app = App(settings, loaded, sink=stdout_sink, json_log=json_log, keyring=keyring, lock=lock)
    await app.start(inherited)
    announce(app, loaded, settings.listen)
    notifier.ready(f"listening on {app.address}")
    watchdog = _start_watchdog(notifier, environ, app)
    status = ServiceStatus(notifier, lambda: status_line(app), lambda: app.lifecycle.draining)
    if notifier.has_a_manager:
        status.start()
    # What was made for the start stays to the end. A full collection would look through all of
    # it, tens of milliseconds during which no token moves.
    gc.collect()
    gc.freeze()
    # Streams under way are alive, not garbage: at the default of 700 new objects a look at
    # them would come with every fifth stream.
    gc.set_threshold(_GC_AFTER)
    await stop.wait()
    lock.say_draining()
    logger.info("stopping: no new calls; running answers get %s s", in_digits(settings.drain_s))
    notifier.stopping()
    await app.stop(cut)
    status.stop()
    if watchdog is not None:
        watchdog.stop()
    notifier.close()


class Watchdog:
    """Tells systemd that the event loop turns, from the event loop itself.

    Nothing is told once ``alive`` says no: then something hangs that only a restart cures.
    """

    def __init__(
        self, notifier: systemd.Notifier, every_s: float, alive: Callable[[], bool]
    ) -> None:
        self._notifier = notifier
        self._every_s = every_s
        self._alive = alive
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._alive():
            self._notifier.watchdog()
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _start_watchdog(
    notifier: systemd.Notifier, environ: Mapping[str, str], app: App
) -> Watchdog | None:
    every_s = systemd.watchdog_interval(environ, os.getpid())
    if every_s is None:
        return None
    watchdog = Watchdog(notifier, every_s, lambda: app.store.alive)
    watchdog.start()
    return watchdog


def _inherited(environ: Mapping[str, str]) -> list[socket.socket]:
    sockets = systemd.listen_sockets(environ, os.getpid())
    return systemd.by_name(environ, sockets).get("proxy", sockets)


def _widest(sockets: list[socket.socket]) -> Address:
    """Where the manager's sockets really listen: what the Host check has to know."""
    addresses = [address_of(sock) for sock in sockets]
    beyond = [address for address in addresses if not is_loopback(address.host)]
    return (beyond or addresses)[0]


def signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Events for the first SIGTERM or SIGINT (stop) and for the second (cut).

    SIGHUP stops too, but never cuts: the end of one terminal may send it twice. Where it is
    ignored at the start, as under nohup, it stays ignored.
    """
    stop, cut = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            cut.set()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, stop.set)
    return stop, cut


def announce(app: App, loaded: LoadedPolicy, listen: Address) -> None:
    """The first lines anyone reads: where, in front of what, under which policy.

    ``listen``: where it was to listen, which says who can reach it.
    """
    logger.info(
        "%s listens on http://%s in front of http://%s",
        *(version("modelsplit"), app.address, app.target.authority),
    )
    logger.info(
        "policy %s (%s), admin http://%s", loaded.source, loaded.short_digest, app.admin_address
    )
    if app.agent_address is not None:
        logger.info("HAProxy's agent-check is answered at %s", app.agent_address)
    for line in budget_text.announced(loaded.policy.budgets):
        logger.info("%s", line)
    if app.keyring is not None:
        text = "keys %s (%d): nobody is served without one"
        logger.info(text, app.keyring.source, len(app.keyring.keys))
    elif not is_loopback(listen.host):
        logger.warning(_OPEN, app.address)
    assert app.address is not None
    port, everywhere = app.address.port, listen.host in _EVERYWHERE
    # Nobody can connect to 0.0.0.0.
    here = f"127.0.0.1:{port}" if everywhere else app.address
    logger.info("point a client here:  export OLLAMA_HOST=http://%s", here)
    if everywhere:
        name = socket.gethostname()
        logger.info("from other machines:  export OLLAMA_HOST=http://%s:%d", name, port)


def wants_json(settings: Settings) -> bool:
    if settings.log_format == "auto":
        return not sys.stdout.isatty()
    return settings.log_format == "json"


def stdout_sink(data: bytes) -> None:
    """Past Python's buffer: a thread that hangs in it would have the end of the process hang."""
    streams.write(streams.STDOUT, data)


def talk(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
