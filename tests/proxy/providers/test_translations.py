"""Every route that a cloud can answer: asked and answered in the client's own dialect."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from modelsplit_proxy.protocol.stream_end import Tail
from modelsplit_proxy.providers.answer import Answer
from modelsplit_proxy.providers.question import Terms
from modelsplit_proxy.providers.translations import MESSAGES_PATH, TRANSLATIONS
from support import messages as say

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
