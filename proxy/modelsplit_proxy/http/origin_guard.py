"""Who may speak to the proxy at all: the Host and Origin checks.

A loopback-bound Ollama refuses foreign Host and Origin values, which is what keeps a web
page the user happens to visit from driving it (DNS rebinding, CVE-2024-28224). The proxy
rewrites Host, which switches that guard off, so it has to stand here instead.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from modelsplit_policy.failures import ErrorCode, Failure, Reason, said_back

# What Ollama itself lets in (observed): browsers' local pages and desktop shells.
_LOCAL_SCHEMES: Final = frozenset({"app", "file", "tauri", "vscode-webview", "vscode-file"})
_HOST: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::[0-9]*)?")
# Names nobody can register: mDNS, and what containers call their host.
_OLLAMAS_SUFFIXES: Final = (".localhost", ".local", ".internal")
_REMEMBERED: Final = 64
_HOST_MAX: Final = 255
_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "0.0.0.0", "::1"})


class OriginGuard:
    """The allow-lists: loopback names and the listen address always, more by setting.

    ``machine``: this host's name, where all names are allowed that Ollama answers to as well.
    """

    def __init__(
        self,
        listen_host: str,
        allow_hosts: tuple[str, ...],
        allow_origins: tuple[str, ...],
        *,
        machine: str | None = None,
    ) -> None:
        allowed = [_host_name(host) or host.lower() for host in allow_hosts]
        self._hosts = {"localhost", listen_host.lower(), *allowed}
        self._suffixes: tuple[str, ...] = (".localhost",)
        self._any_private = machine is not None
        if machine is not None:
            self._hosts.add(machine.lower())
            self._suffixes = _OLLAMAS_SUFFIXES
        origins = [origin.lower().rstrip("/") for origin in allow_origins]
        self._origins = {origin for origin in origins if "*" not in origin}
        self._origin_patterns = [origin.partition("*") for origin in origins if "*" in origin]
        # Rebinding needs a name. Bound beyond loopback, addresses are how clients call us.
        self._any_address = not is_loopback(listen_host)
        # Values of Host that have passed: nearly all clients send one of two or three.
        self._passed: set[str] = set()

    def check(self, host: str | None, origin: str | None) -> Failure | None:
        """None if the request may pass; else the failure to answer with."""
        if host and host not in self._passed and not self._passes(host):
            return Failure(
                ErrorCode.FORBIDDEN,
                Reason.HOST_DENIED,
                f'Host "{said_back(host, 60)}" is not allowed here; start modelsplit with '
                "--allow-host to add it",
                "Host Denied",
            )
        if origin is not None and not self._origin_allowed(origin):
            return Failure(
                ErrorCode.FORBIDDEN,
                Reason.ORIGIN_DENIED,
                f'Origin "{said_back(origin, 60)}" is not allowed here; start modelsplit with '
                "--allow-origin to add it",
                "Origin Denied",
            )
        return None

    def _passes(self, host: str) -> bool:
        allowed = self._host_allowed(host)
        if allowed and len(self._passed) < _REMEMBERED and len(host) <= _HOST_MAX:
            self._passed.add(host)
        return allowed

    def _host_allowed(self, host: str) -> bool:
        name = _host_name(host)
        if name in self._hosts or name.endswith(self._suffixes):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        if address.is_loopback or self._any_address:
            return True
        return self._any_private and (address.is_private or address.is_unspecified)

    def _origin_allowed(self, origin: str) -> bool:
        lowered = origin.lower().rstrip("/")
        if lowered in self._origins or self._fits_a_pattern(lowered):
            return True
        try:
            parts = urlsplit(lowered)
        except ValueError:
            return False
        if parts.scheme in _LOCAL_SCHEMES:
            return True
        return parts.scheme in {"http", "https"} and parts.hostname in _LOCAL_NAMES

    def _fits_a_pattern(self, origin: str) -> bool:
        """As in ``OLLAMA_ORIGINS``, one ``*`` stands for any text."""
        return any(
            len(origin) >= len(head) + len(tail)
            and origin.startswith(head)
            and origin.endswith(tail)
            for head, _, tail in self._origin_patterns
        )


def _host_name(host: str) -> str:
    """The name in ``name``, ``name:port`` or ``[v6]:port``, lower case; else nothing."""
    match = _HOST.fullmatch(host.strip().lower())
    return "" if match is None else match[1] or match[2]


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
