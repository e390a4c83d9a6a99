"""What ``check-config --online`` and ``doctor`` say of clouds."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from modelsplit_policy.config.model import CloudPolicy
from modelsplit_proxy.cli import cloud_check
from modelsplit_proxy.cli.cloud_check import Trouble, troubles, without_key
from modelsplit_sim.cloud import KEY, Cloud
from modelsplit_sim.faults import Kind
from modelsplit_sim.server import Sim

if TYPE_CHECKING:
    from pathlib import Path

MODELS = {"claude-3-opus": "claude-3-opus-20240229"}
AT = "$.cloud.providers.a"
TYPE_IT = (
    "read -rs ANTHROPIC_API_KEY && export ANTHROPIC_API_KEY   # type it, then restart from here"
)


def policy(url: str, **row: Any) -> CloudPolicy:
    given = {"base_url": url, "models": MODELS} | row
    return CloudPolicy.model_validate({"providers": {"a": given}})


async def told(given: CloudPolicy, key: str = KEY, **more: str) -> list[Trouble]:
    environ = {"ANTHROPIC_API_KEY": key} | more
    found = await asyncio.to_thread(lambda: list(troubles(given, environ, "/p dir/policy.json")))
    assert KEY not in repr(found)
    return found


async def test_a_provider_that_knows_the_model_and_takes_the_key() -> None:
    async with Cloud() as cloud:
        assert await told(policy(cloud.url)) == []


async def test_a_model_that_it_does_not_know_with_one_that_is_like_it() -> None:
    async with Cloud() as cloud:
        given = policy(cloud.url, models={"opus": "claude-3-opus", **MODELS})
        [found] = await told(given)
    cause = (
        "a does not know claude-3-opus, which opus is to be there; it has claude-3-opus-20240229"
    )
    line = f'{AT}.models: "opus": "claude-3-opus-20240229"'
    assert found == Trouble(
        f"{AT}.models", cause, f"${{EDITOR:-vi}} '/p dir/policy.json'   # {line}"
    )


async def test_a_key_that_it_does_not_take() -> None:
    async with Cloud() as cloud:
        cause = "a does not take the key from $ANTHROPIC_API_KEY (401)"
        assert await told(policy(cloud.url), "sk-wrong") == [Trouble(AT, cause, TYPE_IT)]
        assert len(cloud.calls) == 1


async def test_no_key_is_not_asked_with() -> None:
    async with Cloud() as cloud:
        cause = "a has no key, so none of its models can be asked: $ANTHROPIC_API_KEY is not set"
        given = policy(cloud.url)
        assert await told(given, "") == [Trouble(AT, cause, TYPE_IT, no_key=True)]
        assert [*without_key(given, {})] == [Trouble(AT, cause, TYPE_IT, no_key=True)]
        assert [*without_key(given, {"ANTHROPIC_API_KEY": KEY})] == []
        assert cloud.calls == []


async def test_a_key_is_put_where_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "key"
    async with Cloud() as cloud:
        given = policy(cloud.url, key_file=str(file))
        step = f"install -m 600 /dev/stdin {file}   # type it, end with Ctrl-D, then restart"
        [missing] = await told(given)
        assert missing == Trouble(
            AT, f"the key in {file} cannot be read: No such file or directory", step
        )
        file.write_text("sk-wrong\n")
        file.chmod(0o600)
        [wrong] = await told(given)
        assert wrong == Trouble(AT, f"a does not take the key from the file {file} (401)", step)
        (tmp_path / "modelsplit-cloud-a").write_text("sk-other\n")
        [credential] = await told(given, CREDENTIALS_DIRECTORY=str(tmp_path))
        assert credential.cause == (
            "a does not take the key from the credential modelsplit-cloud-a (401)"
        )
        assert credential.step.startswith("systemctl cat modelsplit ")


async def test_a_provider_that_is_not_there() -> None:
    async with Cloud() as cloud:
        url = cloud.url
    [found] = await told(policy(url))
    assert found.cause == (
        f"a cannot be asked at {url}: Connection refused; where it is modelsplit.service that "
        "cannot, its address filter may be why: modelsplit print-unit --cloud"
    )
    assert found.step == f"curl -sS -i --noproxy '*' {url}/v1/models"


async def test_a_name_that_nobody_knows() -> None:
    [found] = await told(policy("https://no-such-host.invalid"))
    assert found.step == "getent hosts no-such-host.invalid"


async def test_one_that_takes_the_connection_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cloud_check, "_TIMEOUT_S", 0.01)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        [found] = await told(policy(f"http://127.0.0.1:{silent.getsockname()[1]}"))
    assert ": no answer in 0.01 s; where it is modelsplit.service" in found.cause


@pytest.mark.parametrize("whose", ["stranger's", "other name's"])
async def test_a_certificate_that_is_not_to_be_trusted(whose: str, tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    issuer = authority if whose == "other name's" else stranger
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert("example.org" if issuer is authority else "localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with Cloud(tls=context) as cloud:
        url = cloud.url.replace("127.0.0.1", "localhost")
        [found] = await told(policy(url, ca_file=str(tmp_path / "ca.pem")))
    assert "its certificate is not to be trusted (" in found.cause
    assert found.cause.endswith("; an authority of your own is named by ca_file")
    assert found.step == (
        f"openssl s_client -connect localhost:{cloud.port} -servername localhost </dev/null"
    )


async def test_a_cloud_that_speaks_no_tls() -> None:
    async with Cloud() as cloud:
        [found] = await told(policy(cloud.url.replace("http:", "https:")))
    assert "it does not speak TLS as we do" in found.cause


async def test_chat_completions_are_asked_for_their_list() -> None:
    """Of a gateway behind a path; few of them tell of a single model."""
    async with Sim() as gateway:
        given = policy(gateway.url, dialect="openai", models={"a": "qwen3:4b", "b": "gpt-oss:21b"})
        [found] = await told(given)
        assert found.at == f"{AT}.models"
        assert found.cause == (
            "a does not know gpt-oss:21b, which b is to be there; it has gpt-oss:20b"
        )
        [asked] = gateway.calls
        assert (asked.method, asked.path) == ("GET", "/v1/models")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (503, "a answered 503 when asked for its models: ask again later"),
        (404, "a answered 404 when asked for its models; is http://"),
        (403, "a allows nothing with the key from $ANTHROPIC_API_KEY (403)"),
    ],
)
async def test_what_else_it_answers(status: int, words: str) -> None:
    async with Sim() as gateway:
        gateway.faults.add(Kind.STATUS, status=status, path="/v1/models")
        [found] = await told(policy(gateway.url, dialect="openai"))
    assert found.cause.startswith(words)


async def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    [found] = await told(policy("http://127.0.0.1:1", key_file=str(tmp_path / "none")))
    assert "cannot be read" in found.cause
