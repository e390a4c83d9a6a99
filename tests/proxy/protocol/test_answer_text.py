"""What the assistant said, in every dialect, whole and streamed; what is no text is None."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.protocol import answer_text
from support.endpoints import endpoint

BOB = '{\n    "name": "Bob",\n    "age": 41\n}'

GENERATE = "/api/generate"
CHAT = "/api/chat"
OPENAI = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
ANTHROPIC = "/v1/messages"


def body(value: object) -> bytes:
    return json.dumps(value).encode()


def ndjson(*values: object) -> bytes:
    return b"".join(body(value) + b"\n" for value in values)


def sse(*values: object, done: bool = False) -> bytes:
    """OpenAI's framing: data lines alone, and [DONE] at the end."""
    events = b"".join(b"data: " + body(value) + b"\n\n" for value in values)
    return events + (b"data: [DONE]\n\n" if done else b"")


def named(*values: dict[str, Any]) -> bytes:
    """Anthropic's and the responses API's framing: each event with its name."""
    return b"".join(
        b"event: " + value["type"].encode() + b"\ndata: " + body(value) + b"\n\n"
        for value in values
    )


def generate(text: str, **more: object) -> dict[str, object]:
    return {"model": "qwen3:4b", "created_at": "2026-11-23T00:29:00Z", "response": text, **more}


def chat(content: object, **more: object) -> dict[str, object]:
    message = {"role": "assistant", "content": content, **more}
    return {"model": "gemma3:12b", "message": message, "done": True, "done_reason": "stop"}


def choice(**fields: object) -> dict[str, object]:
    return {"id": "chatcmpl-648", "choices": [{"index": 0, "finish_reason": "stop", **fields}]}


def delta(**fields: object) -> dict[str, object]:
    return choice(delta=fields, finish_reason=None)


def response(*items: object, **more: object) -> dict[str, object]:
    return {"id": "resp_1", "object": "response", "error": None, "output": list(items), **more}


def output(*parts: object) -> dict[str, object]:
    return {"id": "msg_1", "type": "message", "role": "assistant", "content": list(parts)}


def output_text(text: str) -> dict[str, object]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def message(*blocks: object, **more: object) -> dict[str, object]:
    return {"id": "msg_7b", "type": "message", "role": "assistant", "content": list(blocks), **more}


def block(**fields: object) -> dict[str, Any]:
    return {"type": "content_block_start", "index": 0, "content_block": fields}


def part(**fields: object) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": fields}


TOOL_CALL = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
THOUGHT = {"type": "thinking", "thinking": "An age is a number.", "signature": ""}


def text_of_whole(label: str, body: bytes) -> str | None:
    texts = endpoint(label).texts
    return None if texts is None else answer_text.text_of_whole(texts, body)


def text_of_stream(label: str, pieces: bytes) -> str | None:
    row = endpoint(label)
    assert row.texts is not None
    return answer_text.text_of_stream(row.texts, row.wire, pieces)


@pytest.mark.parametrize(
    ("label", "answer"),
    [
        (GENERATE, generate(BOB, done=True, done_reason="stop", context=[105, 2364])),
        (CHAT, chat(BOB)),
        (CHAT, chat(BOB, thinking="An age is a number.")),
        (OPENAI, choice(message={"role": "assistant", "content": BOB})),
        (OPENAI, choice(message={"role": "assistant", "content": BOB, "refusal": None})),
        (OPENAI, choice(message={"role": "assistant", "content": BOB, "tool_calls": []})),
        (COMPLETIONS, choice(text=BOB)),
        (RESPONSES, response(output(output_text(BOB[:9]), output_text(BOB[9:])))),
        (RESPONSES, response({"type": "reasoning", "summary": []}, output(output_text(BOB)))),
        (ANTHROPIC, message({"type": "text", "text": BOB}, stop_reason="end_turn")),
        (ANTHROPIC, message(THOUGHT, {"type": "text", "text": BOB})),
    ],
)
def test_a_whole_answer(label: str, answer: object) -> None:
    assert text_of_whole(label, body(answer)) == BOB
    assert text_of_whole(label, body(answer) + b"\n") == BOB


