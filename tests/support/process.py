"""Real processes: started, read line by line, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from support.ports import kept_port
from support.wire import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TESTS = str(Path(__file__).parents[1])
# Nothing of the tester's own environment decides a test.
BARE = {
    name: value
    for name, value in os.environ.items()
    if name in {"PATH", "PYTHONPATH", "HOME", "LANG", "COVERAGE_PROCESS_CONFIG", "TMPDIR"}
    or name.startswith("COV")
} | {"TZ": "UTC"}
# Where a child finds what of ``support`` it runs.
_PATHS = {"PYTHONPATH": os.pathsep.join(filter(None, (TESTS, BARE.get("PYTHONPATH"))))}

# LISTEN_PID has to be the child's own: it sets it, then becomes the proxy.
_ACTIVATED = """
import os, sys
fd, module, *options = sys.argv[1:]
os.dup2(int(fd), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="proxy")
os.execv(sys.executable, [sys.executable, "-m", module, "serve", *options])
"""


@dataclass
class Process:
    """A child with its stderr as lines; its stdout too, unless it went elsewhere."""

    child: asyncio.subprocess.Process
    port: int = 0
    admin_port: int = 0

    async def talk(self, containing: str) -> str:
        """The next line of stderr that contains a text."""
        return await _line(self.child.stderr, containing)

    async def said(self, containing: str = "") -> str:
        """The next line of stdout that contains a text."""
        return await _line(self.child.stdout, containing)

    def client(self) -> Client:
        return Client(self.port)

    def admin(self) -> Client:
        return Client(self.admin_port)

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    async def ended(self) -> int:
        return await self.child.wait()

    async def outcome(self) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        out, talk = await self.child.communicate()
        assert self.child.returncode is not None
        return self.child.returncode, (out or b"").decode(), (talk or b"").decode()


async def _line(stream: asyncio.StreamReader | None, containing: str) -> str:
    assert stream is not None
    seen = []
    while raw := (await stream.readline()).decode():
        line = _as_text(raw)
        seen.append(line)
        if containing in line:
            return line
    raise AssertionError(f"no line with {containing!r} in {seen}")


def _as_text(line: str) -> str:
    """A line of our own log as it is in text but for the time, whatever its format."""
    if not line.startswith('{"ts"') or '"event": "log"' not in line:
        return line
    fields = orjson.loads(line)
    level = "" if fields["level"] == "info" else f"{fields['level']}: "
    return f"modelsplit: {level}{fields['message']}\n"


@contextlib.asynccontextmanager
async def spawned(
    *arguments: str,
    env: dict[str, str] | None = None,
    stdout: int = asyncio.subprocess.PIPE,
    stderr: int = asyncio.subprocess.PIPE,
    closed_stdout: bool = False,
    wrapper: tuple[str, ...] = (),
) -> AsyncIterator[Process]:
    """``python -m …``; killed at the end, should it still run.

    ``closed_stdout``: a pipe whose reader has gone. ``wrapper``: a command that becomes the
    one it is given, see ``redirected``.
    """
    if closed_stdout:
        read_end, stdout = os.pipe()
        os.close(read_end)
    child = await asyncio.create_subprocess_exec(
        *wrapper,
        sys.executable,
        "-m",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=BARE | (env or {}),
        limit=2**20,
    )
    if closed_stdout:
        os.close(stdout)
    try:
        yield Process(child)
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.communicate()


@contextlib.asynccontextmanager
async def ollama(*options: str) -> AsyncIterator[tuple[int, Client]]:
    """The stand-in as a process: its port, and a client of its control port."""
    async with spawned("modelsplit_sim", *options) as process:
        ports: dict[str, Any] = orjson.loads(await process.said())
        async with Client(ports["control_port"]) as control:
            yield ports["port"], control


@contextlib.asynccontextmanager
async def serving(
    upstream: int,
    state: Path,
    *options: str,
    env: dict[str, str] | None = None,
    closed_stdout: bool = False,
    wrapper: tuple[str, ...] = (),
    patient: bool = True,
) -> AsyncIterator[Process]:
    """``modelsplit serve`` on free ports, once it says that it listens.

    Not ``patient``: its bounds on the disk are its own, for a test of what they bound.
    """
    arguments = (
        "support.patient" if patient else "modelsplit_proxy",
        *("serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
        *("--upstream", f"http://127.0.0.1:{upstream}", "--state", str(state), *options),
    )
    async with spawned(
        *arguments, env=_PATHS | (env or {}), closed_stdout=closed_stdout, wrapper=wrapper
    ) as process:
        first = await process.talk(" listens on http://")
        process.port = _port(first.partition(" listens on ")[2])
        process.admin_port = _port((await process.talk(", admin http://")).partition(", admin ")[2])
        yield process


@contextlib.asynccontextmanager
async def serving_unheard(
    upstream: int, state: Path, *options: str, **how: Any
) -> AsyncIterator[Process]:
    """The same for one whose stderr tells nothing: it says to a service manager that it is ready.

    ``how``: for ``spawned``.
    """
    with (
        kept_port() as port,
        kept_port() as admin,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        arguments = (
            *("modelsplit_proxy", "serve", "--listen", f"127.0.0.1:{port}"),
            *("--admin", f"127.0.0.1:{admin}", "--upstream", f"http://127.0.0.1:{upstream}"),
            *("--state", str(state), *options),
        )
        manager.bind(str(state / "notify"))
        manager.setblocking(False)
        env = {"NOTIFY_SOCKET": str(state / "notify")}
        async with spawned(*arguments, env=env, **how) as process:
            process.port, process.admin_port = port, admin
            told = await asyncio.get_running_loop().sock_recv(manager, 4096)
            assert told.startswith(b"READY=1\n")
            yield process


@contextlib.asynccontextmanager
async def activated(
    listener: socket.socket,
    upstream: int,
    state: Path,
    *options: str,
    env: dict[str, str] | None = None,
    module: str = "modelsplit_proxy",
) -> AsyncIterator[Process]:
    """``modelsplit serve`` on a socket that it is given, as systemd does.

    ``module``: that, or one of ``support`` that serves as it does.
    """
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _ACTIVATED, str(listener.fileno()), module),
        *("--admin", "127.0.0.1:0"),
        *("--upstream", f"127.0.0.1:{upstream}", "--state", str(state), *options),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=(listener.fileno(),),
        env=BARE | _PATHS | (env or {}),
    )
    process = Process(child, port=listener.getsockname()[1])
    try:
        assert f":{process.port} " in await process.talk(" listens on ")
        process.admin_port = _port((await process.talk(", admin http://")).partition(", admin ")[2])
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.communicate()


def redirected(redirections: str) -> tuple[str, ...]:
    """A wrapper: the command with a shell's redirections, such as ``2>&-``."""
    return ("/bin/sh", "-c", f'exec "$@" {redirections}', "sh")


def hangup(disposition: str) -> tuple[str, ...]:
    """A wrapper: the command with SIGHUP as ``SIG_DFL`` or, as under nohup, ``SIG_IGN``."""
    become = "os.execv(sys.argv[1], sys.argv[1:])"
    code = f"import os, signal, sys; signal.signal(signal.SIGHUP, signal.{disposition}); {become}"
    return (sys.executable, "-c", code)


def _port(text: str) -> int:
    return int(text.split(maxsplit=1)[0].rpartition(":")[2])
