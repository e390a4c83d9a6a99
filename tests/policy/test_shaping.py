"""What is changed in a request's body, and that Ollama then reads what the policy says."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import sentinel

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.config.model import Policy
from modelsplit_policy.config.parser import parse
from modelsplit_policy.shaping import Shape, answer_bound, apply, shape_of
from modelsplit_policy.vocabulary import Role
from support.bodies import fields_of
from support.endpoints import facts

SHIPPED = Path(__file__).parents[2] / "config" / "model-policy.json"
GENERATE, CHAT, MESSAGES = "/api/generate", "/api/chat", "/v1/messages"
COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/responses"
EMBEDS = ("/api/embed", "/api/embeddings")
NATIVE = (GENERATE, CHAT, *EMBEDS)
V1 = (COMPLETIONS, "/v1/completions", RESPONSES, MESSAGES)
BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
ROUTES = (*NATIVE, *V1, "/v1/embeddings", "/api/show")

ASKED = MappingProxyType({"model": "m", "prompt": "Why?"})


def policy(**roles: Any) -> Policy:
    raw = json.loads(SHIPPED.read_bytes())
    for role, keys in roles.items():
        if role == "models":
            raw["models"] |= keys
        else:
            raw["roles"][role] |= keys
    return parse(raw)


def applied(
    shape: Shape, label: str, body: Mapping[str, Any] | bytes
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The whole body to send, decoded, and the words; None if it stays."""
    fields = fields_of(body)
    changes, words = apply(shape, facts(label), fields)
    return None if changes is None else json.loads(fields.rewritten(changes)), words


def shaped(shape: Shape, label: str = GENERATE, **keys: Any) -> tuple[Any, tuple[str, ...]]:
    """What became of the given keys, and the words; None for the body if it stays."""
    fields = {**ASKED, **keys}
    before = copy.deepcopy(fields)
    after, words = applied(shape, label, fields)
    assert fields == before
    if after is None:
        return None, words
    assert {**after, **ASKED} == after
    return {key: value for key, value in after.items() if key not in ASKED}, words


# --- Which rules hold for an attempt -----------------------------------------------------


def test_the_shipped_policy_changes_nothing() -> None:
    shipped = policy()
    for role in Role:
        for chosen in (True, False):
            assert shape_of(shipped, role, "qwen3:8b", chosen) == Shape()


def test_pins_go_with_the_models_the_policy_chose_and_clamps_with_every_call() -> None:
    own = policy(
        PLANNER={"max_num_ctx": 8192, "max_keep_alive": "5m", "num_predict": 5},
        models={"Qwen3:8b": {"options": {"num_ctx": 4096, "num_gpu": 20}}},
    )
    assert shape_of(own, Role.PLANNER, "qwen3:8B", chosen_by_policy=True) == Shape(
        pinned=(("num_ctx", 4096), ("num_gpu", 20)),
        max_num_ctx=8192,
        max_keep_alive="5m",
        num_predict=5,
    )
    assert shape_of(own, Role.PLANNER, "qwen3:8b", chosen_by_policy=False).pinned == ()
    assert shape_of(own, Role.PLANNER, "qwen3:4b", chosen_by_policy=True).pinned == ()
    assert shape_of(own, Role.EXECUTOR, "qwen3:8b", chosen_by_policy=True) == Shape(
        pinned=(("num_ctx", 4096), ("num_gpu", 20))
    )


def test_an_arms_own_options_go_over_those_of_its_model() -> None:
    own = policy(models={"x": {"options": {"num_ctx": 4096, "num_gpu": 20}}})
    shape = shape_of(own, Role.PLANNER, "x:latest", True, {"num_ctx": 2048, "seed": 1})
    assert shape.pinned == (("num_ctx", 2048), ("num_gpu", 20), ("seed", 1))


# --- Pinned options ----------------------------------------------------------------------

PINS = Shape(pinned=(("num_ctx", 4096), ("use_mmap", True)))


