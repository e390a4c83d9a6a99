"""Who may write on the admin port: this machine or a key's holder, and no web page of others.

A browser sends a simple POST to any address without asking first, with the address of the
machine it runs on. So what a page of another origin can send is refused by what it cannot help
sending (``Origin``, ``Sec-Fetch-Site``) and by what it cannot send without being asked about
first (a content type of JSON).
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from modelsplit_policy.failures import ErrorCode, Failure, Reason, said_back

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

BODY_MAX: Final = 4096
"""Bytes of what is written there, at most."""

# What a browser says of a request of its own page, or of its user's.
_OWN_SITE: Final = frozenset({"same-origin", "none"})


def cross_site(sent: CIMultiDictProxy[str]) -> Failure | None:
    """What to answer a request that a page of another origin may have sent; None: it is none."""
    site = sent.get("Sec-Fetch-Site")
    if site is not None and site.lower() not in _OWN_SITE:
        return _refused(f'Sec-Fetch-Site is "{said_back(site, 20)}"')
    origin = sent.get("Origin")
    if origin is not None and not _is_own(origin, sent.get("Host", "")):
        return _refused(f'Origin is "{said_back(origin, 60)}"')
    return None


def is_json(sent: CIMultiDictProxy[str]) -> bool:
    """Whether the content type, if one is said, is JSON's."""
    raw = sent.getall("Content-Type", ())
    return all(_media_type(value) == "application/json" for value in raw)


def is_this_machine(remote: str) -> bool:
    """Whether a peer's address is a loopback one."""
    try:
        address = ipaddress.ip_address(remote)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _is_own(origin: str, host: str) -> bool:
    """Whether the page comes from the very address that it asks."""
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(host) and parts.netloc == host.lower()


def _media_type(raw: str) -> str:
    return raw.partition(";")[0].strip().lower()


def _refused(what: str) -> Failure:
    return Failure(
        ErrorCode.FORBIDDEN,
        Reason.ORIGIN_DENIED,
        f"{what}: web pages of other origins may not write here",
        "Origin Denied",
    )
