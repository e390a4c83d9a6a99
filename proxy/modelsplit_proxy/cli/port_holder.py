"""Who has a port that we were to listen on: another modelsplit, or somebody else."""

from __future__ import annotations

import http.client
import re
import socket
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import orjson

from modelsplit_policy.hints import asking
from modelsplit_proxy.config.settings import other_than_default

if TYPE_CHECKING:
    from modelsplit_proxy.app import PortBusyError
    from modelsplit_proxy.config.settings import Address, Settings

_TIMEOUT_S: Final = 1.0
# What a program has by default that stands in front of Ollama, ours and two others.
_SHARED: Final = 11435
# What is named instead.
_SPARE: Final = MappingProxyType({"--listen": 11500, "--admin": 11501, "--agent": 11502})
# What we answer an agent-check with.
_AGENT_LINE: Final = re.compile(rb"(up ready \d+%|drain|down #Ollama is away)\n")


def explained(error: PortBusyError, settings: Settings) -> str:
    """The error, with who is there and what to do where an address is taken."""
    addresses = {
        "--listen": settings.listen,
        "--admin": settings.admin,
        "--agent": settings.agent,
    }
    for flag, address in addresses.items():
        if error.is_taken and address is not None and str(address) in str(error):
            status = asking("modelsplit status", other_than_default(settings.admin))
            return f"{error}{_who(flag, address, status)}"
    return str(error)


def _who(flag: str, address: Address, status: str) -> str:
    advice = other(flag, address)
    if is_ours(address, flag):
        return (
            f"; it is a modelsplit that runs there: see `{status}`, or give this one "
            f"ports and a --state of its own, as in {advice}"
        )
    shared = " (other programs in front of Ollama use 11435 too)" * (address.port == _SHARED)
    return f"{shared}; choose another, as in {advice}"


def other(flag: str, address: Address) -> str:
    """The flag with another port."""
    return f"{flag} {address.host}:{_SPARE[flag]}"


def is_ours(address: Address, flag: str) -> bool:
    """Whether who answers there says that it is a modelsplit; ``flag``: which of its ports.

    What is asked is answered by whoever listens there itself, also while its Ollama hangs
    (RFC 9110 §7.6.2).
    """
    if flag == "--agent":
        return _is_agent(address)
    method, path = ("GET", "/healthz") if flag == "--admin" else ("OPTIONS", "/")
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, headers={"Max-Forwards": "0"})
        response = connection.getresponse()
        body = response.read(65536)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return "modelsplit" in (response.getheader("Via") or "") or _is_healthz(body)


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