@pytest.mark.parametrize("label", NATIVE)
def test_pinned_options_replace_what_the_client_sent(label: str) -> None:
    sent = {"num_ctx": 8192, "temperature": 0.5}
    assert shaped(PINS, label, options=sent, messages=[{"role": "user"}]) == (
        {
            "options": {"num_ctx": 4096, "temperature": 0.5, "use_mmap": True},
            "messages": [{"role": "user"}],
        },
        ("pinned num_ctx 4096", "pinned use_mmap true"),
    )


@pytest.mark.parametrize("options", [{}, {"options": None}, {"options": {}}])
def test_pinned_options_need_no_options_of_the_client(options: dict[str, Any]) -> None:
    assert shaped(PINS, **options) == (
        {"options": {"num_ctx": 4096, "use_mmap": True}},
        ("pinned num_ctx 4096", "pinned use_mmap true"),
    )


def test_a_client_that_sends_what_is_pinned_is_left_alone() -> None:
    assert shaped(PINS, options={"use_mmap": True, "num_ctx": 4096.0}) == (None, ())


def test_one_is_not_true() -> None:
    assert shaped(PINS, options={"use_mmap": 1, "num_ctx": 4096}) == (
        {"options": {"use_mmap": True, "num_ctx": 4096}},
        ("pinned use_mmap true",),
    )


def test_a_pin_beyond_a_clamp_is_cut() -> None:
    shape = Shape(pinned=(("num_ctx", 9000), ("num_predict", 99)), max_num_ctx=8192, num_predict=5)
    assert shaped(shape) == (
        {"options": {"num_ctx": 8192, "num_predict": 99}},
        ("pinned num_ctx 8192", "pinned num_predict 99"),
    )


@pytest.mark.parametrize("label", V1)
def test_the_routes_of_others_have_no_field_for_options(label: str) -> None:
    shape = Shape(pinned=PINS.pinned, max_num_ctx=1, max_keep_alive="1s")
    keys = {"options": {"num_ctx": 8192}, "keep_alive": -1, "max_tokens": 9}
    assert shaped(shape, label, **keys) == (None, ())


# --- num_ctx -----------------------------------------------------------------------------

CONTEXT = Shape(max_num_ctx=4096)


@pytest.mark.parametrize(
    ("sent", "word"),
    [
        (8192, "num_ctx 8192->4096"),
        (8192.0, "num_ctx 8192->4096"),
        (4096.5, "num_ctx 4096.5->4096"),
        (1e300, "num_ctx 1e+300->4096"),
        (10**30, "num_ctx 1e+30->4096"),
    ],
)
def test_a_larger_context_is_cut(sent: float, word: str) -> None:
    assert shaped(CONTEXT, options={"num_ctx": sent}) == ({"options": {"num_ctx": 4096}}, (word,))


@pytest.mark.parametrize("sent", [4096, 4096.0, 0, -1, None, "8192", True, [8192], 10**400])
def test_a_smaller_context_or_none_or_one_that_ollama_refuses_is_left(sent: Any) -> None:
    assert shaped(CONTEXT, options={"num_ctx": sent}) == (None, ())
    assert shaped(CONTEXT) == (None, ())


@pytest.mark.parametrize("sent", ["num_ctx", 7, True, [{"num_ctx": 8192}]])
def test_options_that_are_no_object_are_left_for_ollama_to_refuse(sent: Any) -> None:
    assert shaped(CONTEXT, options=sent) == (None, ())
    assert shaped(PINS, options=sent) == (None, ())


def test_a_key_inside_the_options_counts_exactly() -> None:
    assert shaped(CONTEXT, options={"NUM_CTX": 8192}) == (None, ())


# --- keep_alive --------------------------------------------------------------------------

STAY = Shape(max_keep_alive="5m")


