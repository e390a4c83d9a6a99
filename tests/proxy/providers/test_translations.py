"""Every route that a cloud can answer: asked and answered in the client's own dialect."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from modelsplit_proxy.protocol.stream_end import Tail
from modelsplit_proxy.providers.answer import Answer, AnswerError, AnswerStream
from modelsplit_proxy.providers.events import BrokenAnswerError, EventReader
from modelsplit_proxy.providers.question import Terms
from modelsplit_proxy.providers.translations import MESSAGES_PATH, TRANSLATIONS
from support import messages as say

if TYPE_CHECKING:
    from collections.abc import Iterator

BY_LABEL = {endpoint.label: endpoint for endpoint in ENDPOINTS}
ASKED: dict[str, dict[str, Any]] = {
    "/api/generate": {"prompt": "hi"},
    "/v1/completions": {"prompt": "hi", "stream_options": {"include_usage": True}},
    "/v1/responses": {"input": "hi"},
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": "hi"}],
        "stream_options": {"include_usage": True},
    },
}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("label", TRANSLATIONS)
def test_a_question_and_a_whole_stream(label: str) -> None:
    translation = TRANSLATIONS[label]
    fields = {"model": "cloud", "stream": True} | ASKED.get(label, CHAT)
    question = translation.ask(fields, Terms("claude-x", 100))
    assert (question.body["model"], question.body["max_tokens"]) == ("claude-x", 100)
    assert question.body["stream"] is True
    stream = say.start() + say.text("hello") + say.end()
    writer = translation.writer("opus", say.StoppedClock(), fields)
    given = say.translated(writer, stream) or stream
    tail = Tail()
    tail.feed(given)
    verdict = BY_LABEL[label].wire.judge(tail)
    assert verdict.complete
    assert verdict.usage.output_tokens == 7
    assert b"hello" in given


def test_usage_is_told_only_where_it_is_asked_for() -> None:
    translation = TRANSLATIONS["/v1/chat/completions"]
    for options in (None, {}, {"include_usage": False}, "x"):
        writer = translation.writer("opus", say.StoppedClock(), {"stream_options": options})
        assert b'"usage"' not in say.translated(writer, say.start() + say.end())


def test_a_whole_answer_is_one_object() -> None:
    for label, translation in TRANSLATIONS.items():
        if label != MESSAGES_PATH:
            body = translation.writer("opus", say.StoppedClock(), {}).whole(Answer("msg_1", "hi"))
            assert orjson.loads(body)["model"] == "opus", label


WHOLE = (
    say.start(cache_read_input_tokens=5)
    + say.block(0, "thinking", thinking="")
    + say.delta(0, "thinking_delta", thinking="hm")
    + say.delta(0, "signature_delta", signature="c2ln")
    + say.stop(0)
    + say.text("Hel", "lo", index=1)
    + say.tool("f", '{"x":', "1}", index=2)
    + say.end("tool_use")
)
EVENTS = [event.data for event in EventReader().feed(WHOLE)]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 3, 2**63, 1e308, "", "text", "tool_use", "x", [], {}, [1], {"x": 1}]),
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something may be put that does not belong there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in inner:
        yield (*at, key)
        if isinstance(below, dict | list):
            yield from places(below, (*at, key))


@given(
    st.sampled_from(list(TRANSLATIONS)),
    st.lists(st.tuples(st.sampled_from(list(places(EVENTS))), ODD), max_size=3),
    st.lists(st.integers(0, len(EVENTS) - 1), max_size=2),
    st.lists(st.integers(0, len(EVENTS) - 1), max_size=2),
)
def test_a_stream_changed_anyhow_is_told_whole_or_told_broken(
    label: str, changes: list[tuple[tuple[Any, ...], Any]], lost: list[int], twice: list[int]
) -> None:
    """Never anything between: what is told whole can be read by the client to its end."""
    events = copy.deepcopy(EVENTS)
    for place, odd in changes:
        set_in(events, place, odd)
    told = [event for at, event in enumerate(events) if at not in lost]
    told += [events[at] for at in twice]
    writer = TRANSLATIONS[label].writer("opus", say.StoppedClock(), {})
    answer = AnswerStream(writer, answers_by_tool=False)
    given_out = b""
    try:
        for event in told:
            given_out += answer.feed(event if isinstance(event, dict) else {})
    except (AnswerError, BrokenAnswerError):
        return
    tail = Tail()
    tail.feed(given_out)
    assert BY_LABEL[label].wire.judge(tail).complete is answer.is_whole
    for line in given_out.splitlines():
        data = BY_LABEL[label].wire.data(line)
        assert data is None or data == b"[DONE]" or orjson.loads(data), line


def set_in(events: list[Any], place: tuple[Any, ...], odd: Any) -> None:
    """Put it there, unless an earlier change has taken the place away."""
    holder: Any = events
    for key in place[:-1]:
        try:
            holder = holder[key]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(holder, dict) or (isinstance(holder, list) and place[-1] < len(holder)):
        holder[place[-1]] = odd
