"""Requests made ready for a provider, or refused in the provider's name."""

from __future__ import annotations

import orjson
import pytest

from modelsplit_policy.config.model import RedactionPolicy
from modelsplit_policy.failures import Failure, Reason
from modelsplit_proxy.providers.dialects import DIALECTS
from modelsplit_proxy.providers.failures import Named
from modelsplit_proxy.providers.prepared import Prepared, Preparing, prepare
from modelsplit_proxy.providers.question import Terms
from modelsplit_proxy.providers.redaction import Redactor
from support.endpoints import endpoint
from support.messages import StoppedClock

NAMED = Named("anthropic", "claude-x", "$K", "sk-0123456789")
TERMS = Terms("claude-x", 100)
HI = b'{"model":"cloud","messages":[{"role":"user","content":"hi kim"}]}'


def prepared(label: str, raw: bytes, *, redact: str = "never") -> Prepared | Failure:
    rules = Redactor([RedactionPolicy(name="r", pattern=redact)])
    return prepare(endpoint(label), raw, TERMS, Preparing("opus", NAMED, rules, StoppedClock()))


def test_a_request_is_put_into_the_providers_words() -> None:
    ready = prepared("/api/chat", HI, redact="kim")
    assert isinstance(ready, Prepared)
    body = orjson.loads(ready.body)
    assert body["model"] == "claude-x"
    assert body["messages"][0]["content"][0]["text"] == "hi [redacted]"
    assert ready.redacted == {"r": 1}
    assert (ready.streams, ready.passes, ready.answers_by_tool) == (True, False, False)
    assert ready.stream_type == b"application/x-ndjson"


def test_what_is_said_aside_is_redacted_too() -> None:
    raw = b'{"messages":[{"role":"user","content":"hi kim"}],"user":"kim","seed":7}'
    rules = Redactor([RedactionPolicy(name="r", pattern="kim")])
    parts = Preparing("opus", NAMED, rules, StoppedClock(), DIALECTS["openai"])
    ready = prepare(endpoint("/v1/chat/completions"), raw, TERMS, parts)
    assert isinstance(ready, Prepared)
    body = orjson.loads(ready.body)
    assert (body["user"], body["seed"]) == ("[redacted]", 7)
    assert (ready.redacted, ready.untranslated) == ({"r": 2}, ())


def test_what_cannot_be_said_by_the_providers_api_is_refused() -> None:
    raw = b'{"messages":[{"role":"user","content":[{"type":"search_result"}]}]}'
    parts = Preparing("opus", NAMED, Redactor([]), StoppedClock(), DIALECTS["openai"])
    refused = prepare(endpoint("/v1/messages"), raw, TERMS, parts)
    assert isinstance(refused, Failure)
    assert refused.reason is Reason.UNTRANSLATABLE


@pytest.mark.parametrize("label", ["/v1/messages", "/api/chat", "/v1/responses"])
@pytest.mark.parametrize("dialect", ["anthropic", "openai"])
@pytest.mark.parametrize("depth", [300, 500, 900])
def test_what_is_nested_too_deep_is_refused(label: str, dialect: str, depth: int) -> None:
    schema = b'{"properties":' * depth + b"{}" + b"}" * depth
    tool = b'{"type":"function","name":"f","input_schema":%b,"parameters":%b}' % (schema, schema)
    if label == "/api/chat":
        tool = b'{"type":"function","function":{"name":"f","parameters":%b}}' % schema
    raw = b'{"messages":[{"role":"user","content":"hi"}],"input":"hi","tools":[%b]}' % tool
    for rules in (Redactor([]), Redactor([RedactionPolicy(name="r", pattern="kim")])):
        parts = Preparing("opus", NAMED, rules, StoppedClock(), DIALECTS[dialect])
        refused = prepare(endpoint(label), raw, TERMS, parts)
        assert isinstance(refused, Failure)
        assert refused.reason is Reason.UNTRANSLATABLE


def test_what_passes_is_said_to_pass() -> None:
    ready = prepared("/v1/messages", HI)
    assert isinstance(ready, Prepared)
    assert (ready.passes, ready.streams) == (True, False)


@pytest.mark.parametrize(
    ("label", "raw", "words"),
    [
        ("/api/embed", HI, "/api/embed has no counterpart; use /api/chat"),
        ("/api/chat", b"[]", "no plain JSON"),
        ("/api/chat", b'{"a":\xff}', "no plain JSON"),
        ("/api/chat", b'{"messages":7}', "messages is not a list"),
    ],
)
def test_what_cannot_be_asked_is_refused(label: str, raw: bytes, words: str) -> None:
    refused = prepared(label, raw)
    assert isinstance(refused, Failure)
    assert refused.reason is Reason.UNTRANSLATABLE
    assert words in refused.message
    assert refused.message.startswith("anthropic cannot be asked this: ")
