"""Who is asked for which model, with what in the head."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from modelsplit_policy.config.model import CloudPolicy
from modelsplit_policy.failures import Failure, Reason
from modelsplit_policy.vocabulary import Loading
from modelsplit_proxy.providers.clouds import CertificatesError, Clouds
from modelsplit_proxy.providers.key import ProviderKey
from modelsplit_proxy.runtime.tasks import Tasks
from modelsplit_sim.cloud import KEY, Cloud
from support.endpoints import endpoint
from support.messages import StoppedClock

HI = b'{"model":"cloud","messages":[{"role":"user","content":"hi"}],"stream":false}'


def clouds(key: str = KEY, **row: Any) -> Clouds:
    given = {"models": {"Claude-3-Opus": "claude-3-opus-20240229", "same": None}} | row
    policy = CloudPolicy.model_validate({"providers": {"a": given}})
    return Clouds(policy, {"a": ProviderKey(key, "$K")}, StoppedClock(), Tasks(), 600.0)


def test_models_are_found_by_every_spelling() -> None:
    known = clouds()
    model = known.of("library/claude-3-opus:latest")
    assert model is not None
    assert model.parts.named.model == "claude-3-opus-20240229"
    same = known.of("same")
    assert same is not None
    assert same.parts.named.model == "same"
    assert known.of("qwen3:4b") is None
    assert KEY not in repr(known) + repr(model)


def test_without_a_key_nothing_can_be_asked() -> None:
    model = clouds("").of("same")
    assert model is not None
    refused = model.prepare(endpoint("/api/chat"), HI, 100)
    assert isinstance(refused, Failure)
    assert refused.reason is Reason.PROVIDER_CREDENTIAL
    assert "$K" in refused.message


def test_authorities_that_cannot_be_read_are_told_at_start(tmp_path: Any) -> None:
    with pytest.raises(CertificatesError, match="No such file"):
        clouds(ca_file=str(tmp_path / "none.pem"))


async def test_a_call_that_only_loads_is_answered_here() -> None:
    model = clouds().of("same")
    assert model is not None
    for label, loading, reason in (
        ("/api/generate", Loading.LOAD, "load"),
        ("/api/chat", Loading.UNLOAD, "unload"),
    ):
        exchange = model.loaded(endpoint(label), loading)
        head = await exchange.ready()
        pieces: list[bytes] = []
        exchange.attach(Kept(pieces))
        answer = orjson.loads(b"".join(pieces))
        assert (head.status, answer["done_reason"], answer["model"]) == (200, reason, "same")
        exchange.pause()
        exchange.resume()
        exchange.abort()


class Kept:
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def data(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def ended(self, error: Exception | None) -> None:
        assert error is None


async def test_what_is_in_the_head_of_a_request() -> None:
    async with Cloud() as cloud:
        known = clouds(base_url=f"{cloud.url}/", betas=["one"], version="2023-06-01")
        model = known.of("claude-3-opus")
        assert model is not None
        prepared = model.prepare(endpoint("/api/chat"), HI, 100)
        assert not isinstance(prepared, Failure)
        call = model.ask(prepared, {"anthropic-beta": "two"})
        await call.exchange.ready()
        assert (call.status, call.is_sent, call.usage.output_tokens) == (200, True, 6)
        [asked] = cloud.calls
        assert asked.path == "/v1/messages"
        assert asked.header("anthropic-beta") == "one"
        assert asked.header("via") == "1.1 modelsplit"
        assert asked.header("user-agent") == "modelsplit"
        await known.close()
