"""Looking into a request body: which model it names, and naming another without a byte's harm."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from modelsplit_policy.failures import Failure, Reason
from modelsplit_proxy.http.body import BodyError
from modelsplit_proxy.protocol.json_body import AT_ONCE_BYTES, Body, read_at_once, read_in_steps
from modelsplit_proxy.runtime.tasks import in_steps
from support.bodies import read_body
from support.hooks import Hook
from support.work import Work, is_linear, tracing

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def read(raw: bytes) -> Body | Failure:
    try:
        return read_body(raw)
    except BodyError as refused:
        return refused.failure


def refusal(raw: bytes) -> tuple[Reason, str]:
    failure = read(raw)
    assert isinstance(failure, Failure)
    assert failure.status == 400
    assert len(failure.message) <= 200
    return failure.reason, failure.message


# --- The model is found and replaced ----------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "renamed"),
    [
        (b'{"model":"a","stream":false}', b'{"model":"NEW","stream":false}'),
        (b' {\n "stream" : true ,\r\n\t"model" : "a" } ', None),
        (
            b'{"messages":[{"model":"b"}],"model":"a"}',
            b'{"messages":[{"model":"b"}],"model":"NEW"}',
        ),
        (b'{"model":"a","x":{"model":{"model":1}}}', b'{"model":"NEW","x":{"model":{"model":1}}}'),
        (b'{"prompt":"say \\"model\\": \\"b\\"","model":"a"}', None),
        (b'{"x":"model","model":"a"}', b'{"x":"model","model":"NEW"}'),
        (b'{"model":"a","y":["model","model"]}', b'{"model":"NEW","y":["model","model"]}'),
        (b'{"mod\\u0065l":"a"}', b'{"mod\\u0065l":"NEW"}'),
        (b'{"model":"\\u0061"}', b'{"model":"NEW"}'),
        (b'{"x":"\\u006d","model":"a"}', b'{"x":"\\u006d","model":"NEW"}'),
        (b'{"model":"a","temperature":1e0,"big":12345678901234567890123}', None),
    ],
)
def test_only_the_value_of_the_top_level_model_changes(raw: bytes, renamed: bytes | None) -> None:
    body = read_body(raw)
    assert body.model == "a"
    assert body.span is not None
    start, end = body.span
    wanted = renamed or raw[:start] + b'"NEW"' + raw[end:]
    assert body.with_model("NEW") == wanted
    assert body.with_model("a") is raw
    assert json.loads(wanted) == json.loads(raw) | {"model": "NEW"}


@pytest.mark.parametrize("value", [b"5", b"[]", b'{"model":"a"}', b"true"])
def test_a_model_that_is_no_string_is_none_and_goes_out_as_it_came(value: bytes) -> None:
    raw = b'{"model":%b,"prompt":"x"}' % value
    body = read_body(raw)
    assert body.model == ""
    assert body.with_model("other") == raw


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b'{"prompt":"the model"}', b'{"prompt":"the model","model":"x"}'),
        (b"{ }", b'{"model":"x" }'),
        (b' {"a":1 } tail', b' {"a":1,"model":"x" } tail'),
        (b'{"model":null}', b'{"model":"x"}'),
        (b'{"a":1,"MODEL" : null,"b":2}', b'{"a":1,"model":"x","b":2}'),
        (b'{"model":""}', b'{"model":"x"}'),
        (b'{"Model":""}', b'{"Model":"x"}'),
        (b'{"prompt":"\\ud83d \xff"}', b'{"prompt":"\\ud83d \xff","model":"x"}'),
    ],
)
def test_a_model_that_is_absent_null_or_empty_is_put_in(raw: bytes, named: bytes) -> None:
    body = read_body(raw)
    assert body.model == ""
    assert body.with_model("") is raw
    assert body.with_model("x") == named


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["model", "Model", "m", "messages", 'a"b\\']), inner)
    ),
    max_leaves=12,
)
NAMES = st.text(max_size=12) | st.sampled_from(["qwen3:4b", "a\\", 'a"', "{", "},", "模型"])


BLANKS = st.text(" \t\r\n", max_size=2)


def written(fields: list[tuple[str, Any]], data: st.DataObject) -> bytes:
    """JSON of ``fields`` in their order, with blanks and escapes as a client may choose them."""

    def member(key: str, value: object) -> str:
        before, after = data.draw(BLANKS), data.draw(BLANKS)
        text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
        return f"{before}{json.dumps(key)}{after}:{before}{text}{after}"

    return ("{" + ",".join(member(key, value) for key, value in fields) + "}").encode()


@given(
    rest=st.dictionaries(st.text(max_size=8), JSON_VALUES, max_size=4),
    model=NAMES,
    other=NAMES,
    data=st.data(),
)
def test_whatever_stands_around_it_only_the_model_changes(
    rest: dict[str, Any], model: str, other: str, data: st.DataObject
) -> None:
    assume(all(key.lower() != "model" for key in rest))
    fields = data.draw(st.permutations([*rest.items(), ("model", model)]))
    raw = written(fields, data)
    body = read_body(raw)
    assert body.model == model
    renamed = body.with_model(other)
    assert orjson.loads(renamed) == orjson.loads(raw) | {"model": other}
    assert body.span is not None
    start, end = body.span
    assert renamed[:start] == raw[:start]
    assert renamed[len(renamed) - (len(raw) - end) :] == raw[end:]


# --- The loop goes on ---------------------------------------------------------------------------

CALL = {"type": "function", "function": {"name": "f", "arguments": {"model": "x", "n": [1, 2]}}}


def turns(raw: bytes) -> tuple[list[int], Body | Failure]:
    """Lines of Python run between two turns of the loop, for each; and the body."""
    lines: list[int] = [0]

    def count(frame: FrameType, event: str, arg: object) -> Any:
        del arg
        lines[-1] += event == "line"
        return count if "modelsplit" in frame.f_code.co_filename else None

    steps = read_in_steps(raw)
    with Hook(count, lines=True):
        try:
            while True:
                steps.send(None)
                lines.append(0)
        except StopIteration as end:
            body: Body = end.value
            return lines, body
        except BodyError as refused:
            return lines, refused.failure


@pytest.mark.parametrize(
    "raw",
    [
        orjson.dumps({"messages": [{"tool_calls": [CALL] * 5}] * 1000, "model": "a"}),
        b'{"messages":[{"model":"x","images":["%b"]}],"model":"a"}' % (b"A" * 3_000_000),
        b'{"messages":[{"model":"x","images":["%b"]}],"model":"a"}' % (b"\\n" * 1_000_000),
        b'{%b,"model":"a"}' % b",".join(b'"k%d":1' % i for i in range(100_000)),
        b'{%b,"model":"a"}' % b",".join(b'"k\\u006d%d":{"a":[]}' % i for i in range(50_000)),
        b'{"n":[%b],"model":"a"}' % b",".join([b"1"] * 500_000),
        b'{"n":[%b],"model":"a"}' % b",".join([b"[%b]" % (b"[" * 1500 + b"]" * 1500)] * 40),
        b'{"n":%b%b,"model":"a"}' % (b"[" * 9_000, b"]" * 9_000),
        b'{"n":%b%b%b,"model":"a"}' % (b"[[],[],[],[]," * 5_000, b"1", b"]" * 5_000),
    ],
    ids=[
        "tool calls",
        "image",
        "escapes",
        "keys",
        "odd keys",
        "numbers",
        "deep",
        "deeper",
        "bushy",
    ],
)
def test_whatever_a_body_holds_the_loop_has_a_turn_after_little_work(raw: bytes) -> None:
    lines, body = turns(raw)
    assert isinstance(body, Body)
    assert body.model == "a"
    # What is not counted as lines is the C decoder's work on no more than a window of text.
    assert max(lines) < 20_000
    assert len(lines) >= len(raw) // (3 * AT_ONCE_BYTES)
    # However odd, no more than a small multiple of its size.
    assert sum(lines) < 60 * len(raw)


@pytest.mark.parametrize("raw", [b"[" * 200_000, b'{"a":' * 100_000], ids=["arrays", "objects"])
def test_a_body_that_is_nested_without_an_end_is_refused_in_turns(raw: bytes) -> None:
    lines, failure = turns(raw)
    assert isinstance(failure, Failure)
    assert "nested more than 10000 deep" in failure.message
    assert max(lines) < 20_000


@pytest.mark.parametrize(
    "body",
    [
        lambda count: b"{%b}" % b",".join(b'"k%d":1' % i for i in range(count)),
        lambda count: b'{"n":%b%b}' % (b"[" * (count // 3), b"]" * (count // 3)),
        lambda count: b'{"n":[%b]}' % b",".join([b"[[[[1]]]]"] * count),
        lambda count: b'{"n":"%b"}' % (b"\\n" * count),
    ],
    ids=["keys", "deep", "bushy", "escapes"],
)
def test_four_times_the_body_makes_four_times_the_bytes(body: Callable[[int], bytes]) -> None:
    def made(count: int) -> int:
        raw, work = body(count), Work()
        with contextlib.suppress(StopIteration, BodyError), tracing():
            step = work.measured(read_in_steps(raw).send)
            while True:
                step(None)
        return work.made

    assert is_linear(made, 6_000)


async def test_beside_a_long_body_other_tasks_go_on() -> None:
    raw = orjson.dumps({"messages": [{"tool_calls": [CALL] * 5}] * 2000, "model": "a"})
    beats = 0

    async def heart() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    beating = asyncio.ensure_future(heart())
    assert read_at_once(raw) is None
    assert (await in_steps(read_in_steps(raw))).model == "a"
    beating.cancel()
    assert beats >= len(raw) // (2 * AT_ONCE_BYTES)


# --- Bodies that two decoders would read differently ------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","model":"a"}',
        b'{"model":"a","prompt":"x","model":null}',
        b'{"model":null,"model":"b"}',
        b'{"model":"a","mod\\u0065l":"b"}',
        b'{"\\u006D\\u006f\\u0064\\u0065\\u006C":"b","model":"a"}',
        b'{"mod\\u0065l":"a","m\\u006fdel":"b"}',
        b'{"model":"a","MODEL":"b"}',
        b'{"model":"a","mod\\u0045l":"b"}',
        b'{"model":"\\ud83d","model":"b"}',
    ],
)
def test_two_models_in_any_disguise_are_refused(raw: bytes) -> None:
    reason, _ = refusal(raw)
    assert reason is Reason.AMBIGUOUS_MODEL


@pytest.mark.parametrize("key", [b"Model", b"MODEL", b"\\u004dodel", b"mod\\u0065l"])
def test_one_spelling_of_another_case_is_the_model(key: bytes) -> None:
    body = read_body(b'{"%b":"a","n":[{"model":"b"}]}' % key)
    assert body.model == "a"
    assert body.with_model("x") == b'{"%b":"x","n":[{"model":"b"}]}' % key


KEYS = ["model", "Model", "mod\\u0065l", "\\u004dodel", "prompt", "MODELS"]


@given(keys=st.lists(st.sampled_from(KEYS), max_size=4), pad=st.booleans())
def test_a_body_is_read_only_if_go_and_python_name_the_same_model(
    keys: list[str], *, pad: bool
) -> None:
    """Go takes keys in any case and lets the last one win; Python compares them exactly."""
    items = ", ".join(f'"{key}": "v{i}"' for i, key in enumerate(keys))
    raw = ('{"pad": {"model": "no"}, ' if pad and keys else "{") + items + "}"
    pairs = json.loads(raw, object_pairs_hook=lambda pairs: pairs)
    go = [value for key, value in pairs if key.lower() == "model"]
    body = read(raw.encode())
    if isinstance(body, Body):
        assert go == ([body.model] if body.model else [])
    else:
        assert body.reason is Reason.AMBIGUOUS_MODEL
        assert len(go) > 1


# --- Bodies that are no JSON object -----------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "the body is empty; send a JSON object"),
        (b" \r\n", "the body is empty; send a JSON object"),
        (b"null", "the body is a JSON null, not an object"),
        (b"[]", "the body is a JSON array, not an object"),
        (b'"model"', "the body is a JSON string, not an object"),
        (b"3", "the body is a JSON number, not an object"),
        (b"true", "the body is a JSON boolean, not an object"),
        (b"{", "the body is not valid JSON: "),
        (b'{"model":"a"', "the body is not valid JSON: "),
        (b"model=a", "the body is not valid JSON: "),
        (b'\xef\xbb\xbf{"model":"a"}', "the body is not valid JSON: "),
        ('{"model":"a"}'.encode("utf-16"), "the body is not valid JSON: "),
        (b"[" * 100_000, "the body is not valid JSON: "),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "the body is not valid JSON: "),
        (b'{"model":"a","n":NaN}', "the body is not valid JSON: "),
        (b'{"model":"a","n":[1,NaN]}', "the body is not valid JSON: "),
        (b'{"model":"a","n":01}', "the body is not valid JSON: "),
        (b'{"model":"a",}', "the body is not valid JSON: "),
        (b'{"model":"a","n":[1,]}', "the body is not valid JSON: "),
        (b'{"model":"a","n":"\t"}', "the body is not valid JSON: "),
        (b'{"model":"a","n":"\\x"}', "the body is not valid JSON: "),
        (b'{"x":"\\ud800","n":' + b"[" * 100_000, "the body is not valid JSON: "),
    ],
)
def test_a_body_that_is_no_json_object_is_refused_in_words(raw: bytes, says: str) -> None:
    reason, message = refusal(raw)
    assert reason is Reason.BAD_JSON
    assert message.startswith(says)


@pytest.mark.parametrize(
    ("raw", "model"),
    [
        # JavaScript sends halves of surrogate pairs, and Ollama's decoder takes them.
        (b'{"model":"a","prompt":"\\ud83d"}', "a"),
        (b'{"model":"a","\\ud800":1}', "a"),
        (b'{"model":"\\ud800x"}', "\ufffdx"),
        (b'{"model":"a\xff"}', "a\ufffd"),
        (b'{"model":"a","prompt":"\xc3\x28"}', "a"),
        (b'{"model":"\xe2\x82"}', "\ufffd\ufffd"),
        (b'{"model":"a","n":' + b"9" * 5000 + b"}", "a"),
        (b'{"model":"a","n":1e999}', "a"),
        (b'{"model":"a","n":' + b"[" * 9000 + b"]" * 9000 + b"}", "a"),
        # Whatever follows the object is not read.
        (b'{"model":"a"} {}', "a"),
        (b'{"model":"a"}{"model":"b"}', "a"),
        (b'{"model":"a"}\n\x00 and so on', "a"),
    ],
)
@pytest.mark.parametrize("padding", [0, 2 * AT_ONCE_BYTES])
def test_what_ollama_reads_over_is_read_over_at_any_size(
    raw: bytes, model: str, padding: int
) -> None:
    raw = b'{"pad":"%b",%b' % (b"x" * padding, raw[1:])
    body = read_body(raw)
    assert body.model == model
    orjson.dumps(body.model)  # what cannot be written could neither be logged nor answered
    assert body.with_model(model) is raw
    assert read_body(body.with_model("b")).model == "b"


@given(raw=st.binary(max_size=60) | st.text('{}[]"\\,:model0', max_size=40).map(str.encode))
@example(raw=b'{"model":NaN}')
@example(raw=b'{"model":"a","x":[Infinity,-Infinity]}')
@example(raw=b'{"model":"a\\')
@example(raw=b'"\\ud83d"')
def test_any_bytes_are_a_body_or_a_body_error(raw: bytes) -> None:
    body = read(raw)
    if isinstance(body, Body):
        assert body.with_model(body.model) == raw
    else:
        assert body.message.encode()
