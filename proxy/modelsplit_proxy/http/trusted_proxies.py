"""Whose ``X-Forwarded-For`` is believed: a web server in front that does TLS for us.

Behind one, every connection comes from it. Fairness, limits, logs and records go by the client's
address, which it puts at the end of that header. What stands before that, anybody may have written.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HEADER: Final = b"x-forwarded-for"


class TrustedProxies:
    """The networks that such servers connect from."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)

    def client(self, peer: str, raw_headers: Sequence[tuple[bytes, bytes]]) -> str:
        """The address of the client behind ``peer``, who connected; ``peer`` itself if it is one.

        The header's last address that is no such server's. Where it is damaged, what was still
        readable of it from the end.
        """
        if not self._trusts(peer):
            return peer
        last = peer
        for entry in reversed(_entries(raw_headers)):
            address = _address(entry)
            if address is None:
                break
            last = str(address)
            if not self._trusts(last):
                break
        return last

    def _trusts(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self._networks)


def _entries(raw_headers: Sequence[tuple[bytes, bytes]]) -> list[str]:
    """All of the header's values, in order (RFC 9110 §5.3)."""
    return [
        part.strip()
        for name, value in raw_headers
        if name.lower() == _HEADER
        for part in value.decode("latin-1").split(",")
    ]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address as proxies write it: bare, in brackets, or with a port; None: it is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
