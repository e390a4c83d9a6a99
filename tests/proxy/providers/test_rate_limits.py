"""A provider's own limits, told on."""

from __future__ import annotations

from modelsplit_proxy.http.upstream import UpstreamHead
from modelsplit_proxy.providers.rate_limits import lines

WALL = 1_700_000_000.0


def told(**headers: str) -> list[bytes]:
    given = [
        (b"anthropic-ratelimit-" + name.replace("_", "-").encode(), value.encode())
        for name, value in headers.items()
    ]
    return lines(UpstreamHead(429, b"", given, None), WALL)


def test_each_kind_has_its_lines() -> None:
    given = told(
        requests_limit="50",
        requests_remaining="0",
        requests_reset="2023-11-14T22:13:32Z",
        input_tokens_remaining="7",
    )
    assert given == [
        b'RateLimit-Policy: "anthropic-requests";q=50\r\n',
        b'RateLimit: "anthropic-requests";r=0;t=12\r\n',
        b'RateLimit: "anthropic-input-tokens";r=7\r\n',
    ]


def test_what_cannot_be_read_is_not_told() -> None:
    assert told() == []
    assert told(requests_remaining="many\r\nX: y") == []
    assert told(tokens_remaining="1", tokens_limit="x", tokens_reset="soon") == [
        b'RateLimit: "anthropic-tokens";r=1\r\n'
    ]
    past = told(tokens_remaining="1", tokens_reset="2020-01-01T00:00:00")
    assert past == [b'RateLimit: "anthropic-tokens";r=1;t=0\r\n']
