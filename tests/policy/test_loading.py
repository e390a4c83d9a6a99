"""Which calls only load or unload, and what they need."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.loading import loading_of, may_fall_back, needs_seat
from modelsplit_policy.vocabulary import Loading
from support.bodies import fields_of
from support.endpoints import facts

GENERATE, CHAT = "/api/generate", "/api/chat"


def of(label: str, body: bytes | dict[str, Any]) -> Loading | None:
    return loading_of(facts(label), fields_of(body))


@pytest.mark.parametrize(
    ("label", "body"),
    [
        (GENERATE, {"prompt": "hi"}),
        (GENERATE, {"prompt": "hi", "keep_alive": 0}),
        (GENERATE, {"PROMPT": "hi"}),
        (GENERATE, {"prompt": "", "Prompt": "hi"}),
        # Go's decoder passes over a null: this prompt counts.
        (GENERATE, b'{"prompt":"hi","prompt":null}'),
        (GENERATE, b'{"prompt":"hi","pr\\u006fmpt":""}'),
        (CHAT, {"messages": [{}]}),
        (CHAT, b'{"messages":[{}],"messages":[]}'),
        ("/api/embed", {}),
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/completions", {"keep_alive": 0}),
    ],
)
def test_a_call_that_asks_something_is_none(label: str, body: Any) -> None:
    assert of(label, body) is None


@pytest.mark.parametrize(
    ("label", "body"),
    [
        (GENERATE, {}),
        (GENERATE, {"prompt": ""}),
        (GENERATE, {"prompt": None, "keep_alive": "5m"}),
        (GENERATE, {"keep_alive": -1}),
        (GENERATE, {"keep_alive": None}),
        (GENERATE, {"keep_alive": "soon"}),
        (GENERATE, {"messages": [{}]}),
        (CHAT, {"messages": []}),
        (CHAT, {"prompt": "hi"}),
    ],
)
def test_without_content_it_loads(label: str, body: Any) -> None:
    assert of(label, body) is Loading.LOAD


@pytest.mark.parametrize("length", [0, 0.0, "0", "0s", "0m0s", "-0s"])
@pytest.mark.parametrize("key", ["keep_alive", "KEEP_ALIVE"])
def test_and_with_no_time_to_stay_it_unloads(length: Any, key: str) -> None:
    assert of(GENERATE, {"prompt": "", key: length}) is Loading.UNLOAD
    assert of(CHAT, {"messages": [], key: length}) is Loading.UNLOAD


def test_an_unload_and_a_load_of_what_is_loaded_need_no_seat() -> None:
    assert not needs_seat(Loading.UNLOAD, fields_of({}), resident=True)
    assert not needs_seat(Loading.UNLOAD, fields_of({}), resident=False)
    assert not needs_seat(Loading.LOAD, fields_of({"options": None}), resident=True)
    assert not needs_seat(Loading.LOAD, fields_of({"options": {}}), resident=True)


def test_everything_else_does() -> None:
    assert needs_seat(None, fields_of({}), resident=True)
    assert needs_seat(Loading.LOAD, fields_of({}), resident=False)
    # Other options may make Ollama load it again.
    assert needs_seat(Loading.LOAD, fields_of({"options": {"num_ctx": 9}}), resident=True)
    assert needs_seat(
        Loading.LOAD, fields_of({"options": {}, "Options": {"num_ctx": 9}}), resident=True
    )


def test_an_unload_goes_to_the_fallback_only_if_the_first_is_not_installed() -> None:
    missing = Failure(ErrorCode.MODEL_NOT_FOUND, Reason.NOT_INSTALLED, "x", "X")
    failed = Failure(ErrorCode.UPSTREAM_LOCAL, Reason.STATUS, "x", "X")
    assert may_fall_back(Loading.UNLOAD, missing)
    assert not may_fall_back(Loading.UNLOAD, failed)
    for loading in (Loading.LOAD, None):
        assert may_fall_back(loading, missing)
        assert may_fall_back(loading, failed)
