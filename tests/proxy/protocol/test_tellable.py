"""JSON that is always JSON."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.protocol import tellable

TEXT = st.text(st.characters(codec=None), max_size=9)
LEAF = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), TEXT)
VALUES = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)


def test_what_orjson_can_say_is_said_as_it_says_it() -> None:
    value = {"role": Role.CHAT, "n": 2**64 - 1, "text": "に", "x": (1, 2.5, None)}
    assert tellable.dumps(value) == orjson.dumps(value)
    newline = orjson.OPT_APPEND_NEWLINE
    assert tellable.dumps(value, newline) == orjson.dumps(value, option=newline)


def test_what_it_cannot_say_is_unknown_and_the_rest_is_said() -> None:
    value = {
        "role": Role.CHAT,
        "n": 2**64,
        "below": -(2**63) - 1,
        "half": "a\ud800b",
        "\udfff": [True, {"deep": 2**70}],
        "set": {7},
        "odd": object(),
        "nan": math.nan,
    }
    assert orjson.loads(tellable.dumps(value)) == {
        "role": "CHAT",
        "n": None,
        "below": None,
        "half": "a\ufffdb",
        "\ufffd": [True, {"deep": None}],
        "set": [7],
        "odd": "<object>",
        "nan": None,
    }


def test_what_is_nested_deeper_than_can_be_written_is_not_told() -> None:
    value: Any = 2**70
    for _ in range(300):
        value = [value]
    with pytest.raises(RecursionError):
        tellable.dumps(value)


@given(VALUES)
def test_whatever_it_is_it_is_told(value: Any) -> None:
    orjson.loads(tellable.dumps(value, orjson.OPT_NON_STR_KEYS))
