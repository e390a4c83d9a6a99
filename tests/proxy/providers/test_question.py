"""Requests as the Messages API takes them: turns, tools, forms, bounds, and what is left out."""

from __future__ import annotations

import base64

import pytest

from modelsplit_proxy.providers.question import (
    ANSWER_TOOL,
    Draft,
    Terms,
    UntranslatableError,
    in_their_order,
    leave_out_rest,
    objects,
    picture,
    text_block,
    text_of,
)

TERMS = Terms("claude-x", 4096, thinking_tokens=2048)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def draft(terms: Terms = TERMS) -> Draft:
    begun = Draft(terms)
    begun.say("user", text_block("hello"))
    return begun


def test_the_least_that_can_be_asked() -> None:
    question = draft().question(stream=False)
    assert question.body == {
        "model": "claude-x",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
    }
    assert (question.untranslated, question.answers_by_tool) == ((), False)


def test_a_request_that_asks_nothing_is_refused() -> None:
    begun = Draft(TERMS)
    begun.system("be brief")
    begun.say("user", text_block(""))
    with pytest.raises(UntranslatableError, match="asks nothing"):
        begun.question(stream=False)


def test_what_one_side_says_twice_is_one_turn() -> None:
    begun = draft()
    begun.say("user", text_block("again"))
    begun.say("assistant", text_block("hi"))
    roles = [
        (turn["role"], len(turn["content"]))
        for turn in begun.question(stream=True).body["messages"]
    ]
    assert roles == [("user", 2), ("assistant", 1)]


def test_system_texts_come_together_and_a_late_one_is_told() -> None:
    begun = Draft(TERMS)
    begun.system("one")
    begun.say("user", text_block("hello"))
    begun.system("two")
    question = begun.question(stream=False)
    assert question.body["system"] == "one\n\ntwo"
    assert question.untranslated == ("messages.system position",)


def test_results_of_tools_find_their_calls() -> None:
    begun = draft()
    calls = [
        begun.call(None, "add", {"a": 1}),
        begun.call("c9", "mul", '{"b":2}'),
        begun.call("", "add", ""),
    ]
    begun.say("assistant", calls)
    begun.tool_result("c9", None, text_block("six"))
    begun.tool_result(None, "add", text_block("two"))
    begun.tool_result(None, None, [])
    turns = begun.question(stream=False).body["messages"]
    assert [block["id"] for block in turns[1]["content"]] == ["call_1", "c9", "call_2"]
    assert [block["input"] for block in turns[1]["content"]] == [{"a": 1}, {"b": 2}, {}]
    assert [block["tool_use_id"] for block in turns[2]["content"]] == ["c9", "call_1", "c9"]
    assert "content" not in turns[2]["content"][2]


def test_a_result_that_answers_nothing_is_refused() -> None:
    with pytest.raises(UntranslatableError, match="no call of a tool"):
        draft().tool_result(None, "add", [])


@pytest.mark.parametrize("arguments", ["[1]", "{", 7, None])
def test_arguments_that_are_no_object_are_refused(arguments: object) -> None:
    with pytest.raises(UntranslatableError, match="not a JSON object"):
        draft().call("c", "add", arguments)


@pytest.mark.parametrize(
    ("value", "sent", "told"),
    [(0.5, 0.5, ()), (1.7, 1.0, ("t=1.7 (sent as 1)",)), (-1, 0, ("t=-1 (sent as 0)",))],
)
def test_numbers_out_of_range_are_cut_and_told(
    value: float, sent: float, told: tuple[str, ...]
) -> None:
    begun = draft()
    begun.number("temperature", value, "t", most=1.0)
    question = begun.question(stream=False)
    assert (question.body["temperature"], question.untranslated) == (sent, told)


@pytest.mark.parametrize("value", ["1", True, float("nan"), [1]])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(UntranslatableError, match="not a number"):
        draft().number("temperature", value, "temperature")


def test_texts_that_end_the_answer() -> None:
    begun = draft()
    begun.stop(["END", "\n"], "stop")
    question = begun.question(stream=False)
    assert question.body["stop_sequences"] == ["END"]
    assert question.untranslated == ("stop (white space)",)
    with pytest.raises(UntranslatableError):
        begun.stop([1], "stop")


def test_a_form_is_asked_for_by_a_tool_that_must_be_called() -> None:
    begun = draft()
    begun.want(SCHEMA)
    question = begun.question(stream=False)
    assert question.answers_by_tool
    assert question.body["tool_choice"] == {"type": "tool", "name": ANSWER_TOOL}
    assert question.body["tools"][0]["input_schema"] == SCHEMA


def test_a_form_beside_tools_leaves_the_choice_between_them() -> None:
    begun = draft()
    begun.tool("add", "adds", {"properties": {}})
    begun.one_call_at_once()
    begun.want(None)
    body = begun.question(stream=False).body
    assert [tool["name"] for tool in body["tools"]] == ["add", ANSWER_TOOL]
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}


def test_a_form_without_leave_to_call_tools_is_the_only_tool() -> None:
    begun = draft()
    begun.tool("add", None, None)
    begun.choose({"type": "none"})
    begun.one_call_at_once()
    begun.want(SCHEMA)
    body = begun.question(stream=False).body
    assert [tool["name"] for tool in body["tools"]] == [ANSWER_TOOL]
    assert body["tool_choice"] == {"type": "tool", "name": ANSWER_TOOL}


def test_a_form_beside_a_tool_that_must_be_called_is_that_tools() -> None:
    begun = draft()
    begun.tool("add", None, None)
    begun.choose({"type": "tool", "name": "add"})
    begun.want(SCHEMA)
    question = begun.question(stream=False)
    assert not question.answers_by_tool
    assert question.body["tool_choice"] == {"type": "tool", "name": "add"}


