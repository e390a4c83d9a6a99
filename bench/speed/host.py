"""Processes pinned to cores, free ports, and waiting until a proxy answers. Linux only."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_POLL_S = 0.05
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the load side (mock and load generator) runs, and where the proxy under test."""

    load: int
    proxy: int

    def __str__(self) -> str:
        return f"{self.load},{self.proxy}"


def two_cores() -> Cores:
    """The first two that this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise SystemExit("run_speed: two cores are needed, one for the load and one for the proxy")
    return Cores(usable[0], usable[1])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started within runs on this core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def running(
    argv: list[str], core: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A child on a core, its stderr in ``log`` and its stdout beside it; stopped at the end."""
    with log.open("w") as talk, log.with_suffix(".out").open("w") as out:
        with pinned(core):
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=talk,
                env={**os.environ, **(env or {})},
                text=True,
            )
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def first_line(path: Path, child: subprocess.Popen[str], within_s: float = 10.0) -> str:
    """The first whole line that a child wrote into a file."""
    until = time.monotonic() + within_s
    while time.monotonic() < until and child.poll() is None:
        line, end, _ = path.read_text().partition("\n")
        if end:
            return line
        time.sleep(_POLL_S)
    raise RuntimeError(f"{path.name}: the process said nothing")


def call(port: int, route: str, model: str, *, within_s: float = 10.0) -> int:
    """The status of a call for a short answer."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": False}
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=within_s)
    try:
        client.request("POST", route, json.dumps(body), {"Content-Type": "application/json"})
        answer = client.getresponse()
        answer.read()
    finally:
        client.close()
    return answer.status


def answers(
    child: subprocess.Popen[str], port: int, route: str, model: str, *, within_s: float
) -> str | None:
    """None as soon as a call is answered with 200, else what went wrong last."""
    until = time.monotonic() + within_s
    trouble = "never asked"
    while time.monotonic() < until and child.poll() is None:
        try:
            status = call(port, route, model, within_s=within_s)
        except (OSError, http.client.HTTPException) as error:
            trouble = str(error) or type(error).__name__
        else:
            if status == HTTPStatus.OK:
                return None
            trouble = f"status {status}"
        time.sleep(_POLL_S)
    return trouble


def fetch(port: int, path: str) -> str:
    """A page of the admin port."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        client.request("GET", path)
        return client.getresponse().read().decode()
    finally:
        client.close()
