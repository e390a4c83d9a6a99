"""Which model a body names, as Go's decoder has it."""

from __future__ import annotations

import pytest

from modelsplit_proxy.http.body import BodyError
from modelsplit_proxy.protocol import named_models
from support.bodies import at_once, fields_of


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"model":"a"}', "a"),
        (b'{"name":"b"}', "b"),
        (b'{"model":"","name":"b"}', "b"),
        (b'{"model":"a","name":"b"}', "a"),
        (b'{"MODEL":"a"}', "a"),
        (b'{"model":"a","Model":"c"}', "c"),
        (b'{"model":"a","Model":null}', "a"),
        (b'{"model":3,"name":"b"}', "b"),
        (b'{"model":[]}', ""),
        (b"[]", ""),
        (b'"model"', ""),
        (b"", ""),
        (b'{"model":"a"', ""),
        # Go's decoder reads one value and looks no further.
        (b'{"model":"a"} and more', "a"),
        (b'\r\n {"model":"a"}{"model":"b"}', "a"),
        # And takes these where nobody asks for them.
        (b'{"model":"a","x":"\\ud800"}', "a"),
        (b'{"model":"a","x":"\xff"}', "a"),
        (b'{"model":"a","x":%b}' % (b"1" * 5000), "a"),
    ],
)
def test_the_model_a_body_is_about(body: bytes, model: str) -> None:
    assert named_models.model(at_once(named_models.fields_of(body))) == model


def test_another_model_takes_the_place_of_both_words() -> None:
    body = b'{"Model":"","system":"s","options":null,"name":"planner"}'
    changed = named_models.with_model(at_once(named_models.fields_of(body)), "qwen3:4b")
    assert changed == b'{"model":"qwen3:4b","system":"s","options":null,"name":"qwen3:4b"}'


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        (b"[" * 12_000 + b"]" * 12_000, "nested more than 10000 deep"),
        (b" " * 2**21 + b"1", "blanks"),
        (b"9" * 70_000, "digits"),
    ],
)
def test_what_is_not_read_is_not_taken_for_a_body_without_a_model(rest: bytes, says: str) -> None:
    with pytest.raises(BodyError, match=says):
        at_once(named_models.fields_of(b'{"x":%b,"model":"a"}' % rest))


def test_what_is_nested_deeply_is_read() -> None:
    body = b'{"model":"a","x":%b%b}' % (b"[" * 5000, b"]" * 5000)
    assert named_models.model(at_once(named_models.fields_of(body))) == "a"


def test_a_long_s_is_an_s() -> None:
    assert named_models.text(fields_of({"\u017fource": "planner"}), "source") == "planner"