def test_a_form_is_asked_for_in_the_apis_own_words_where_it_has_them() -> None:
    begun = draft(Terms("claude-y", 100, has_schemas=True))
    begun.want(SCHEMA)
    question = begun.question(stream=False)
    assert question.body["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert not question.answers_by_tool


def test_a_tool_of_the_answers_own_name_is_refused() -> None:
    begun = draft()
    begun.tool(ANSWER_TOOL, None, None)
    begun.want(SCHEMA)
    with pytest.raises(UntranslatableError, match="answer"):
        begun.question(stream=False)


def test_thinking_takes_its_share_of_the_tokens_and_the_place_of_sampling() -> None:
    begun = draft(Terms("claude-y", 1500, thinking_tokens=9000))
    begun.think("think")
    begun.number("temperature", 0.2, "temperature")
    question = begun.question(stream=False)
    assert question.body["thinking"] == {"type": "enabled", "budget_tokens": 1499}
    assert "temperature" not in question.body
    assert question.untranslated == ("temperature (with thinking)",)


@pytest.mark.parametrize("terms", [Terms("m", 4096), Terms("m", 1000, thinking_tokens=4096)])
def test_who_cannot_think_is_not_asked_to(terms: Terms) -> None:
    begun = draft(terms)
    begun.think("think")
    question = begun.question(stream=False)
    assert ("thinking" in question.body, question.untranslated) == (False, ("think",))


def test_no_thinking_between_a_call_and_its_result() -> None:
    begun = draft()
    begun.say("assistant", [begun.call("c", "add", {})])
    begun.tool_result("c", None, [])
    begun.think("think")
    assert begun.question(stream=False).untranslated == ("think",)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n0000", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a00", "image/gif"),
        (b"RIFF0000WEBP", "image/webp"),
    ],
)
def test_pictures_are_told_by_what_they_begin_with(head: bytes, kind: str) -> None:
    data = base64.b64encode(head + bytes(90)).decode()
    assert picture(data)["source"] == {"type": "base64", "media_type": kind, "data": data}


@pytest.mark.parametrize("data", ["!!", base64.b64encode(b"no picture at all").decode()])
def test_what_is_no_picture_is_refused(data: str) -> None:
    with pytest.raises(UntranslatableError):
        picture(data)


def test_the_small_readers() -> None:
    assert objects(None, "x") == []
    values: tuple[object, ...] = ({}, [1], "x")
    for value in values:
        with pytest.raises(UntranslatableError):
            objects(value, "x")
    with pytest.raises(UntranslatableError):
        text_of("", "x")
    begun = draft()
    leave_out_rest(begun, {"a": 1, "b": None, "c": 3}, {"a"}, "options.")
    assert begun.question(stream=False).untranslated == ("options.c",)


def test_models_without_sampling_are_asked_without_it() -> None:
    begun = draft(Terms("m", 100, samples=False))
    begun.temperature(0.5, "temperature")
    begun.number("top_k", 3, "top_k")
    question = begun.question(stream=False)
    assert question.untranslated == ("temperature", "top_k")
    assert not question.body.keys() & {"temperature", "top_k"}


def test_a_hotter_api() -> None:
    begun = draft(Terms("m", 100, hottest=2.0))
    begun.temperature(1.5, "temperature")
    assert begun.question(stream=False).body["temperature"] == 1.5


def test_models_that_decide_themselves_how_long_they_think() -> None:
    begun = draft(Terms("m", 100, is_adaptive=True))
    begun.think("think")
    thinking = begun.question(stream=False).body["thinking"]
    assert thinking == {"type": "adaptive", "display": "summarized"}


def test_calls_stand_by_their_numbers_where_all_have_one() -> None:
    first, second = {"name": "a", "index": 1}, {"name": "b", "index": 0}
    assert in_their_order([first, second]) == [second, first]
    assert in_their_order([first, {"name": "c"}]) == [first, {"name": "c"}]
    assert in_their_order([first, second | {"index": True}])[0] is first
    held = [{"function": first}, {"function": second}]
    assert in_their_order(held, "function") == held[::-1]
    assert in_their_order([{"function": first}, {"function": 7}], "function")[0] == held[0]


def test_a_strict_tool_is_one_where_the_api_sees_to_it() -> None:
    for can in (True, False):
        draft = Draft(Terms("m", 1000, has_schemas=can))
        draft.say("user", [{"type": "text", "text": "hi"}])
        draft.tool("f", None, None)
        draft.strict_tool("tools.strict")
        question = draft.question(stream=False)
        assert question.body["tools"][0].get("strict", False) is can
        assert question.untranslated == (() if can else ("tools.strict",))


@pytest.mark.parametrize("effort", ["extreme", 7, [], {}])
def test_no_other_effort(effort: object) -> None:
    with pytest.raises(UntranslatableError, match="think is none of"):
        Draft(Terms("m", 1000)).think("think", effort)


def test_effort_is_a_share_of_the_tokens_or_a_word() -> None:
    for effort, tokens in (("low", 2000), ("medium", 4000), ("high", 8000), (True, 8000)):
        draft = Draft(Terms("m", 9000, thinking_tokens=8000))
        draft.say("user", [{"type": "text", "text": "hi"}])
        draft.think("think", effort)
        assert draft.question(stream=False).body["thinking"]["budget_tokens"] == tokens
    draft = Draft(Terms("m", 9000, is_adaptive=True))
    draft.say("user", [{"type": "text", "text": "hi"}])
    draft.think("think", "max")
    assert draft.question(stream=False).body["output_config"] == {"effort": "max"}
