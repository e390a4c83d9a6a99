"""The end of a stream: was it whole, did it fail, what did it cost, however its bytes were cut."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.quantity import count, quantities
from modelsplit_policy.vocabulary import Dialect
from modelsplit_proxy.protocol import stream_end as module
from modelsplit_proxy.protocol.stream_end import (
    StreamVerdict,
    Tail,
    Usage,
    counted,
    ollama_usage,
    openai_usage,
)
from support.endpoints import wire
from support.work import Work, is_linear, work_of

if TYPE_CHECKING:
    from collections.abc import Iterable


def lines(*texts: str) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def events(*texts: str) -> bytes:
    return "".join(f"{text}\n\n" for text in texts).encode()


GENERATE = lines(
    '{"model":"qwen3:4b","created_at":"2026-11-23T00:29:00Z","response":"に行","done":false}',
    '{"model":"qwen3:4b","created_at":"2026-11-23T00:29:00Z","response":"\\n","done":false}',
    '{"model":"qwen3:4b","created_at":"2026-11-23T00:29:00Z","response":"","done":true,'
    '"done_reason":"length","context":[105,2364],"total_duration":1831805256,'
    '"load_duration":1677168334,"prompt_eval_count":14,"prompt_eval_duration":45538000,'
    '"eval_count":8,"eval_duration":105847000}',
)
GENERATE_USAGE = Usage(
    prompt_tokens=14,
    output_tokens=8,
    load_s=1.677168334,
    prompt_eval_s=0.045538,
    eval_s=0.105847,
    total_s=1.831805256,
    finish_reason="length",
)

_CHUNK = (
    'data: {"id":"chatcmpl-8","object":"chat.completion.chunk","model":"gpt-oss:20b",'
    '"choices":[{"index":0,"delta":{"content":"います"},"finish_reason":null}]}'
)
OPENAI = events(_CHUNK, _CHUNK, "data: [DONE]")
OPENAI_WITH_USAGE = events(
    _CHUNK,
    _CHUNK,
    'data: {"id":"chatcmpl-8","object":"chat.completion.chunk","choices":[],'
    '"usage":{"prompt_tokens":11,"completion_tokens":6,"total_tokens":17}}',
    "data: [DONE]",
)
ANTHROPIC = events(
    'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_7","role":'
    '"assistant","content":[],"usage":{"input_tokens":2,"output_tokens":0}}}',
    'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    '"delta":{"type":"text_delta","text":"経営 error"}}',
    'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}',
    'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"max_tokens"},'
    '"usage":{"input_tokens":11,"output_tokens":6}}',
    'event: message_stop\ndata: {"type":"message_stop"}',
)
RESPONSES = events(
    'event: response.created\ndata: {"response":{"error":null,"status":"in_progress",'
    '"usage":null},"sequence_number":0,"type":"response.created"}',
    'event: response.output_text.delta\ndata: {"delta":"Say","sequence_number":4,'
    '"type":"response.output_text.delta"}',
    'event: response.completed\ndata: {"response":{"error":null,"status":"completed",'
    '"usage":{"input_tokens":11,"output_tokens":4,"total_tokens":15}},"sequence_number":11,'
    '"type":"response.completed"}',
)
WHOLE = {
    "generate": (Dialect.OLLAMA, GENERATE, GENERATE_USAGE),
    "openai": (Dialect.OPENAI, OPENAI, Usage()),
    "openai with usage": (Dialect.OPENAI, OPENAI_WITH_USAGE, Usage(11, 6)),
    "anthropic": (Dialect.ANTHROPIC, ANTHROPIC, Usage(11, 6, finish_reason="max_tokens")),
    "responses": (Dialect.OPENAI, RESPONSES, Usage(11, 4, finish_reason="completed")),
}
STREAMS = pytest.mark.parametrize(("dialect", "stream", "usage"), WHOLE.values(), ids=WHOLE)


def verdict(dialect: Dialect, pieces: Iterable[bytes]) -> StreamVerdict:
    tail = Tail()
    for piece in pieces:
        tail.feed(piece)
    return wire(dialect).judge(tail)


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


# --- Whole streams ----------------------------------------------------------------------------


@STREAMS
def test_a_whole_stream_is_complete_and_tells_its_usage(
    dialect: Dialect, stream: bytes, usage: Usage
) -> None:
    wanted = StreamVerdict(complete=True, error=None, mid_line=False, usage=usage)
    assert verdict(dialect, [stream]) == wanted
    assert verdict(dialect, bytewise(stream)) == wanted
    assert verdict(dialect, bytewise(stream.replace(b"\n", b"\r\n"))) == wanted
    assert verdict(dialect, stream.splitlines(keepends=True)) == wanted


@given(which=st.sampled_from(sorted(WHOLE)), cuts=st.lists(st.integers(0, 2000), max_size=30))
def test_no_way_of_cutting_a_stream_changes_the_verdict(which: str, cuts: list[int]) -> None:
    dialect, stream, _ = WHOLE[which]
    edges = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    assert verdict(dialect, pieces) == verdict(dialect, [stream])


def test_a_line_in_thousands_of_pieces_and_a_long_stream_come_out_the_same() -> None:
    long = b'{"response":"%b","done":false}\n' % (b"x" * 5000)
    assert verdict(Dialect.OLLAMA, [long] * 50 + bytewise(long) + [GENERATE]).complete


# --- Streams that stop early ------------------------------------------------------------------


@STREAMS
@pytest.mark.parametrize("by_byte", [False, True])
def test_no_cut_before_the_end_marker_is_complete(
    dialect: Dialect, stream: bytes, usage: Usage, *, by_byte: bool
) -> None:
    del usage
    end = len(stream.rstrip())
    for cut in range(0, end, 7 if by_byte else 1):
        start = stream[:cut]
        seen = verdict(dialect, bytewise(start) if by_byte else [start])
        assert not seen.complete, start[-60:]
        assert seen.error is None
    assert verdict(dialect, [stream[:end]]).complete


@STREAMS
def test_something_can_be_added_only_after_a_whole_object(
    dialect: Dialect, stream: bytes, usage: Usage
) -> None:
    del usage
    end = b"\n" if dialect is Dialect.OLLAMA else b"\n\n"
    endings = set()
    for cut in range(1, len(stream)):
        start = stream[:cut]
        seen, begun = verdict(dialect, [start]), start.rpartition(end)[2]
        data = [line for line in begun.splitlines() if not line.startswith(b"event:")]
        whole = not begun or bool(module.json_object(b"".join(data).removeprefix(b"data:")))
        assert seen.mid_line != whole, start[-60:]
        if whole:
            assert (start + seen.ending).endswith(end)
            endings.add(seen.ending)
    assert endings == ({b"", b"\n"} if dialect is Dialect.OLLAMA else {b"", b"\n", b"\n\n"})


@pytest.mark.parametrize("dialect", Dialect)
def test_a_stream_without_a_byte_is_not_complete(dialect: Dialect) -> None:
    wanted = StreamVerdict(complete=False, error=None, mid_line=False, usage=Usage())
    assert verdict(dialect, []) == wanted
    assert verdict(dialect, [b""]) == wanted


def test_a_model_that_only_writes_about_the_end_has_not_ended() -> None:
    said = lines('{"response":"{\\"done\\":true}","done":false}')
    assert not verdict(Dialect.OLLAMA, [said]).complete
    said = events('data: {"choices":[{"delta":{"content":"data: [DONE]\\n\\n"}}]}')
    assert not verdict(Dialect.OPENAI, [said]).complete
    said = events('data: {"type":"content_block_delta","delta":{"type":"message_stop"}}')
    assert not verdict(Dialect.ANTHROPIC, [said]).complete


@pytest.mark.parametrize(
    "last", ["[]", "null", '"done"', '{"done":1}', '{"done":"true"}', "garbage"]
)
def test_a_last_line_of_another_shape_does_not_end_a_stream(last: str) -> None:
    assert not verdict(Dialect.OLLAMA, [lines(last)]).complete


def test_an_incomplete_or_failed_response_is_still_a_whole_stream() -> None:
    for status in ("incomplete", "failed"):
        stream = events(
            f'event: response.{status}\ndata: {{"type":"response.{status}","response":'
            f'{{"error":{{"message":"x"}},"usage":{{"input_tokens":1,"output_tokens":2}}}}}}'
        )
        seen = verdict(Dialect.OPENAI, [stream])
        assert (seen.complete, seen.error, seen.usage) == (True, None, Usage(1, 2))


# --- Errors inside a stream -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "ending", "error"),
    [
        (
            Dialect.OLLAMA,
            lines('{"error":"an error was encountered while running the model: unexpected EOF"}'),
            "an error was encountered while running the model: unexpected EOF",
        ),
        (Dialect.OLLAMA, lines('{"error":"x","done":true}'), "x"),
        (
            Dialect.OPENAI,
            events('data: {"error":{"message":"no luck","type":"api_error","code":null}}'),
            "no luck",
        ),
        (Dialect.OPENAI, events('data: {"error":"plain"}'), "plain"),
        (Dialect.OPENAI, events('data: {"error":{"message":"late"}}', "data: [DONE]"), "late"),
        (
            Dialect.ANTHROPIC,
            events(
                'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"m"}}'
            ),
            "m",
        ),
    ],
)
@pytest.mark.parametrize("by_byte", [False, True])
def test_an_error_at_the_end_is_found_and_the_stream_is_not_complete(
    dialect: Dialect, ending: bytes, error: str, *, by_byte: bool
) -> None:
    begun = GENERATE.splitlines(keepends=True)[0] if dialect is Dialect.OLLAMA else OPENAI[:-14]
    stream = begun + ending
    seen = verdict(dialect, bytewise(stream) if by_byte else [stream])
    assert (seen.complete, seen.error, seen.mid_line) == (False, error, False)


@pytest.mark.parametrize("by_byte", [False, True])
def test_what_stands_long_before_the_end_does_not_decide(*, by_byte: bool) -> None:
    stream = events('data: {"error":"an old story"}', *[_CHUNK] * 9, "data: [DONE]")
    seen = verdict(Dialect.OPENAI, bytewise(stream) if by_byte else [stream])
    assert (seen.complete, seen.error) == (True, None)


# --- Usage of single objects ------------------------------------------------------------------


def test_counts_that_are_no_numbers_are_not_counted() -> None:
    assert ollama_usage({"eval_count": True, "prompt_eval_count": "3", "done_reason": 1}) == Usage()
    assert openai_usage({"usage": {"prompt_tokens": 1.5, "completion_tokens": None}}) == Usage()
    assert openai_usage({"usage": []}) == openai_usage({"response": None}) == Usage()


def test_an_embedding_answer_counts_its_prompt_only() -> None:
    answer = {"object": "list", "usage": {"prompt_tokens": 5, "total_tokens": 5}}
    assert openai_usage(answer) == Usage(prompt_tokens=5)


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["error", "usage", "response", "done", "type", "message"]), inner
        )
    ),
    max_leaves=6,
)


@given(data=st.lists(st.binary(max_size=40), max_size=20), dialect=st.sampled_from(Dialect))
def test_any_bytes_have_a_verdict(data: list[bytes], dialect: Dialect) -> None:
    assert isinstance(verdict(dialect, data), StreamVerdict)


@given(value=JSONISH)
def test_any_json_has_a_usage(value: object) -> None:
    if isinstance(value, dict):
        assert isinstance(ollama_usage(value), Usage)
        assert isinstance(openai_usage(value), Usage)


# --- A line without an end --------------------------------------------------------------------


@pytest.mark.parametrize("piece", [b"x", b"0123456789abcdef", b"0123456789abcde\n", b"a\nb"])
def test_small_pieces_take_no_more_work_than_their_bytes(piece: bytes) -> None:
    def work_for(count: int) -> int:
        return work_of(Tail().feed, [b"x", *[piece] * count], Work())

    assert is_linear(work_for, 2000)


@pytest.mark.parametrize("dialect", Dialect)
def test_a_line_that_is_too_long_is_not_kept_and_never_the_end(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LINE_MAX_BYTES", 1000)
    ends = b'{"done":true,"type":"message_stop"}'
    for rest in (b"", b"\n", b"\n\n"):
        tail = Tail()
        for _ in range(300):
            tail.feed(b"data: 0123456789")
        tail.feed(ends)
        assert len(tail._open) < 1100
        tail.feed(rest)
        verdict = wire(dialect).judge(tail)
        assert (verdict.complete, verdict.error, verdict.usage) == (False, None, Usage())


def test_what_follows_a_line_that_is_too_long_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINE_MAX_BYTES", 1000)
    tail = Tail()
    for piece in (b"x" * 900, b"x" * 900, b'x\n{"done":true}', b"\n"):
        tail.feed(piece)
    assert wire(Dialect.OLLAMA).judge(tail).complete


# --- Numbers that are none ----------------------------------------------------------------------

ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3))
NUMBERS = (
    *("prompt_eval_count", "eval_count"),
    *("load_duration", "prompt_eval_duration", "eval_duration", "total_duration"),
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(NUMBERS, ANYTHING)))
def test_what_ollama_says_of_itself_is_a_quantity_or_unknown(last: dict[str, Any]) -> None:
    usage = ollama_usage({"done": True, **last})
    assert quantities(usage[:6]) == list(usage[:6])
    assert [type(tokens) in {int, type(None)} for tokens in usage[:2]] == [True, True]
    assert [count(last.get(name)) for name in NUMBERS[:2]] == list(usage[:2])


@given(ANYTHING, ANYTHING, st.sampled_from(["prompt_tokens", "input_tokens"]))
def test_what_the_other_dialects_say_is_a_quantity_or_unknown(
    prompt: Any, output: Any, name: str
) -> None:
    said = {name: prompt, name.replace("prompt", "completion").replace("in", "out"): output}
    usage = openai_usage({"usage": said})
    assert (usage.prompt_tokens, usage.output_tokens) == (count(prompt), count(output))


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_a_load_has_no_tokens_unless_it_says_something_else(reason: str) -> None:
    assert ollama_usage({"done_reason": reason})[:2] == (0, 0)
    assert ollama_usage({"done_reason": reason, "eval_count": -1})[:2] == (0, None)


def test_durations_are_whole_nanoseconds() -> None:
    said = {"load_duration": 1.9, "eval_duration": 5e-324, "total_duration": 2.5e9}
    usage = ollama_usage(said)
    assert (usage.load_s, usage.eval_s, usage.total_s) == (1e-9, 0.0, 2.5)


def test_the_wait_inside_the_upstream_is_what_is_left_of_its_total() -> None:
    usage = Usage(load_s=0.25, prompt_eval_s=0.5, eval_s=1.0, total_s=2.5)
    assert usage.upstream_wait_s == 0.75
    assert usage._replace(load_s=None).upstream_wait_s == 1.0
    assert usage._replace(total_s=1.7).upstream_wait_s == 0.0, "rounding is no wait"
    for silent in ("total_s", "prompt_eval_s", "eval_s"):
        said: dict[str, Any] = {silent: None}
        assert usage._replace(**said).upstream_wait_s is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"choices": [{"finish_reason": "length"}]}, "length"),
        ({"choices": [{"delta": {}, "finish_reason": None}]}, None),
        ({"choices": [7]}, None),
        ({"choices": []}, None),
        ({"object": "response", "status": "completed", "output": []}, "completed"),
        (
            {
                "output": [],
                "status": "incomplete",
                "incomplete_details": {"reason": "max_output_tokens"},
            },
            "max_output_tokens",
        ),
        ({"type": "message", "stop_reason": "tool_use", "content": []}, "tool_use"),
        ({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}, "max_tokens"),
        ({"type": "message_delta", "delta": 7}, None),
        ({"data": []}, None),
    ],
)
def test_why_a_model_stopped_is_read_in_every_dialect(
    answer: dict[str, Any], reason: str | None
) -> None:
    assert openai_usage(answer).finish_reason == reason


def test_a_stream_that_does_not_say_how_long_it_is_is_counted() -> None:
    tail = Tail()
    for piece in OPENAI.split(b"\n\n")[:-1]:
        tail.feed(piece + b"\n\n")
    assert tail.pieces == 3
    usage = Usage(finish_reason="stop")
    assert counted(usage, 34, complete=True) == Usage(
        output_tokens=32, finish_reason="stop", estimated=True
    )
    assert counted(usage, 7, complete=False).output_tokens == 7
    assert counted(usage, 2, complete=True) == usage, "nothing came"
    assert counted(Usage(11, 6), 34, complete=True) == Usage(11, 6), "it says so itself"
