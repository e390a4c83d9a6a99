"""Heads of answers."""

from __future__ import annotations

from modelsplit_proxy.http.upstream import UpstreamHead


def head(status: int, *pairs: tuple[bytes, bytes]) -> UpstreamHead:
    return UpstreamHead(status, b"", list(pairs), None)
