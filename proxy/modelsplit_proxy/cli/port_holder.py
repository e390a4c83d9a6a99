"""Who has a port that we were to listen on: another modelsplit, or somebody else."""

from __future__ import annotations

import http.client
import re
import shlex
import socket
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import orjson

from modelsplit_policy.hints import asking
from modelsplit_proxy.app import PortBusyError, bind
from modelsplit_proxy.config.settings import Address, other_than_default

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.config.settings import Settings
    from modelsplit_proxy.storage.state_lock import StateBusyError

_TIMEOUT_S: Final = 1.0
# What a program has by default that stands in front of Ollama, ours and two others.
_SHARED: Final = 11435
# What is named instead, or one of so many above it.
_TRIES: Final = 20
_SPARE: Final = MappingProxyType({"--listen": 11500, "--admin": 11501, "--agent": 11502})
# What we answer an agent-check with.
_AGENT_LINE: Final = re.compile(rb"(up ready \d+%|drain|down #Ollama is away)\n")


def explained(error: PortBusyError, settings: Settings) -> str:
    """The error, with who is there and what to do about every address that is taken, at once.

    The state directory is ours by then: nobody asks for ports before it has that.
    """
    taken = _among(error.taken, settings)
    if not taken:
        return str(error)
    advice = _typed(others(taken))
    if any(is_ours(address, flag) for flag, address in taken.items()):
        status = asking("modelsplit status", other_than_default(settings.admin))
        return (
            f"{error}; it is a modelsplit that runs there: see `{status}`, or give this one "
            f"addresses of its own, as in {advice}"
        )
    is_shared = any(address.port == _SHARED for address in taken.values())
    shared = " (other programs in front of Ollama use 11435 too)" * is_shared
    return f"{error}{shared}; choose {'others' if len(taken) > 1 else 'another'}, as in {advice}"


def beside(error: StateBusyError, settings: Settings) -> str:
    """The error of who cannot have the state; where it may run beside, with all that it needs."""
    if error.elsewhere is None:
        return str(error)
    taken = {flag: at for flag, at in _addresses(settings).items() if at.port and not _is_free(at)}
    state = f"--state {shlex.quote(str(error.elsewhere))}"
    return f"{error}, as in {' '.join(filter(None, (state, _typed(others(taken)))))}"


def _addresses(settings: Settings) -> dict[str, Address]:
    """Each address to listen on, by its flag."""
    named = {"--listen": settings.listen, "--admin": settings.admin, "--agent": settings.agent}
    return {flag: address for flag, address in named.items() if address is not None}


def _among(taken: tuple[Address, ...], settings: Settings) -> dict[str, Address]:
    return {flag: at for flag, at in _addresses(settings).items() if at in taken}


def others(taken: Mapping[str, Address]) -> dict[str, str]:
    """Each of the flags with another port, one that is free now."""
    return {flag: _other(flag, address) for flag, address in taken.items()}


def _typed(addresses: Mapping[str, str]) -> str:
    return " ".join(f"{flag} {address}" for flag, address in addresses.items())


def _other(flag: str, address: Address) -> str:
    ports = range(_SPARE[flag], _SPARE[flag] + _TRIES * len(_SPARE), len(_SPARE))
    spare = (Address(address.host, port) for port in ports)
    return str(next(filter(_is_free, spare), Address(address.host, 0)))


def _is_free(address: Address) -> bool:
    """Whether it can be listened on; where that cannot be seen, it is taken to be."""
    try:
        bind(address).close()
    except PortBusyError as error:
        return not error.taken
    return True


def is_ours(address: Address, flag: str) -> bool:
    """Whether who answers there says that it is a modelsplit; ``flag``: which of its ports.

    What is asked is answered by whoever listens there itself, also while its Ollama hangs
    (RFC 9110 §7.6.2).
    """
    if flag == "--agent":
        return _is_agent(address)
    method, path = ("GET", "/healthz") if flag == "--admin" else ("OPTIONS", "/")
    via, body = _answer(address, method, path)
    return "modelsplit" in via or _is_healthz(body)


def is_admin(address: Address) -> bool:
    """Whether who answers there is the admin port of a modelsplit, and not another one of it."""
    return _is_healthz(_answer(address, "GET", "/healthz")[1])


def _answer(address: Address, method: str, path: str) -> tuple[str, bytes]:
    """The ``Via`` and the body of an answer; empty where there is none."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, headers={"Max-Forwards": "0"})
        response = connection.getresponse()
        return response.getheader("Via") or "", response.read(65536)
    except (OSError, http.client.HTTPException):
        return "", b""
    finally:
        connection.close()


def _is_healthz(body: bytes) -> bool:
    try:
        return "shedding" in orjson.loads(body)["health"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return False


def _is_agent(address: Address) -> bool:
    try:
        with socket.create_connection((address.host, address.port), _TIMEOUT_S) as connection:
            return _AGENT_LINE.fullmatch(connection.recv(64)) is not None
    except OSError:
        return False
