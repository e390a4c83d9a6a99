"""Requests and answers that no recording holds, or that need several steps."""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Any

import pytest

from modelsplit_sim import ModelSpec, Sim, SimConfig
from modelsplit_sim.gojson import GoJsonError, loads
from modelsplit_sim.text import json_text, split

from .client import Client, ask, connect, post

pytestmark = pytest.mark.flowing_time

MODEL = "qwen3:4b"


async def test_the_log_keeps_headers_as_sent_and_the_body() -> None:
    async with Sim() as sim:
        body = b'{"model":"qwen3:4b"}'
        headers = ("X-OdD-CasE: a", "X-Odd-Case: b")
        await ask(sim, "POST", "/api/show?q=1", body, headers)
        call = sim.calls[0]
        assert (call.method, call.target, call.path) == ("POST", "/api/show?q=1", "/api/show")
        assert call.headers[1:3] == [("X-OdD-CasE", "a"), ("X-Odd-Case", "b")]
        assert (call.body, call.body_size, call.model) == (body, len(body), MODEL)
        assert call.body_sha256 == hashlib.sha256(body).hexdigest()


async def test_the_log_keeps_a_bounded_body() -> None:
    async with Sim(SimConfig(log_body_bytes=10)) as sim:
        await post(sim, "/api/show", model=MODEL, padding="x" * 300_000)
        assert len(sim.calls[0].body) == 10
        assert sim.calls[0].body_size > 300_000


@pytest.mark.parametrize(
    ("path", "field", "value", "words"),
    [
        ("/api/generate", "options", "a", "string into Go struct field GenerateRequest.options"),
        ("/api/chat", "options", [1], "array into Go struct field ChatRequest.options of type map"),
        ("/api/embed", "options", True, "bool into Go struct field EmbedRequest.options"),
        ("/api/chat", "messages", 5, "number into Go struct field ChatRequest.messages of type []"),
        ("/api/chat", "tools", "a", "ChatRequest.tools of type api.Tools"),
        ("/api/embed", "input", 5, "invalid input type"),
        ("/v1/chat/completions", "stream_options", "a", "of type openai.StreamOptions"),
        ("/v1/responses", "text", "a", "of type openai.ResponsesText"),
        ("/v1/messages", "messages", "a", "of type []anthropic.MessageParam"),
    ],
)
async def test_a_field_of_the_wrong_type_is_refused_as_gos_decoder_does(
    path: str, field: str, value: object, words: str
) -> None:
    async with Sim() as sim:
        fields = {"model": MODEL, "messages": [{"role": "user", "content": "a"}], field: value}
        fields |= {"max_tokens": 5} if path == "/v1/messages" else {}
        answer = await post(sim, path, **fields)
        assert answer.status == 400
        assert words in answer.body.decode()


@pytest.mark.parametrize("value", [2**63, 2**64, 10**30, 1e300])
async def test_a_limit_that_gos_integers_do_not_hold_is_none(value: float) -> None:
    async with Sim(SimConfig(tokens=3)) as sim:
        body = (
            b'{"model":"qwen3:4b","prompt":"a","options":{"num_predict":%s}}' % repr(value).encode()
        )
        answer = await ask(sim, "POST", "/api/generate", body)
        assert answer.status == 200
        last = loads(answer.body.splitlines()[-1])
        assert (last["eval_count"], last["done_reason"]) == (3, "stop")


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"MODEL":"qwen3:4b"}', "qwen3:4b"),
        (b'{"model":"qwen3:8b","Model":"qwen3:4b"}', "qwen3:4b"),
        (b'{"model":"qwen3:4b"} and more', "qwen3:4b"),
        (b'{"model":"a","MODEL":"b","model":"c"}', "c"),
    ],
)
def test_json_is_read_as_go_reads_it(body: bytes, model: str) -> None:
    assert loads(body)["model"] == model


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "EOF"),
        (b"  ", "EOF"),
        (b"{", "unexpected EOF"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 2}', "invalid character '2' after object key:value pair"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b"tru", "unexpected EOF"),
        (b"\x1f\x8b", "invalid character '\\x1f' looking for beginning of value"),
        (
            b'{"a":1e999}',
            "json: cannot unmarshal number 1e999 into Go value of type float64",
        ),
    ],
)
def test_json_errors_are_go_errors(body: bytes, message: str) -> None:
    with pytest.raises(GoJsonError) as caught:
        loads(body)
    assert str(caught.value) == message


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 30},
        "age": {"type": "integer", "minimum": 18},
        "score": {"type": "number"},
        "ok": {"type": "boolean"},
        "colour": {"enum": ["red", "green"]},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "home": {"$ref": "#/$defs/home"},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    },
    "required": ["name", "age"],
    "$defs": {"home": {"type": "object", "properties": {"street": {"type": "string"}}}},
}


