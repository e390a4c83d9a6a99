"""Who the client is behind a web server that is trusted to say so."""

from __future__ import annotations

import ipaddress

import pytest

from modelsplit_proxy.http.trusted_proxies import TrustedProxies
from support.harness import running

TRUSTED = TrustedProxies([ipaddress.ip_network("127.0.0.1"), ipaddress.ip_network("10.0.0.0/8")])


def sent(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"Host", b"x"), *((b"X-Forwarded-For", value.encode()) for value in values)]


@pytest.mark.parametrize(
    ("peer", "values", "client"),
    [
        ("127.0.0.1", ("192.0.2.7",), "192.0.2.7"),
        ("127.0.0.1", (), "127.0.0.1"),
        # Who is not trusted may write what he likes.
        ("192.0.2.9", ("192.0.2.7",), "192.0.2.9"),
        # What a client wrote itself stands before what the server added.
        ("127.0.0.1", ("1.1.1.1, 192.0.2.7",), "192.0.2.7"),
        ("127.0.0.1", ("1.1.1.1", "192.0.2.7"), "192.0.2.7"),
        # Two servers, one behind the other.
        ("127.0.0.1", ("192.0.2.7, 10.0.0.3",), "192.0.2.7"),
        ("127.0.0.1", ("10.0.0.4, 10.0.0.3",), "10.0.0.4"),
        ("127.0.0.1", ("192.0.2.7:4711",), "192.0.2.7"),
        ("127.0.0.1", ("[2001:db8::7]:4711",), "2001:db8::7"),
        ("127.0.0.1", ("2001:db8::7",), "2001:db8::7"),
        ("::ffff:127.0.0.1", ("192.0.2.7",), "192.0.2.7"),
        ("127.0.0.1", ("unknown",), "127.0.0.1"),
        ("127.0.0.1", ("192.0.2.7, unknown, 10.0.0.3",), "10.0.0.3"),
        ("127.0.0.1", (" ",), "127.0.0.1"),
        ("", ("192.0.2.7",), ""),
    ],
)
def test_the_client_is_the_last_that_is_not_trusted(
    peer: str, values: tuple[str, ...], client: str
) -> None:
    assert TRUSTED.client(peer, sent(*values)) == client


@pytest.mark.parametrize(("trusted", "client"), [(True, "192.0.2.7"), (False, "127.0.0.1")])
async def test_records_know_the_client_behind_a_trusted_server(trusted: bool, client: str) -> None:
    networks = (ipaddress.ip_network("127.0.0.1"),) * trusted
    async with running(trust_proxies=networks) as up, up.client() as here:
        body = {"model": "planner", "prompt": "hi", "stream": False}
        await here.request("POST", "/api/generate", body, {"X-Forwarded-For": "192.0.2.7"})
        [record] = await up.calls.wait()
    assert record.client == client
