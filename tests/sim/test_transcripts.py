"""The stand-in against recordings of a real server."""

from __future__ import annotations

import pytest

from modelsplit_sim import ModelSpec, Sim, SimConfig

from .client import Answer, Client
from .replay import Recorded, exact, load, shape

# As in the recordings: every name is one small model's, some names share its blob.
_SHARED = ("gemma3:12b", "gpt-oss:20b", "qwen3:4b", "qwen3:8b")
# 2026-11-23T00:28:56Z, .855 s later and so on: the list is sorted by whole seconds, then names.
_MADE_NS = 1_795_393_736 * 10**9
MODELS = (
    *(ModelSpec(name, blob="shared", modified_ns=_MADE_NS) for name in _SHARED),
    ModelSpec("gemma3:270m", blob="shared", modified_ns=_MADE_NS - 3 * 10**9),
    ModelSpec("distinct-a:270m", modified_ns=_MADE_NS - 10**9),
    ModelSpec("distinct-b:270m", modified_ns=_MADE_NS),
)
_NO_MODELS = (
    "01_get 02_head 03_wrong_method 04_unknown_path 05_err_unknown_model 06_err_bad_json "
    "06_err_bad_type 07_err_missing_model 08_err_empty_body 08_err_empty_object "
    "09_err_bad_modelname 11_cors_preflight 11_cors_simple 12_host_header 14_req_framing"
)
_EXACT = "21_generate_load 22_chat_format_bad 22_chat_unsupported 23_embed"
_SHAPED = (
    "20_tags_ps 21_generate_nostream 21_generate_raw 21_generate_stream 22_chat_badopts "
    "22_chat_format_schema 22_chat_nostream 22_chat_stream 24_v1_chat_nostream 24_v1_chat_stream "
    "24_v1_completions 25_v1_messages 26_v1_responses 27_keepalive"
)


async def _answer(sim: Sim, record: Recorded) -> Answer:
    client = await Client.to(sim)
    try:
        client.writer.write(record.request())
        return await client.answer(record.method)
    finally:
        client.close()


def _headers(pairs: list[tuple[str, str]], *, loose: bool) -> list[tuple[str, str]]:
    variable = {"Date", "Content-Length"} if loose else {"Date"}
    return [(name, "…" if name in variable else value) for name, value in pairs]


def _recorded_body(record: Recorded) -> str:
    # The recorder wrote a newline after curl's output; HEAD and 204 have no body at all.
    if record.method == "HEAD" or " 204 " in record.status_line:
        return ""
    return record.body


async def _check(config: SimConfig, name: str, *, loose: bool) -> None:
    async with Sim(config) as sim:
        if name == "27_keepalive":
            await _answer(sim, load("21_generate_load")[0])
        for record in load(name):
            answer = await _answer(sim, record)
            assert answer.status_line == record.status_line, record.command
            body = answer.body.decode()
            # Go drops trailing zeros of a time, so a body with one may be a byte shorter.
            vague = loose or "TIME" in exact(body)
            found = _headers(answer.headers, loose=vague)
            assert found == _headers(record.answer_headers, loose=vague), record.command
            if loose:
                assert shape(body) == shape(_recorded_body(record)), record.command
            else:
                assert exact(body) == exact(_recorded_body(record)), record.command


@pytest.mark.parametrize("name", _NO_MODELS.split())
async def test_answers_without_models_are_byte_for_byte_the_recorded(name: str) -> None:
    await _check(SimConfig(models=()), name, loose=False)


@pytest.mark.parametrize("name", _EXACT.split())
async def test_refusals_and_loads_are_byte_for_byte_the_recorded(name: str) -> None:
    await _check(SimConfig(models=MODELS, num_ctx=2048), name, loose=False)


@pytest.mark.parametrize("name", _SHAPED.split())
async def test_generations_have_the_recorded_shape(name: str) -> None:
    await _check(SimConfig(models=MODELS, num_ctx=2048), name, loose=True)