@pytest.mark.parametrize(
    ("label", "answer"),
    [
        (GENERATE, generate("", done=True, done_reason="load")),
        (GENERATE, generate("", done=True, done_reason="unload")),
        (CHAT, chat("", tool_calls=[TOOL_CALL])),
        (CHAT, chat("Let me look.", tool_calls=[TOOL_CALL])),
        (OPENAI, choice(message={"role": "assistant", "content": None})),
        (OPENAI, choice(message={"content": "", "tool_calls": [{"type": "function"}]})),
        (OPENAI, choice(message={"content": None, "refusal": "I cannot help with that."})),
        (OPENAI, {"choices": []}),
        (RESPONSES, response({"type": "function_call", "name": "weather", "arguments": "{}"})),
        (RESPONSES, response(output({"type": "refusal", "refusal": "I cannot."}))),
        (RESPONSES, response(status="failed", error={"code": "server_error", "message": "x"})),
        (ANTHROPIC, message({"type": "text", "text": "Let me look."}, TOOL_USE)),
        (ANTHROPIC, message({"type": "text", "text": "No."}, stop_reason="refusal")),
        (CHAT, {"error": "an error was encountered while running the model: unexpected EOF"}),
        ("/api/embed", {"embeddings": [[0.1]]}),
    ],
)
def test_what_is_no_text(label: str, answer: object) -> None:
    assert text_of_whole(label, body(answer)) is None


@pytest.mark.parametrize("junk", [b"", b"null", b"[]", b"{", b'"text"', b'{"message":7}', b"\xff"])
@pytest.mark.parametrize("label", [GENERATE, CHAT, OPENAI, COMPLETIONS, RESPONSES, ANTHROPIC])
def test_a_body_of_another_shape(label: str, junk: bytes) -> None:
    assert text_of_whole(label, junk) is None
    assert text_of_stream(label, junk) is None


def test_a_model_that_only_thought_said_an_empty_text() -> None:
    answer = chat("", thinking="An age is")
    assert text_of_whole(CHAT, body(answer)) == ""


def generate_stream(pieces: list[str]) -> bytes:
    end = generate("", done=True, done_reason="stop", context=[105, 2364], eval_count=8)
    return ndjson(*(generate(piece, done=False) for piece in pieces), end)


def chat_stream(pieces: list[str]) -> bytes:
    said = [{"message": {"role": "assistant", "content": p}, "done": False} for p in pieces]
    return ndjson(*said, chat(""))


def openai_stream(pieces: list[str]) -> bytes:
    usage = {"choices": [], "usage": {"prompt_tokens": 11}}
    start = delta(role="assistant", content="")
    deltas = [delta(content=piece) for piece in pieces]
    return sse(start, *deltas, choice(delta={}, finish_reason="stop"), usage, done=True)


def completions_stream(pieces: list[str]) -> bytes:
    return sse(*(choice(text=piece, finish_reason=None) for piece in pieces), done=True)


def responses_stream(pieces: list[str]) -> bytes:
    deltas = [{"type": "response.output_text.delta", "delta": piece} for piece in pieces]
    whole = output(output_text("".join(pieces)))
    return named(
        {"type": "response.created", "response": response(status="in_progress")},
        *deltas,
        {"type": "response.output_text.done", "text": "".join(pieces)},
        {"type": "response.output_item.done", "item": whole},
        {"type": "response.completed", "response": response(whole, status="completed")},
    )


def anthropic_stream(pieces: list[str]) -> bytes:
    return named(
        {"type": "message_start", "message": message(usage={"input_tokens": 2})},
        block(type="thinking", thinking=""),
        part(type="thinking_delta", thinking="An age is a number."),
        {"type": "content_block_stop", "index": 0},
        block(type="text", text=""),
        *(part(type="text_delta", text=piece) for piece in pieces),
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
        {"type": "message_stop"},
    )


