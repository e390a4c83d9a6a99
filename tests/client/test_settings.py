"""Addresses, and what every request is made of."""

from __future__ import annotations

import httpx
import pytest

from modelsplit_client import ProxyConnectionError, ProxyTimeoutError
from modelsplit_client.calls import Call
from modelsplit_client.settings import READ_TIMEOUT, Settings, settings
from support.policies import SHIPPED


def made(
    base_url: str = "http://127.0.0.1:11435",
    admin_url: str | None = None,
    api_key: str | None = None,
    **of: float,
) -> Settings:
    return settings(base_url, admin_url, api_key, "ollama", of.get("read_timeout", 9.0), 0.0)


@pytest.mark.parametrize(
    ("base", "url", "admin"),
    [
        ("http://127.0.0.1:11435", "http://127.0.0.1:11435", "http://127.0.0.1:11436"),
        ("http://127.0.0.1:11435/", "http://127.0.0.1:11435", "http://127.0.0.1:11436"),
        ("gpu.example:8000", "http://gpu.example:8000", "http://gpu.example:8001"),
        ("http://gpu.example", "http://gpu.example", "http://gpu.example:81"),
        ("https://llm.example/split/", "https://llm.example/split", "https://llm.example:444"),
        ("http://[::1]:11435", "http://[::1]:11435", "http://[::1]:11436"),
    ],
)
def test_jobs_are_reported_at_the_next_port(base: str, url: str, admin: str) -> None:
    assert (made(base).base_url, made(base).admin_url) == (url, admin)


def test_or_where_it_is_said() -> None:
    assert made(admin_url="http://127.0.0.1:9100/").admin_url == "http://127.0.0.1:9100"


@pytest.mark.parametrize("url", ["", "http://", "ftp://x", "http://x:port", "unix:///run/x.sock"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        made(url)
    with pytest.raises(ValueError, match="no address"):
        made(admin_url=url)


def test_a_request_is_an_address_headers_and_bytes() -> None:
    url, headers, content = made(api_key="secret").request(Call("PLANNER", "Zürich \ud83d"))
    assert url == "http://127.0.0.1:11435/api/generate"
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Accept-Encoding"] == "identity"
    assert '"prompt": "Zürich ?"'.encode() in content


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        made().request(Call("", options={"options": {"temperature": float("nan")}}))


def test_silence_is_told_apart_from_nobody() -> None:
    nobody = made().unanswered(httpx.ConnectError("refused"))
    assert str(nobody) == "modelsplit at http://127.0.0.1:11435 does not answer: refused"
    assert not isinstance(nobody, ProxyTimeoutError)
    silent = made().unanswered(httpx.ReadTimeout(""))
    assert isinstance(silent, ProxyTimeoutError)
    assert str(silent).endswith("is silent (5 s to connect, 9 s of silence)")
    assert isinstance(made().unanswered(httpx.ReadError("")), ProxyConnectionError)
    assert str(made().unanswered(httpx.ReadError(""))).endswith("does not answer: ReadError")


def test_the_clients_own_bound_is_beyond_every_bound_of_the_shipped_policy() -> None:
    roles = SHIPPED["roles"].values()
    longest = max(
        role.get("max_wait_ms", 0)
        + 2 * SHIPPED["load_timeout_ms"]
        + max(
            role.get("first_byte_timeout_ms") or 900_000,
            (role.get("timeout_ms") or 0) + (role.get("fallback_timeout_ms") or 0),
        )
        for role in roles
    )
    assert longest / 1000 < READ_TIMEOUT
