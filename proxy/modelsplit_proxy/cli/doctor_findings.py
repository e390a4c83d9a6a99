"""What ``modelsplit doctor`` looks at and finds: a cause, and the command that mends it."""

from __future__ import annotations

import http.client
import shlex
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from modelsplit_proxy.http.origin_guard import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from modelsplit_policy.config.model import Policy
    from modelsplit_proxy.config.settings import Address, Settings
    from modelsplit_proxy.runtime.clock import Clock

_TIMEOUT_S: Final = 5.0
_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_MAX_BYTES: Final = 4 * 1024 * 1024


class Finding(NamedTuple):
    """Something to mend. ``step``: the command that does, or shows how."""

    check: str
    cause: str
    step: str


class Unseen(NamedTuple):
    """Something that could not be looked at, and why."""

    check: str
    why: str


class Answer(NamedTuple):
    """An answer of HTTP. ``body``: the JSON it holds; None: it holds none."""

    status: int
    via: str
    body: Any


@dataclass(frozen=True, slots=True)
class Look:
    """Where checks look.

    ``policy``: None where it cannot be read. ``stats``: what the running proxy says; None where
    none answers. ``state``: the state directory. ``version``, ``installed`` and ``loaded``:
    Ollama's answers; None: it gave none. ``hangs``: it takes connections and answers nothing.
    ``run``: see ``output_of``. ``hosts``: what each host of the policy says of its version.
    ``flags``: the settings that were said as flags, by these.
    """

    settings: Settings
    environ: Mapping[str, str]
    policy: Policy | None
    stats: Mapping[str, Any] | None
    state: Path
    version: Answer | None
    installed: Answer | None
    loaded: Answer | None
    clock: Clock
    run: Callable[[Sequence[str]], str | None]
    proc: Path = Path("/proc")
    hangs: bool = False
    hosts: Mapping[str, Answer | None] = field(default_factory=dict)
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def serve(self, also: str = "", instead: Mapping[str, str] = _NONE) -> str:
        """The command that serves what is looked at: ``modelsplit serve`` with the same flags.

        ``instead``: values of flags that are to be others; ``also``: what stands behind all.
        """
        said = {**self.flags, **{flag: (value,) for flag, value in instead.items()}}
        typed = [
            f"{flag} {shlex.quote(value)}" for flag, values in said.items() for value in values
        ]
        return " ".join(["modelsplit serve", *typed, *filter(None, (also,))])


def get(address: Address, path: str) -> Answer | None:
    """Ask once; None: nobody answers."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        raw = response.read(_MAX_BYTES)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    return Answer(response.status, response.getheader("Via") or "", body)


def listens(address: Address) -> bool:
    """Whether somebody takes connections there."""
    try:
        with socket.create_connection((address.host, address.port), timeout=_TIMEOUT_S):
            return True
    except OSError:
        return False


def output_of(command: Sequence[str]) -> str | None:
    """What a program prints; None: there is no such program here, it failed, or it hung."""
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def rows_of(answer: Answer | None) -> list[Mapping[str, Any]] | None:
    """The models in one of Ollama's lists; None: there is no such list."""
    if answer is None or not isinstance(answer.body, dict):
        return None
    rows = answer.body.get("models")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else None


def is_here(address: Address) -> bool:
    """Whether it is this machine's loopback."""
    return is_loopback(address.host)
