"""Fields as Go reads them: against the rules of its decoder, and against the stand-in's."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelsplit_policy import go_json
from modelsplit_policy.go_json import (
    LARGE,
    NAMES,
    Fields,
    GoJsonError,
    NotAnObjectError,
    Scan,
    field,
    fold,
    is_plain,
)
from modelsplit_sim import gojson

LONG_S, KELVIN = "\u017f", "\u212a"


def read(raw: bytes) -> Fields:
    """As a body is read: decoded at once where that is enough."""
    try:
        plain = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return Fields(raw, {}, Scan(raw).run())
    return Fields(raw, plain)


def both(raw: bytes) -> tuple[Fields, Fields]:
    """Read in the two ways there are."""
    return read(raw), Fields(raw, {}, Scan(raw).run())


# --- Keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("STREAM", "stream"),
        (f"{LONG_S}tream", "stream"),
        (f"max_to{KELVIN}en{LONG_S}", "max_tokens"),
        (f"{KELVIN}EEP_ALIVE", "keep_alive"),
        ("opt\u0131ons", "opt\u0131ons"),  # a dotless i is none
        ("ﬅream", "ﬅream"),  # nor is a ligature what it is made of
        ("messa\u0261es", "messa\u0261es"),
    ],
)
def test_keys_fold_by_unicodes_simple_folding(key: str, name: str) -> None:
    assert fold(key) == name
    values = Fields(b"", {}, Scan(json.dumps({key: 1}).encode()).run()).scan.members
    assert [member.name for member in values] == ([name] if name in NAMES else [])


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_found_in_every_spelling(name: str) -> None:
    strange = name.replace("s", LONG_S).replace("k", KELVIN)
    escaped = "".join(f"\\u{ord(char):04x}" for char in name)
    for key in (name, name.upper(), name.title(), strange, escaped):
        raw = f'{{"x":{{"{name}":2}},"{key}":"1"}}'.encode()
        for fields in both(raw):
            assert fields.all(name) == ["1"], key
            assert fields.get(name) == "1"


def test_a_name_that_nobody_looks_for_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Fields(b"{}", {}).all("colour")


def test_the_fields_of_an_inner_struct_fold_too() -> None:
    assert field({"TYPE": 1}, "type") == 1
    assert field({"type": 1, "Type": 2}, "type") == 2
    assert field({f"{LONG_S}chema": 1}, "schema") == 1
    assert field({}, "type") is None


@pytest.mark.parametrize(
    ("keys", "plain"),
    [
        (["model", "x"], True),
        (["model", "logitBias", "Größe"], True),
        (["model", "Stream"], False),
        ([f"option{LONG_S}"], False),
    ],
)
def test_keys_that_need_a_second_look(keys: list[str], plain: bool) -> None:
    assert is_plain(dict.fromkeys(keys)) is plain


# --- Values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "name", "values"),
    [
        (b'{"stream":true,"stream":false}', "stream", [True, False]),
        (b'{"stream":true,"STREAM":null}', "stream", [True, None]),
        (b'{"stream":true,"str\\u0065am":1}', "stream", [True, 1]),
        (b'{"options":{"a":1},"options":{"b":2}}', "options", [{"a": 1}, {"b": 2}]),
        (b'{"x":{"stream":1},"y":["stream"],"stream":2}', "stream", [2]),
        (b'{"x":"\\"stream\\":1","stream":2}', "stream", [2]),
        (b'{"max_tokens":12345678901234567890123}', "max_tokens", [12345678901234567890123.0]),
        (b'{"max_tokens":9007199254740993}', "max_tokens", [9007199254740993]),
        (b'{"max_tokens":1e999,"x":"\\ud800"}', "max_tokens", [None]),
        (b'{"max_tokens":%b}' % (b"9" * 5000), "max_tokens", [None]),
        (b'{"model":"a\xff\xe2\x82"}', "model", ["a\ufffd\ufffd\ufffd"]),
        (b'{"prompt":""} {"prompt":"x"}', "prompt", [""]),
        (b"{}", "prompt", []),
    ],
)
def test_every_value_is_read_in_order(raw: bytes, name: str, values: list[Any]) -> None:
    for fields in both(raw):
        assert fields.all(name) == values


def test_a_value_too_long_to_decode_is_large() -> None:
    raw = b'{"messages":["%b"],"format":{"x":"%b"}}' % (b"x" * 300, b"x" * 300_000)
    fields = Fields(raw, {}, Scan(raw).run())
    assert fields.all("messages") == [LARGE]
    assert fields.get("format") is LARGE
    with pytest.raises(GoJsonError, match='"options" is longer than'):
        Scan(b'{"options":{"num_predict":-1,"x":"%b"}}' % (b"x" * 300_000)).run()


def test_options_that_are_nested_beyond_the_decoder_are_read_all_the_same() -> None:
    deep = b"[" * 5000 + b"]" * 5000
    raw = b'{"options":{"num_predict":-1,"x":%b},"stream":%b}' % (deep, deep)
    fields = Fields(raw, {}, Scan(raw).run())
    assert fields.get("options") == {"num_predict": -1, "x": None}
    assert fields.get("stream") is None


# --- What is no object, and what Go refuses --------------------------------------------------


@pytest.mark.parametrize("raw", [b"null", b"[]", b" [1]", b'"x"', b"-3", b"true x"])
def test_json_of_another_kind_is_not_an_object(raw: bytes) -> None:
    with pytest.raises(NotAnObjectError, match="the body is a JSON"):
        Scan(raw).run()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "ends in the middle, after 0 bytes"),
        (b'{"a":1', "ends in the middle, after 6 bytes"),
        (b'{"a"}', "unexpected byte 0x7d at byte 4"),
        (b'{"a":1,}', "unexpected byte 0x7d at byte 7"),
        (b"{'a':1}", "unexpected byte 0x27 at byte 1"),
        (b'{"a":[1,,2]}', "unexpected byte 0x2c at byte 8"),
        (b'{"a":[{"b":nul}]}', "unexpected byte 0x6e at byte 11"),
        (b'{"a":"\n"}', "unexpected byte 0x0a at byte 6"),
        (b'{"a":%b}' % (b"9" * 70_000), "a number of more than"),
        (b'{"a":%b1}' % (b" " * 2**21), "blanks, at byte 5"),
        (b'{%b"a":1}' % (b'"stream":1,' * 60_000), "come too often"),
    ],
)
def test_what_is_wrong_is_said(raw: bytes, says: str) -> None:
    with pytest.raises(GoJsonError) as caught:
        Scan(raw).run()
    assert says in str(caught.value)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_ten_thousand_levels_are_read_and_no_more(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    deepest = b'{"a":%b1%b,"model":"x"}' % (opening * 9_990, closing * 9_990)
    assert [member.name for member in Scan(deepest).run().members] == ["model"]
    with pytest.raises(GoJsonError, match="nested more than 10000 deep"):
        Scan(b'{"a":%b1' % (opening * 12_000)).run()


# --- Any bytes -------------------------------------------------------------------------------


def refuse(_: str) -> None:
    raise ValueError


ORACLE = json.JSONDecoder(
    parse_int=float, parse_constant=refuse, object_pairs_hook=lambda pairs: ("pairs", pairs)
)


def pairs_of(raw: bytes) -> list[tuple[str, Any]] | None:
    """The members of the object that the bytes begin with; None if they begin with none."""
    text = raw.decode("utf-8", "surrogateescape").lstrip(" \t\r\n")
    try:
        value, _ = ORACLE.raw_decode(text)
    except ValueError:
        return None
    return value[1] if isinstance(value, tuple) else None


def agrees(raw: bytes) -> None:
    pairs = pairs_of(raw)
    try:
        scan = Scan(raw).run()
    except GoJsonError:
        assert pairs is None
        return
    assert pairs is not None
    wanted = [(fold(key), value) for key, value in pairs if fold(key) in NAMES]
    texts = [raw[member.start : member.end] for member in scan.members]
    values = [ORACLE.decode(text.decode("utf-8", "surrogateescape")) for text in texts]
    assert [member.name for member in scan.members] == [name for name, _ in wanted]
    assert values == [value for _, value in wanted]
    assert scan.is_empty is (not pairs)


KEYS = st.sampled_from(
    ["model", "MODEL", "options", f"option{LONG_S}", "mod\\u0065l", "stream", "x", "", "\\\\", "é"]
)
BLANKS = st.text(" \t\r\n", max_size=2)
SCALARS = st.sampled_from(
    [
        "1",
        "-0.5e+3",
        "true",
        "null",
        '""',
        '"a\\"]}"',
        '"\\ud83d"',
        '"\\u00e9\\n"',
        '"模型"',
        "01",
        "NaN",
    ]
)


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    blanks = st.tuples(BLANKS, BLANKS)
    items = st.lists(inner, max_size=4).map(",".join)
    return st.builds(lambda text, pair: f"[{pair[0]}{text}{pair[1]}]", items, blanks)


def objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.builds(
        lambda key, value, one, two: f'{one}"{key}"{two}:{one}{value}{two}',
        *(KEYS, inner, BLANKS, BLANKS),
    )
    return st.lists(member, max_size=4).map(lambda members: "{" + ",".join(members) + "}")


VALUES = st.recursive(SCALARS, lambda inner: arrays(inner) | objects(inner), max_leaves=20)
BODIES = st.builds(
    lambda blank, body, after: (blank + body + after).encode(),
    *(BLANKS, objects(VALUES), st.sampled_from(["", " ", "x", "{}", "]"])),
)


@given(raw=BODIES)
@example(raw=b'{"model":"a"}\xff')
def test_the_fields_are_found_where_a_decoder_has_them(raw: bytes) -> None:
    agrees(raw)


@given(raw=BODIES, window=st.integers(32, 200))
def test_a_window_of_any_size_shows_the_same(raw: bytes, window: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(go_json, "_WINDOW", window)
        patch.setattr(go_json, "_SMALLEST_WINDOW", 8)
        patch.setattr(go_json, "_PAUSE", 2)
        agrees(raw)


@given(
    raw=st.binary(max_size=60)
    | st.text('{}[]"\\,:model0 ', max_size=40).map(str.encode)
    | st.builds(lambda raw, at: raw[: at % (len(raw) + 1)], BODIES, st.integers(0, 10**6))
)
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    agrees(raw)


@given(raw=BODIES, changes=st.dictionaries(st.sampled_from(["model", "options"]), st.integers()))
def test_rewritten_every_field_is_there_once_and_all_else_as_it_was(
    raw: bytes, changes: dict[str, int]
) -> None:
    pairs = pairs_of(raw)
    if pairs is None:
        return
    out = Fields(raw, {}, Scan(raw).run()).rewritten(changes)
    if not changes:
        assert out == raw
    after = pairs_of(out)
    assert after is not None
    left = [(key, value) for key, value in after if fold(key) not in changes]
    assert left == [(key, value) for key, value in pairs if fold(key) not in changes]
    changed = [(key, value) for key, value in after if fold(key) in changes]
    assert dict(changed) == {name: float(value) for name, value in changes.items()}
    assert len(changed) == len(changes)


# --- The stand-in's decoder ------------------------------------------------------------------


@given(raw=BODIES)
def test_the_stand_in_reads_the_same(raw: bytes) -> None:
    """Both are ours, but know nothing of each other."""
    try:
        theirs = gojson.loads(raw)
    except gojson.GoJsonError:
        assert pairs_of(raw) is None
        return
    ours = read(raw)
    for name in NAMES & theirs.keys():
        given_values = ours.all(name)
        assert given_values
        if not isinstance(theirs[name], dict):
            assert json.dumps(given_values[-1]) == json.dumps(theirs[name])
    assert all(not ours.all(name) for name in NAMES - theirs.keys())