STREAMS = {
    GENERATE: generate_stream,
    CHAT: chat_stream,
    OPENAI: openai_stream,
    COMPLETIONS: completions_stream,
    RESPONSES: responses_stream,
    ANTHROPIC: anthropic_stream,
}


@given(
    st.sampled_from(sorted(STREAMS)),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=9), min_size=1, max_size=9),
)
def test_a_stream_says_its_pieces_in_order(label: str, pieces: list[str]) -> None:
    assert text_of_stream(label, STREAMS[label](pieces)) == "".join(pieces)


@pytest.mark.parametrize(
    ("label", "stream"),
    [
        (CHAT, ndjson(chat("Let me"), {"message": {"content": "", "tool_calls": [TOOL_CALL]}})),
        (CHAT, ndjson(chat("Let me"), {"error": "unexpected EOF"})),
        (OPENAI, sse(delta(content=""), delta(tool_calls=[{"index": 0}]), done=True)),
        (OPENAI, sse(delta(refusal="I cannot."), done=True)),
        (RESPONSES, named({"type": "response.failed", "response": response()})),
        (ANTHROPIC, named(block(type="text", text=""), block(**TOOL_USE))),
        (
            ANTHROPIC,
            named(
                part(type="text_delta", text="No."),
                {"type": "message_delta", "delta": {"stop_reason": "refusal"}},
            ),
        ),
        (GENERATE, ndjson(generate("", done=True, done_reason="load"))),
    ],
)
def test_a_stream_that_is_no_text(label: str, stream: bytes) -> None:
    assert text_of_stream(label, stream) is None


def test_lines_may_end_in_crlf_and_data_may_follow_the_colon_at_once() -> None:
    stream = sse(delta(content="4"), delta(content="1"), done=True)
    assert text_of_stream(OPENAI, stream.replace(b"\n", b"\r\n")) == "41"
    assert text_of_stream(OPENAI, stream.replace(b"data: ", b"data:")) == "41"


# --- Cut at a limit of its length -------------------------------------------------------------

FINAL = {"type": "response.incomplete", "response": {"object": "response"}}
CUT: list[tuple[str, bytes, bool]] = [
    (CHAT, body({"message": {"content": "{"}, "done": True, "done_reason": "length"}), True),
    (CHAT, body({"message": {"content": "{"}, "done": True, "done_reason": "stop"}), False),
    (GENERATE, ndjson({"response": "{"}, {"done": True, "done_reason": "length"}), True),
    (OPENAI, body({"choices": [{"finish_reason": "length"}]}), True),
    (OPENAI, body({"choices": [{"finish_reason": "stop"}]}), False),
    (OPENAI, sse({"choices": [{"delta": {}, "finish_reason": "length"}]}, done=True), True),
    (COMPLETIONS, body({"choices": [{"text": "length", "finish_reason": None}]}), False),
    (RESPONSES, body({"incomplete_details": {"reason": "max_output_tokens"}}), True),
    (RESPONSES, body({"incomplete_details": None, "status": "completed"}), False),
    (
        RESPONSES,
        named({**FINAL, "response": {"incomplete_details": {"reason": "max_output_tokens"}}}),
        True,
    ),
    (ANTHROPIC, body({"stop_reason": "max_tokens"}), True),
    (ANTHROPIC, body({"stop_reason": "end_turn"}), False),
    (ANTHROPIC, named({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}), True),
    # What is no answer says nothing.
    (CHAT, b"", False),
    (OPENAI, body({"choices": "length"}), False),
    (RESPONSES, b"[1]", False),
]


@pytest.mark.parametrize(("label", "answer", "cut"), CUT)
def test_an_answer_says_of_itself_that_it_was_cut(label: str, answer: bytes, *, cut: bool) -> None:
    whole = not answer.endswith(b"\n")
    assert answer_text.was_cut(endpoint(label).wire, answer, whole=whole) is cut
