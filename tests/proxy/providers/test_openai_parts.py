"""What requests of OpenAI's APIs have in common."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from modelsplit_proxy.providers import openai_parts
from modelsplit_proxy.providers.question import Draft, Terms, UntranslatableError

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60)).decode()
PDF = base64.b64encode(b"%PDF-1.7 x").decode()
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
NAMED = {"type": "json_schema", "name": "point", "description": "where", "schema": SCHEMA}


def draft(**terms: Any) -> Draft:
    made = Draft(Terms("m", 1000, **terms))
    made.say("user", [{"type": "text", "text": "hi"}])
    return made


def left_out(made: Draft) -> tuple[str, ...]:
    return made.question(stream=False).untranslated


@pytest.mark.parametrize(
    ("part", "block"),
    [
        ({"type": "text", "text": "a"}, {"type": "text", "text": "a"}),
        ({"type": "input_text", "text": "a"}, {"type": "text", "text": "a"}),
        ({"type": "output_text", "text": "a", "annotations": []}, {"type": "text", "text": "a"}),
        ({"type": "refusal", "refusal": "no"}, {"type": "text", "text": "no"}),
        (
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": PNG},
            },
        ),
        (
            {"type": "input_image", "detail": "auto", "image_url": "https://example.com/a.png"},
            {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        ),
        (
            {
                "type": "file",
                "file": {"filename": "a", "file_data": f"data:application/pdf;base64,{PDF}"},
            },
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                "title": "a",
            },
        ),
        (
            {"type": "input_file", "file_url": "https://example.com/a.pdf"},
            {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
        ),
        (
            {"type": "input_file", "file_data": "data:text/plain;base64,aGk="},
            {
                "type": "document",
                "source": {"type": "content", "content": [{"type": "text", "text": "hi"}]},
            },
        ),
    ],
)
def test_parts_of_a_message(part: dict[str, Any], block: dict[str, Any]) -> None:
    made = draft()
    assert openai_parts.parts(made, [part], "content") == [block]
    assert left_out(made) == ()


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"type": "image_url", "image_url": {"url": "https://x", "detail": "low"}}, "detail"),
        ({"type": "input_image", "image_url": "https://x", "detail": "high"}, "detail"),
        ({"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}, "prompt"),
        ({"type": "input_text", "text": "a", "mood": 7}, "mood"),
    ],
)
def test_what_a_part_says_besides_is_named(part: dict[str, Any], field: str) -> None:
    made = draft()
    openai_parts.parts(made, [part], "content")
    [name] = left_out(made)
    assert name.startswith("content.")
    assert field in name


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio"},
        {"type": "text", "text": 7},
        {"type": "input_image", "file_id": "f"},
        {"type": "input_image"},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "file", "file": "f"},
        {"type": "input_file", "file_data": "data:text/plain;base64,////"},
        {"type": "input_file", "file_data": "data:application/zip;base64,aGk="},
        {"type": "input_file", "file_data": "#"},
        {"type": "image_url", "image_url": {"url": "data:image/png,x"}},
        {},
    ],
)
def test_what_the_provider_cannot_read_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(UntranslatableError):
        openai_parts.parts(draft(), [part], "content")


@pytest.mark.parametrize("terms", [{}, {"has_schemas": True}])
def test_a_form_has_its_name_and_what_it_is_for(terms: dict[str, Any]) -> None:
    made = draft(**terms)
    openai_parts.want_form(made, NAMED, "text.format")
    body = made.question(stream=False).body
    if terms:
        schema = body["output_config"]["format"]["schema"]
    else:
        schema = body["tools"][0]["input_schema"]
    assert schema == {"title": "point", "description": "where"} | SCHEMA


def test_a_strict_form_is_one_only_where_the_api_sees_to_it() -> None:
    for terms, names in (({}, ("text.format.strict",)), ({"has_schemas": True}, ())):
        made = draft(**terms)
        openai_parts.want_form(made, NAMED | {"strict": True}, "text.format")
        assert left_out(made) == names


@pytest.mark.parametrize(
    "form", ["json", {"type": "grammar"}, {"type": "json_schema"}, {"type": "json_schema", "x": 1}]
)
def test_no_other_form(form: object) -> None:
    with pytest.raises(UntranslatableError, match="is none of text, json_object"):
        openai_parts.want_form(draft(), form, "text.format")


@pytest.mark.parametrize("nested", [True, False])
def test_only_some_tools_may_be_called(nested: bool) -> None:
    made = draft()
    for name in ("f", "g"):
        openai_parts.function_tool(made, {"name": name}, "tools")
    tools: list[Any] = [{"type": "function", "name": "g"}]
    allowed: dict[str, Any] = {"mode": "required", "tools": tools}
    if nested:
        tools = [{"type": "function", "function": {"name": "g"}}]
        allowed = {"allowed_tools": {"mode": "required", "tools": tools}}
    openai_parts.choose(made, {"type": "allowed_tools"} | allowed)
    body = made.question(stream=False).body
    assert [tool["name"] for tool in body["tools"]] == ["g"]
    assert body["tool_choice"] == {"type": "any"}


@pytest.mark.parametrize("tools", [[{"type": "function", "name": "h"}], [{"type": "mcp"}], [7]])
def test_tools_that_are_not_there_cannot_be_allowed(tools: list[Any]) -> None:
    with pytest.raises(UntranslatableError, match="allows a tool"):
        openai_parts.choose(draft(), {"type": "allowed_tools", "mode": "auto", "tools": tools})


def test_what_would_be_missing_is_refused_and_nothing_asked_for_is_nothing() -> None:
    usual = {"n": (1,), "logprobs": (False,)}
    openai_parts.refuse_but({"n": 1, "logprobs": False, "other": 7}, usual)
    openai_parts.refuse_but({"n": None}, usual)
    for fields in ({"n": 2}, {"logprobs": True}, {"logprobs": 5}, {"logprobs": 0}):
        with pytest.raises(UntranslatableError, match="no counterpart"):
            openai_parts.refuse_but(fields, usual)
