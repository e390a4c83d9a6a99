"""TLS to a cloud: only one whose certificate is good is told anything."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from modelsplit_sim.cloud import KEY, Cloud
from support.clouds import approve, cloud_policy
from support.harness import running

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.flowing_time

CALL = {"model": "cloud", "stream": False, "messages": [{"role": "user", "content": "hi"}]}


def certificate(authority: trustme.CA, name: str, **more: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **more).configure_cert(context)
    return context


async def told(tmp_path: Path, tls: ssl.SSLContext, trusted: trustme.CA | None) -> tuple[int, Any]:
    """What a client is told, and what the cloud was told if anything."""
    more: dict[str, Any] = {}
    if trusted is not None:
        trusted.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        more = {"ca_file": str(tmp_path / "ca.pem")}
    async with Cloud(tls=tls) as cloud:
        policy = cloud_policy(cloud.url.replace("127.0.0.1", "localhost"), provider=more)
        environ = {"ANTHROPIC_API_KEY": KEY}
        async with running(overlay=policy, state=tmp_path, environ=environ) as up:
            approve(tmp_path)
            async with up.client() as client:
                answer = await client.request("POST", "/api/chat", CALL)
            assert len(cloud.calls) == (answer.status == 200)
            return answer.status, answer.json


async def test_a_good_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    status, _ = await told(tmp_path, certificate(authority, "localhost"), authority)
    assert status == 200


@pytest.mark.parametrize("wrong", ["name", "expired", "unknown"])
async def test_a_certificate_that_is_not_to_be_trusted(tmp_path: Path, wrong: str) -> None:
    authority, other = trustme.CA(), trustme.CA()
    name = "example.org" if wrong == "name" else "localhost"
    yesterday = datetime.now(UTC) - timedelta(days=1)
    more = {"not_after": yesterday} if wrong == "expired" else {}
    tls = certificate(authority, name, **more)
    status, answer = await told(tmp_path, tls, other if wrong == "unknown" else authority)
    assert (status, answer["error_code"], answer["reason"]) == (
        502,
        "E_UNREACHABLE_CLOUD",
        "protocol",
    )
    assert "certificate is not to be trusted" in answer["error"]


async def test_an_authority_that_is_not_named_is_not_trusted(tmp_path: Path) -> None:
    status, _ = await told(tmp_path, certificate(trustme.CA(), "localhost"), None)
    assert status == 502


async def test_one_that_speaks_no_tls(tmp_path: Path) -> None:
    async with Cloud() as cloud:
        policy = cloud_policy(f"https://localhost:{cloud.port}")
        environ = {"ANTHROPIC_API_KEY": KEY}
        async with running(overlay=policy, state=tmp_path, environ=environ) as up:
            approve(tmp_path)
            async with up.client() as client:
                answer = await client.request("POST", "/api/chat", CALL)
            assert (answer.status, answer.json["error_code"]) == (502, "E_UNREACHABLE_CLOUD")
            assert cloud.calls == []