async def test_a_schema_gets_json_that_fits_streamed_and_whole() -> None:
    async with Sim() as sim:
        whole = await post(
            sim, "/api/generate", model=MODEL, prompt="x", format=SCHEMA, stream=False
        )
        streamed = await post(sim, "/api/generate", model=MODEL, prompt="x", format=SCHEMA)
        text = "".join(line["response"] for line in streamed.lines)
        assert text == whole.json["response"]
        value = loads(text.encode())
        assert value["age"] == 18
        assert value["colour"] == "red"
        assert len(value["name"]) == 30
        assert len(value["tags"]) == 2
        assert isinstance(value["home"]["street"], str)
        assert streamed.lines[-1]["done_reason"] == "stop"


def test_tokens_join_to_their_text() -> None:
    text = json_text(SCHEMA) + " naïve 日本\n\n  x"
    assert "".join(split(text)) == text


async def test_openai_response_format_is_honoured() -> None:
    async with Sim() as sim:
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
        answer = await post(
            sim,
            "/v1/chat/completions",
            model=MODEL,
            messages=[{"role": "user", "content": [{"type": "text", "text": "x"}]}],
            response_format=form,
        )
        assert loads(answer.json["choices"][0]["message"]["content"].encode())["age"] == 18


async def test_embeddings_of_an_embedding_model() -> None:
    async with Sim(SimConfig(models=("nomic-embed-text",))) as sim:
        name = "nomic-embed-text"
        many = await post(sim, "/api/embed", model=name, input=["a", "b"])
        assert [len(vector) for vector in many.json["embeddings"]] == [384, 384]
        one = await post(sim, "/api/embeddings", model=name, prompt="a")
        assert one.json["embedding"] == many.json["embeddings"][0]
        openai = await post(sim, "/v1/embeddings", model=name, input="a")
        assert openai.json["data"][0]["index"] == 0
        assert openai.header("Transfer-Encoding") == "chunked"
        packed = await post(sim, "/v1/embeddings", model=name, input="a", encoding_format="base64")
        raw = base64.b64decode(packed.json["data"][0]["embedding"])
        assert list(struct.unpack("<384f", raw)) == many.json["embeddings"][0]


async def test_show_has_the_recorded_keys() -> None:
    async with Sim() as sim:
        answer = await post(sim, "/api/show", name=MODEL)
        assert " ".join(answer.json) == (
            "modelfile parameters template details model_info tensors capabilities modified_at"
        )
        assert answer.header("Transfer-Encoding") == "chunked"
        assert answer.header("Content-Type") == "application/json; charset=utf-8"


async def test_models_can_be_copied_deleted_created_and_pulled() -> None:
    async with Sim() as sim:
        assert (await post(sim, "/api/copy", source=MODEL, destination="mine")).status == 200
        await post(sim, "/api/generate", model="mine")
        assert sim.loaded == ["mine"]
        await post(sim, "/api/generate", model=MODEL)
        assert sim.counts.loads == 1
        assert (await ask(sim, "DELETE", "/api/delete", {"model": "mine"})).status == 200
        assert (await post(sim, "/api/show", model="mine")).status == 404
        created = await post(sim, "/api/create", model="new:1b", files={"x": "sha256:0"})
        assert created.lines[-1] == {"status": "success"}
        assert (await post(sim, "/api/pull", model=MODEL)).lines[-1] == {"status": "success"}
        assert "error" in (await post(sim, "/api/pull", model="nosuch")).lines[-1]


