"""Which model a body names, as Go's decoder has it."""

from __future__ import annotations

import orjson
import pytest

from modelsplit_proxy import named


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
    ],
)
def test_the_model_a_body_is_about(body: bytes, model: str) -> None:
    assert named.model(named.fields_of(body)) == model


def test_another_model_takes_the_place_of_both_words() -> None:
    body = b'{"Model":"","system":"s","options":null,"name":"planner"}'
    changed = named.with_model(named.fields_of(body), "qwen3:4b")
    assert orjson.loads(changed) == {"model": "qwen3:4b", "system": "s", "options": None}


def test_a_long_s_is_an_s() -> None:
    assert named.text({"\u017fource": "planner"}, "source") == "planner"
