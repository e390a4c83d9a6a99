"""Transcriptions at the stand-in, as Ollama's source has them."""

from __future__ import annotations

import pytest

from modelsplit_sim import Kind, Sim, SimConfig
from modelsplit_sim.errors import ApiError
from modelsplit_sim.transcribe import as_chat, read_form
from support.wire import Client

pytestmark = pytest.mark.flowing_time

TYPE = "multipart/form-data; boundary=B"
ROUTE = "/v1/audio/transcriptions"


def part(name: str, content: str, more: str = "") -> str:
    return f'--B\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{content}\r\n'


def form(*parts: str) -> bytes:
    return "".join([*parts, "--B--\r\n"]).encode()


MODEL, FILE = part("model", "qwen3:4b"), part("file", "RIFF", '; filename="a.wav"')


def test_the_first_of_two_models_counts() -> None:
    fields = read_form(form(MODEL, part("model", "other"), FILE), TYPE)
    assert fields == {"model": "qwen3:4b", "file": 4}


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (b"{}", "application/json", "failed to parse multipart form: request Content-Type isn't"),
        (form(FILE), TYPE, "model is required"),
        (form(MODEL), TYPE, "file is required: http: no such file"),
        (form(MODEL, part("file", "", '; filename="a"')), TYPE, "audio file is empty"),
    ],
)
def test_what_is_missing_is_told(body: bytes, content_type: str, said: str) -> None:
    with pytest.raises(ApiError) as caught:
        as_chat(read_form(body, content_type))
    assert caught.value.status == 400
    assert str(caught.value.message).startswith(said)


async def test_the_head_calls_it_a_stream_and_the_text_comes_at_once() -> None:
    async with Sim(SimConfig(tokens=3)) as sim, Client(sim.port) as client:
        answer = await client.request("POST", ROUTE, form(MODEL, FILE), {"Content-Type": TYPE})
        assert (answer.status, answer["Content-Type"]) == (200, "application/x-ndjson")
        assert answer["Transfer-Encoding"] == "chunked"
        assert len(answer.chunks) == 1
        assert set(answer.json) == {"text"}


async def test_a_run_that_dies_leaves_an_empty_answer() -> None:
    async with Sim(SimConfig(tokens=3)) as sim, Client(sim.port) as client:
        sim.faults.add(Kind.RUNNER_DIES, after=1)
        answer = await client.request("POST", ROUTE, form(MODEL, FILE), {"Content-Type": TYPE})
        assert (answer.status, answer.body, answer.whole) == (200, b"", True)