async def test_blobs_are_stored_by_their_true_digest() -> None:
    data = b"weights" * 1000
    right = f"/api/blobs/sha256:{hashlib.sha256(data).hexdigest()}"
    wrong = f"/api/blobs/sha256:{'0' * 64}"
    async with Sim() as sim:
        assert (await ask(sim, "HEAD", right)).status == 404
        refused = await ask(sim, "POST", wrong, data)
        assert refused.status == 400
        assert refused.json["error"].startswith('digest mismatch, expected "sha256:000')
        found = await ask(sim, "HEAD", right)
        assert (found.status, found.header("Content-Length")) == (200, None)
        assert (await ask(sim, "POST", right, data)).status == 200
        assert (await ask(sim, "POST", "/api/blobs/notadigest", b"x")).status == 400
        fresh = hashlib.sha256(b"new").hexdigest()
        created = await ask(sim, "POST", f"/api/blobs/sha256:{fresh}", b"new")
        assert (created.status, created.header("Content-Length")) == (201, "0")


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: 67108864",),
        ("Content-Length: 67108864", "Expect: 100-continue"),
        ("Content-Length: 10", "Expect: 100-continue"),
    ],
)
async def test_an_existing_blob_is_answered_before_the_upload_ends(headers: tuple[str]) -> None:
    async with Sim() as sim, connect(sim) as client:
        sim.world.blobs.add(f"sha256:{'a' * 64}")
        client.send("POST", f"/api/blobs/sha256:{'a' * 64}", None, headers)
        answer = await client.answer()
        assert (answer.status, answer.interim) == (200, [])
        names = [name for name, _ in answer.headers]
        assert names == ["Date", "Content-Length", "Connection"]
        assert await client.reader.read() == b""


async def test_a_chunked_upload_of_an_existing_blob_is_cut_short() -> None:
    async with Sim() as sim:
        sim.world.blobs.add(f"sha256:{'a' * 64}")
        client = await Client.to(sim)
        path = f"/api/blobs/sha256:{'a' * 64}"
        client.send("POST", path, None, ("Transfer-Encoding: chunked",))
        client.writer.write((b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000)) * 5)
        answer = await client.answer()
        assert (answer.status, answer.header("Connection")) == (200, "close")
        client.close()


async def test_expect_continue_is_answered_when_the_body_is_wanted() -> None:
    async with Sim() as sim, connect(sim) as client:
        client.send("POST", "/api/show", {"model": "nosuch:1b"}, ("Expect: 100-continue",))
        answer = await client.answer()
        assert answer.interim == ["HTTP/1.1 100 Continue"]
        assert answer.status == 404


async def test_what_is_not_http_gets_400() -> None:
    async with Sim() as sim, connect(sim) as client:
        client.writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await client.reader.read()).startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_redirects_of_posts_have_no_body() -> None:
    async with Sim() as sim:
        answer = await ask(sim, "POST", "/api//chat?x=1", {})
        assert (answer.status, answer.header("Location")) == (307, "/api/chat?x=1")
        assert (answer.body, answer.header("Content-Type")) == (b"", None)


async def test_waiting_for_what_never_comes_times_out() -> None:
    async with Sim() as sim:
        with pytest.raises(TimeoutError):
            await sim.wait_for(lambda s: s.active == 99, timeout=0.01)


async def test_angle_brackets_and_ampersands_are_escaped() -> None:
    spec = ModelSpec("html:1b", answer="<b>&")
    async with Sim(SimConfig(models=(spec,))) as sim:
        answer = await post(sim, "/api/generate", model="html:1b", prompt="x", stream=False)
        assert rb'"response":"\u003cb\u003e\u0026"' in answer.body
        assert answer.json["response"] == "<b>&"
        assert answer.json["done_reason"] == "stop"
