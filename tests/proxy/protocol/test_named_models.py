"""Which model a body names, as Go's decoder has it."""

from __future__ import annotations

import orjson
import pytest

from modelsplit_proxy.http.body import BodyError
from modelsplit_proxy.protocol import named_models


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
    assert named_models.model(named_models.fields_of(body)) == model


def test_another_model_takes_the_place_of_both_words() -> None:
    body = b'{"Model":"","system":"s","options":null,"name":"planner"}'
    changed = named_models.with_model(named_models.fields_of(body), "qwen3:4b")
    assert orjson.loads(changed) == {"model": "qwen3:4b", "system": "s", "options": None}


def test_what_is_nested_too_deeply_is_not_taken_for_a_body_without_a_model() -> None:
    with pytest.raises(BodyError, match="nested too deeply"):
        named_models.fields_of(b'{"model":"a","x":%b%b}' % (b"[" * 5000, b"]" * 5000))


def test_a_long_s_is_an_s() -> None:
    assert named_models.text({"\u017fource": "planner"}, "source") == "planner"