@pytest.mark.parametrize(
    ("sent", "word"),
    [
        (-1, "keep_alive -1->5m"),
        (-0.5, "keep_alive -0.5->5m"),
        ("-1", "keep_alive -1->5m"),
        ("-1s", "keep_alive -1s->5m"),
        ("-1h30m", "keep_alive -1h30m->5m"),
        (301, "keep_alive 301->5m"),
        (300.5, "keep_alive 300.5->5m"),
        (1e300, "keep_alive 1e+300->5m"),
        ("301", "keep_alive 301->5m"),
        ("1h", "keep_alive 1h->5m"),
        ("+5m0.1s", "keep_alive +5m0.1s->5m"),
        ("0.1h", "keep_alive 0.1h->5m"),
        ("4m59s1001ms", "keep_alive 4m59s1001ms->5m"),
        ("300000001\u00b5s", "keep_alive 300000001\u00b5s->5m"),
        ("300000001\u03bcs", "keep_alive 300000001\u03bcs->5m"),
        ("9" * 5000 + "h", "keep_alive 999999999999999999999999->5m"),
        ("0" * 5000 + "1h", "keep_alive 000000000000000000000000->5m"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_longer_stay_and_one_for_ever_are_cut(sent: Any, word: str) -> None:
    assert shaped(STAY, keep_alive=sent) == ({"keep_alive": "5m"}, (word,))


@pytest.mark.parametrize(
    "sent",
    [
        *(0, 300, 300.0, -0.0, "0", "-0", "0s", "-0s", "-0.1ns", "5m", "4m60s", "300000ms", ".5s"),
        *("5.s", "300", None, "", "-", "soon", "5", "5 m", "5d", "1.2.3s", ".s", True, [], {}),
    ],
    ids=repr,
)
def test_a_shorter_stay_or_none_or_one_that_ollama_refuses_is_left(sent: Any) -> None:
    after, words = applied(STAY, GENERATE, {"keep_alive": sent})
    assert (after, words) == (None, ())


def test_a_call_that_sends_none_gets_what_ollama_is_set_to() -> None:
    assert shaped(STAY) == (None, ())


@pytest.mark.parametrize("label", NATIVE)
def test_home_assistant_no_longer_pins_a_model_for_everybody(label: str) -> None:
    shape = Shape(max_num_ctx=4096, max_keep_alive="30m")
    sent: dict[str, Any] = {
        "model": "qwen3:4b",
        "messages": [{"role": "user", "content": "Lights!"}],
        "stream": True,
        "keep_alive": -1,
        "options": {"num_ctx": 8192},
    }
    assert applied(shape, label, sent) == (
        sent | {"keep_alive": "30m", "options": {"num_ctx": 4096}},
        ("num_ctx 8192->4096", "keep_alive -1->30m"),
    )


# --- Loading and unloading ---------------------------------------------------------------

FULL = Shape(pinned=(("num_gpu", 20),), max_num_ctx=4096, max_keep_alive="5m", num_predict=512)
EMPTY: list[tuple[str, dict[str, Any]]] = [
    (GENERATE, {}),
    (GENERATE, {"prompt": ""}),
    (CHAT, {"messages": []}),
    (CHAT, {"messages": None}),
]


@pytest.mark.parametrize(("label", "fields"), EMPTY)
@pytest.mark.parametrize("stay", [0, "0", "0s"])
def test_unloading_is_left_alone(label: str, fields: dict[str, Any], stay: Any) -> None:
    assert applied(FULL, label, {**fields, "keep_alive": stay}) == (None, ())


@pytest.mark.parametrize(("label", "fields"), EMPTY)
def test_loading_gets_the_pins_and_the_clamps_but_no_bound_on_tokens(
    label: str, fields: dict[str, Any]
) -> None:
    sent = {**fields, "keep_alive": -1, "options": {"num_ctx": 8192}}
    assert applied(FULL, label, sent) == (
        sent | {"keep_alive": "5m", "options": {"num_ctx": 4096, "num_gpu": 20}},
        ("pinned num_gpu 20", "num_ctx 8192->4096", "keep_alive -1->5m"),
    )


@pytest.mark.parametrize("label", EMBEDS)
def test_embeddings_have_no_tokens_to_bound(label: str) -> None:
    shape = Shape(num_predict=512, max_num_predict=512)
    assert shaped(shape, label) == (None, ())
    assert shaped(shape, label, options={"num_predict": -1}) == (None, ())


# --- Tokens ------------------------------------------------------------------------------

GIVEN = Shape(num_predict=512)
MOST = Shape(max_num_predict=2048)
BOTH = Shape(num_predict=512, max_num_predict=2048)
LEFT = sentinel.left_as_it_is


@pytest.mark.parametrize(
    ("sent", "given_", "most", "both"),
    [
        (LEFT, 512, LEFT, 512),
        (None, 512, LEFT, 512),
        (0, 512, 2048, 512),
        (100, LEFT, LEFT, LEFT),
        (2048, LEFT, LEFT, LEFT),
        (2049, LEFT, 2048, 2048),
        (-1, LEFT, 2048, 2048),
        (-2, LEFT, 2048, 2048),
        (True, LEFT, LEFT, LEFT),
        ("9999", LEFT, LEFT, LEFT),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("label", "key"),
    [
        (GENERATE, "num_predict"),
        (COMPLETIONS, "max_tokens"),
        ("/v1/completions", "max_tokens"),
        (RESPONSES, "max_output_tokens"),
    ],
)
def test_the_number_of_tokens(
    label: str, key: str, sent: Any, given_: Any, most: Any, both: Any
) -> None:
    inner = {} if sent is LEFT else {key: sent}
    fields = {"options": inner} if label == GENERATE else inner
    for shape, wanted in ((GIVEN, given_), (MOST, most), (BOTH, both)):
        after, words = shaped(shape, label, **fields)
        if wanted is LEFT:
            assert (after, words) == (None, ())
        else:
            said = "unset" if sent in {LEFT, None} else sent
            assert words == (f"{key} {said}->{wanted}",)
            assert after == ({"options": {key: wanted}} if label == GENERATE else {key: wanted})


@pytest.mark.parametrize("sent", [0.0, 0.9, -0.9])
def test_a_part_of_a_token_is_none_and_so_no_bound(sent: float) -> None:
    after, _ = shaped(GIVEN, options={"num_predict": sent})
    assert after == {"options": {"num_predict": 512}}


@pytest.mark.parametrize("sent", [9999.0, 1e30, 10**30, "9999", [1]])
def test_what_the_v1_routes_refuse_is_left_to_them(sent: Any) -> None:
    assert shaped(BOTH, RESPONSES, max_output_tokens=sent) == (None, ())


@pytest.mark.parametrize(
    ("sent", "wanted", "words"),
    [
        ({"max_completion_tokens": 100}, (100, 100), ("max_tokens unset->100",)),
        (
            {"max_completion_tokens": 9999},
            (2048, 2048),
            ("max_tokens unset->2048", "max_completion_tokens 9999->2048"),
        ),
        (
            {"max_completion_tokens": 0},
            (512, 512),
            ("max_tokens unset->512", "max_completion_tokens 0->512"),
        ),
        (
            {"max_tokens": 0, "max_completion_tokens": -1},
            (512, 2048),
            ("max_tokens 0->512", "max_completion_tokens -1->2048"),
        ),
        ({"max_completion_tokens": "100"}, (512, "100"), ("max_tokens unset->512",)),
        (
            {"max_tokens": 100, "max_completion_tokens": 9999},
            (100, 2048),
            ("max_completion_tokens 9999->2048",),
        ),
    ],
    ids=str,
)
def test_both_names_of_a_bound_are_bounded_whichever_ollama_reads(
    sent: dict[str, Any], wanted: tuple[Any, Any], words: tuple[str, ...]
) -> None:
    max_tokens, max_completion_tokens = wanted
    assert shaped(BOTH, COMPLETIONS, **sent) == (
        {"max_tokens": max_tokens, "max_completion_tokens": max_completion_tokens},
        words,
    )


@pytest.mark.parametrize("sent", [{}, {"max_tokens": None}, {"max_tokens": 0}, {"max_tokens": -1}])
def test_messages_without_their_number_are_refused_by_ollama(sent: dict[str, Any]) -> None:
    assert shaped(BOTH, MESSAGES, **sent) == (None, ())


def test_messages_with_too_large_a_number_are_cut() -> None:
    assert shaped(BOTH, MESSAGES, max_tokens=32_000) == (
        {"max_tokens": 2048},
        ("max_tokens 32000->2048",),
    )


# --- Keys in other spellings, and keys that come twice -------------------------------------


@pytest.mark.parametrize("key", ["KEEP_ALIVE", "Keep_Alive", "\u212aeep_alive"])
def test_another_spelling_is_the_same_key(key: str) -> None:
    keys: dict[str, Any] = {key: -1}
    assert shaped(STAY, **keys) == ({"keep_alive": "5m"}, ("keep_alive -1->5m",))


@pytest.mark.parametrize("key", ["OPTIONS", "Options", "option\u017f"])
def test_other_spellings_of_options(key: str) -> None:
    keys: dict[str, Any] = {key: {"num_ctx": 9999, "seed": 1}}
    assert shaped(CONTEXT, **keys) == (
        {"options": {"num_ctx": 4096, "seed": 1}},
        ("num_ctx 9999->4096",),
    )


def test_two_spellings_become_one_and_the_last_is_what_ollama_read() -> None:
    assert shaped(STAY, keep_alive="1m", KEEP_ALIVE=-1) == (
        {"keep_alive": "5m"},
        ("keep_alive -1->5m", "keep_alive sent twice"),
    )
    assert shaped(STAY, keep_alive=-1, KEEP_ALIVE="1m") == (
        {"keep_alive": "1m"},
        ("keep_alive sent twice",),
    )


def test_two_options_are_merged_as_ollama_merges_them() -> None:
    assert shaped(CONTEXT, options={"num_ctx": 9999, "seed": 1}, Options={"top_k": 2}) == (
        {"options": {"num_ctx": 4096, "seed": 1, "top_k": 2}},
        ("num_ctx 9999->4096", "options sent twice"),
    )
    assert shaped(CONTEXT, options={"num_ctx": 9999}, Options=None) == (
        {"options": {}},
        ("options sent twice",),
    )


def test_a_bound_that_a_second_spelling_takes_back_holds() -> None:
    assert shaped(GIVEN, COMPLETIONS, max_tokens=5, MAX_TOKENS=None) == (
        {"max_tokens": 5},
        ("max_tokens sent twice",),
    )


def test_unloading_in_one_spelling_and_loading_in_the_other_is_loading() -> None:
    for first, second in ((0, -1), (-1, 0)):
        after, _ = applied(PINS, GENERATE, {"KEEP_ALIVE": first, "keep_alive": second})
        assert after is not None
        assert after["options"] == dict(PINS.pinned)


def test_a_changed_key_stays_where_it_stood() -> None:
    after, _ = applied(STAY, CHAT, {"a": 1, "KEEP_ALIVE": -1, "b": 2, "keep_alive": -1})
    assert after is not None
    assert list(after) == ["a", "keep_alive", "b"]


def test_of_a_key_that_comes_twice_the_rules_see_what_ollama_reads() -> None:
    raw = b'{"model":"m","options":{"num_ctx":9999},"options":{"seed":1}}'
    bounded = {"model": "m", "options": {"num_ctx": 4096, "seed": 1}}
    assert applied(CONTEXT, GENERATE, raw) == (
        bounded,
        ("num_ctx 9999->4096", "options sent twice"),
    )
    assert applied(STAY, GENERATE, raw) == (None, ())


# --- For any request: what Go's decoder reads ---------------------------------------------


class Pairs(list[tuple[str, Any]]):
    """An object as it is written, each key as often as it comes."""


class RefusedError(Exception):
    """Ollama answers 400 or 500."""


GO_UNITS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3}
GO_UNITS |= {"s": 1.0, "m": 60.0, "h": 3600.0}
GO_PART = r"(\d+\.?\d*|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)"


def go_values(raw: bytes, name: str) -> list[Any]:
    body = json.loads(raw, object_pairs_hook=Pairs)
    return [value for key, value in body if re.fullmatch(name, key, re.IGNORECASE)]


def go_seconds(raw: bytes) -> float | None:
    """How long the model stays: negative for ever, None as the server is set."""
    value = (go_values(raw, "keep_alive") or [None])[-1]
    for one in go_values(raw, "keep_alive"):
        go_one_duration(one)
    return go_one_duration(value)


def go_one_duration(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise RefusedError
    if not isinstance(value, str):
        return float(value)
    if re.fullmatch(r"[+-]?0", value):
        return 0.0
    if not re.fullmatch(rf"[+-]?({GO_PART})+", value, re.ASCII):
        raise RefusedError
    length = sum(float(n) * GO_UNITS[unit] for n, unit in re.findall(GO_PART, value, re.ASCII))
    return -length if value.startswith("-") else length


def go_options(raw: bytes) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for value in go_values(raw, "options"):
        if value is None:
            merged = {}
        elif isinstance(value, Pairs):
            merged |= dict(value)
        else:
            raise RefusedError
    return merged


def go_option(raw: bytes, name: str) -> int | None:
    value = go_options(raw).get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError
    return math.trunc(value)


def go_int(raw: bytes, name: str, *, pointer: bool) -> int | None:
    """An int field of a /v1 request. Null empties a pointer, and leaves a plain int alone."""
    read = None
    for value in go_values(raw, name):
        if value is None:
            read = None if pointer else read
        elif isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
            raise RefusedError
        else:
            read = value
    return read


def variants(name: str) -> st.SearchStrategy[str]:
    """The key as a JSON string, in one of the spellings Go takes for it."""
    strange = name.replace("k", "\u212a").replace("s", "\u017f")
    escaped = '"' + "".join(f"\\u{ord(c):04x}" for c in name) + '"'
    plain = [name, name.upper(), name.title(), strange]
    texts = [json.dumps(one, ensure_ascii=flag) for one in plain for flag in (True, False)]
    return st.sampled_from([f'"{name}"'] * 4 + texts + [escaped])


INTEGERS = st.sampled_from([-2, -1, 0, 1, 3, 4, 5, 100, 2**40, 10**25]) | st.integers(-9, 9)
NUMBERS = INTEGERS | st.floats(-9, 9) | st.sampled_from([1e30, -1e30, 4.5, 1e300])
ODD: st.SearchStrategy[Any] = st.sampled_from([None, True, "9", "x", [], {}])
DURATIONS = st.from_regex(rf"[+-]?({GO_PART}){{1,3}}", fullmatch=True) | st.sampled_from(
    ["-1", "0", "-0", "-1s", "4s", "5s", "6s", "5001ms", "1h30m", "soon", ""]
)
INNER = st.dictionaries(
    st.sampled_from(["num_ctx", "num_predict", "num_gpu", "seed", "NUM_CTX"]), NUMBERS | ODD
)
SOME = (
    ("options", INNER | ODD),
    ("keep_alive", NUMBERS | DURATIONS | ODD),
    *((name, INTEGERS | ODD) for name in BOUNDS),
)
CONTENTS = (
    ("prompt", st.sampled_from(["", "x", '"options":{}, \\u0041', None])),
    ("messages", st.sampled_from([[], [{"role": "user", "options": {"num_ctx": 9}}], None])),
)


@st.composite
def pairs(draw: st.DrawFn) -> str:
    name, values = draw(st.sampled_from((*SOME, *SOME, *CONTENTS)))
    return f"{draw(variants(name))}: {json.dumps(draw(values))}"


BODIES = st.lists(pairs(), max_size=6).map(lambda parts: ("{" + ", ".join(parts) + "}").encode())
PINNED = st.dictionaries(
    st.sampled_from(["num_ctx", "num_gpu", "num_predict"]), st.integers(1, 9), max_size=2
).map(lambda pins: tuple(pins.items()))
LIMIT = st.none() | st.integers(1, 6)
SHAPES = st.builds(
    Shape,
    pinned=PINNED,
    max_num_ctx=LIMIT,
    max_keep_alive=st.sampled_from([None, "1s", "5s", "1m"]),
    num_predict=LIMIT,
    max_num_predict=LIMIT,
)


def sent(shape: Shape, label: str, raw: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The bytes that go out."""
    fields = fields_of(raw)
    changes, words = apply(shape, facts(label), fields)
    assert (changes is None) is (words == ())
    return (raw if changes is None else fields.rewritten(changes)), words


@given(shape=SHAPES, label=st.sampled_from(NATIVE), raw=BODIES)
def test_ollama_reads_no_context_and_no_stay_beyond_the_clamps(
    shape: Shape, label: str, raw: bytes
) -> None:
    out, _ = sent(shape, label, raw)
    try:
        context, stay = go_option(out, "num_ctx"), go_seconds(out)
    except RefusedError:
        return
    if shape.max_num_ctx is not None:
        assert context is None or context <= shape.max_num_ctx
    if shape.max_keep_alive is not None:
        most = go_one_duration(shape.max_keep_alive)
        assert most is not None
        # Nothing below a nanosecond: there Go counts in whole ones.
        assert stay is None or -1e-9 < stay < most + 1e-9 or stay == 0


@given(shape=SHAPES, label=st.sampled_from((GENERATE, CHAT)), raw=BODIES)
def test_ollama_reads_a_bound_on_the_tokens_where_the_policy_has_one(
    shape: Shape, label: str, raw: bytes
) -> None:
    out, _ = sent(shape, label, raw)
    content = [v for v in go_values(out, "prompt" if label == GENERATE else "messages") if v]
    try:
        tokens = go_option(out, "num_predict")
    except RefusedError:
        return
    if shape.max_num_predict is not None and tokens is not None:
        assert 0 < tokens <= shape.max_num_predict
    if shape.num_predict is not None and content:
        assert tokens is not None
        assert tokens != 0


@given(shape=SHAPES, label=st.sampled_from(V1), raw=BODIES)
def test_the_v1_routes_read_a_bound_on_the_tokens_where_the_policy_has_one(
    shape: Shape, label: str, raw: bytes
) -> None:
    out, _ = sent(shape, label, raw)
    key = "max_output_tokens" if label == RESPONSES else "max_tokens"
    newer = label in {COMPLETIONS, "/v1/completions"}
    try:
        tokens = go_int(out, key, pointer=label != MESSAGES)
        other = go_int(out, "max_completion_tokens", pointer=True) if newer else None
    except RefusedError:
        return
    if label == MESSAGES and (tokens is None or tokens <= 0):
        return  # refused
    for read in (tokens, other):
        if shape.max_num_predict is not None and read is not None:
            assert 0 < read <= shape.max_num_predict
    if shape.num_predict is not None:
        assert tokens is not None
        assert tokens != 0
    if shape.max_num_predict is not None and other is not None:
        assert tokens is not None


@given(shape=SHAPES, label=st.sampled_from((GENERATE, CHAT)), raw=BODIES)
def test_pins_that_no_clamp_cuts_are_what_ollama_reads_when_it_answers(
    shape: Shape, label: str, raw: bytes
) -> None:
    out, _ = sent(shape, label, raw)
    content = [v for v in go_values(out, "prompt" if label == GENERATE else "messages") if v]
    try:
        options = go_options(out)
    except RefusedError:
        return
    if content:
        assert all(options[name] == value for name, value in shape.pinned if name == "num_gpu")


@given(shape=SHAPES, label=st.sampled_from(ROUTES), raw=BODIES)
def test_applied_once_there_is_nothing_left_to_apply(shape: Shape, label: str, raw: bytes) -> None:
    out, _ = sent(shape, label, raw)
    assert sent(shape, label, out) == (out, ())
    assert applied(shape, label, out) == (None, ())


@given(label=st.sampled_from(ROUTES), raw=BODIES)
def test_without_rules_every_request_stays_as_it_is(label: str, raw: bytes) -> None:
    assert applied(Shape(), label, raw) == (None, ())


@given(shape=SHAPES, label=st.sampled_from(ROUTES), raw=BODIES)
def test_nothing_but_the_named_keys_is_touched(shape: Shape, label: str, raw: bytes) -> None:
    fields = json.loads(raw) | {"model": "m", "Format": {"options": {"num_ctx": 9}}}
    after, _ = applied(shape, label, fields)
    if after is not None:
        names = re.compile("options|keep_alive|max_(completion_|output_)?tokens", re.IGNORECASE)
        kept = {key: value for key, value in fields.items() if not names.fullmatch(key)}
        assert {key: value for key, value in after.items() if key in kept} == kept


@given(limit=st.integers(1, 9), raw=BODIES)
def test_a_request_within_the_clamps_stays_as_it_is(limit: int, raw: bytes) -> None:
    shape = Shape(max_num_ctx=limit)
    fields = json.loads(raw)
    spellings = [key for key in fields if re.fullmatch("options", key, re.IGNORECASE)]
    try:
        context = go_option(json.dumps(fields).encode(), "num_ctx")
    except RefusedError:
        context = None
    if len(spellings) < 2 and (context is None or context < limit):
        assert applied(shape, GENERATE, fields) == (None, ())


@given(text=st.text(alphabet="0123456789.hmsnu\u00b5-+", max_size=12))
def test_every_duration_that_go_reads_is_read_alike(text: str) -> None:
    after, _ = applied(STAY, GENERATE, {"keep_alive": text})
    try:
        length = go_one_duration(text)
    except RefusedError:
        return
    assert length is not None
    if abs(length - 300) > 1e-6 and not -1e-9 < length < 0:
        assert (after is not None) is (length < 0 or length > 300)


# --- How long an answer may be -----------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "label", "keys", "bound"),
    [
        (Shape(), CHAT, {}, None),
        (Shape(), CHAT, {"options": {"num_predict": 3}}, 3),
        (Shape(), CHAT, {"options": {"num_predict": -1}}, None),
        (Shape(), CHAT, {"options": {"num_predict": "3"}}, None),
        (Shape(), CHAT, {"options": "none"}, None),
        (Shape(), CHAT, {"max_tokens": 3}, None),
        (Shape(), COMPLETIONS, {"max_tokens": 3}, 3),
        (Shape(), COMPLETIONS, {"max_tokens": 3, "max_completion_tokens": 9}, 9),
        (Shape(), RESPONSES, {"max_output_tokens": 3}, 3),
        (Shape(), MESSAGES, {"max_tokens": 3.0}, 3),
        (Shape(pinned=(("num_predict", 7),)), CHAT, {}, 7),
        (Shape(pinned=(("num_predict", 7),)), CHAT, {"options": {"num_predict": 3}}, 7),
        (Shape(num_predict=5), CHAT, {}, 5),
        # A most alone gives no bound to who names none.
        (Shape(max_num_predict=5), CHAT, {}, None),
        (Shape(max_num_predict=5), CHAT, {"options": {"num_predict": -1}}, 5),
        (Shape(max_num_predict=5), CHAT, {"options": {"num_predict": 9}}, 5),
        (Shape(max_num_predict=5), COMPLETIONS, {"max_tokens": 3}, 3),
    ],
)
def test_the_request_and_the_policy_bound_an_answer(
    shape: Shape, label: str, keys: dict[str, Any], bound: int | None
) -> None:
    assert answer_bound(shape, facts(label), fields_of({**ASKED, **keys})) == bound
