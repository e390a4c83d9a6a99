"""What is used of aiohttp's server, and aiohttp's first import in a process that serves.

As it is imported aiohttp makes the TLS context of its client and reads all of the machine's
certificate authorities for it: two megabytes, and a sixth of the CPU of a start. Whoever uses its
client here brings a context, so it is shown an empty file instead. That context trusts nobody;
contexts that others make later are as ever.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# Where OpenSSL looks for authorities.
_AUTHORITIES: Final = "SSL_CERT_FILE"


@contextmanager
def _without_authorities() -> Iterator[None]:
    named = os.environ.get(_AUTHORITIES)
    os.environ[_AUTHORITIES] = os.devnull
    try:
        yield
    finally:
        del os.environ[_AUTHORITIES]
        if named is not None:
            os.environ[_AUTHORITIES] = named


with _without_authorities():
    from aiohttp import web
    from aiohttp.http import HttpProcessingError, RawRequestMessage
    from aiohttp.http_exceptions import LineTooLong
    from aiohttp.streams import EMPTY_PAYLOAD
    from aiohttp.web_protocol import _ErrInfo as ErrInfo

__all__ = (
    "EMPTY_PAYLOAD",
    "ErrInfo",
    "HttpProcessingError",
    "LineTooLong",
    "RawRequestMessage",
    "web",
)
