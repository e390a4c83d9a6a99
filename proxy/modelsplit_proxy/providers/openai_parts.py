"""What requests of OpenAI's APIs have in common, in the form of the Messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.providers.question import (
    Draft,
    UntranslatableError,
    document,
    leave_out_but,
    leave_out_rest,
    objects,
    picture,
    text_block,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TEXT: Final = frozenset({"type", "text"})
_FILE: Final = frozenset({"file_data", "file_url", "file_id", "filename"})
# Efforts that ask for no thoughts.
LITTLE_THOUGHT: Final = (None, "none", "minimal")


def refuse_but(fields: Mapping[str, Any], usual: Mapping[str, tuple[object, ...]]) -> None:
    """Refuse what would be missing from the answer.

    ``usual``: such fields, each with the values that ask for nothing; null does neither.
    """
    for name, values in usual.items():
        value = fields.get(name)
        # 0 is no False here: it asks for something.
        asks = not any(type(value) is type(one) and value == one for one in values)
        if value is not None and asks:
            raise UntranslatableError(f"{name} has no counterpart at the provider")


def parts(draft: Draft, content: object, at: str) -> list[dict[str, Any]]:
    """The blocks of a text, or of a list of parts; ``at``: the name of the list."""
    if content is None or isinstance(content, str):
        return text_block(content or "")
    blocks: list[dict[str, Any]] = []
    for part in objects(content, "the content of a message"):
        blocks += _part(draft, part, at)
    return blocks


def _part(draft: Draft, part: Mapping[str, Any], at: str) -> list[dict[str, Any]]:
    kind = part.get("type")
    match kind:
        case "text" | "input_text" | "output_text":
            leave_out_rest(draft, part, _TEXT, f"{at}.")
            return text_block(_text(part.get("text")))
        case "refusal":
            leave_out_rest(draft, part, {"type", "refusal"}, f"{at}.")
            return text_block(_text(part.get("refusal")))
        case "image_url":
            value = part.get("image_url")
            about = value if isinstance(value, dict) else {"url": value}
            leave_out_but(draft, about.get("detail"), ("auto",), f"{at}.image_url.detail")
            leave_out_rest(draft, about, {"url", "detail"}, f"{at}.image_url.")
            leave_out_rest(draft, part, {"type", "image_url"}, f"{at}.")
            return [image(about.get("url"))]
        case "input_image":
            leave_out_but(draft, part.get("detail"), ("auto",), f"{at}.detail")
            _no_store(part)
            leave_out_rest(draft, part, {"type", "image_url", "detail", "file_id"}, f"{at}.")
            return [image(part.get("image_url"))]
        case "file":
            value = part.get("file")
            file = value if isinstance(value, dict) else {}
            leave_out_rest(draft, file, _FILE, f"{at}.file.")
            leave_out_rest(draft, part, {"type", "file"}, f"{at}.")
            return [_file(file)]
        case "input_file":
            leave_out_but(draft, part.get("detail"), ("auto",), f"{at}.detail")
            leave_out_rest(draft, part, _FILE | {"type", "detail"}, f"{at}.")
            return [_file(part)]
        case _:
            raise UntranslatableError("a part of a message is neither text, image nor file")


def image(value: object) -> dict[str, Any]:
    """A data URL, or an address that the provider fetches itself."""
    url = text_of(value, "the URL of an image")
    if url.startswith("data:"):
        head, _, data = url.partition(",")
        if not head.endswith(";base64"):
            raise UntranslatableError("an image is not base64")
        return picture(data)
    if not url.startswith(("https://", "http://")):
        raise UntranslatableError("the URL of an image is neither data nor http")
    return {"type": "image", "source": {"type": "url", "url": url}}


def _file(file: Mapping[str, Any]) -> dict[str, Any]:
    _no_store(file)
    given = file.get("file_data") or file.get("file_url")
    return document(text_of(given, "the data of a file"), file.get("filename"))


def _no_store(part: Mapping[str, Any]) -> None:
    if part.get("file_id"):
        raise UntranslatableError("file_id names a file that lies elsewhere; send its data")


def joined(draft: Draft, content: object, at: str) -> str:
    """A text, or the texts of parts, as one; UntranslatableError for other parts."""
    blocks = parts(draft, content, at)
    return "\n\n".join(text_of(block.get("text"), "a system text") for block in blocks)


def function_tool(draft: Draft, function: object, at: str) -> None:
    """A tool that is a function; ``at``: where its fields stand."""
    if not isinstance(function, dict):
        raise UntranslatableError("a tool is not a function")
    name, description = function.get("name"), function.get("description")
    draft.tool(name, description, function.get("parameters"))
    if function.get("strict") is True:
        draft.strict_tool(f"{at}.strict")
    known = {"type", "name", "description", "parameters", "strict"}
    leave_out_rest(draft, function, known, f"{at}.")


def choose(draft: Draft, choice: object) -> None:
    """Which tools may be called; of a function, its name stands in either API's place."""
    match choice:
        case None | "auto":
            pass
        case "none":
            draft.choose({"type": "none"})
        case "required":
            draft.choose({"type": "any"})
        case {"type": "function", "function": {"name": str(name)}} | {
            "type": "function",
            "name": str(name),
        }:
            draft.choose({"type": "tool", "name": name})
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(tools)},
        } | {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(tools)}:
            draft.only(_names(tools))
            if mode == "required":
                draft.choose({"type": "any"})
        case _:
            raise UntranslatableError("tool_choice is none of auto, none, required, a function")


def _names(tools: Iterable[object]) -> Iterable[str]:
    for tool in tools:
        match tool:
            case {"function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
                yield name
            case _:
                raise UntranslatableError("tool_choice allows a tool that is not a function")


def want_form(draft: Draft, wanted: object, named: str, schema_holder: str = "") -> None:
    """The form of the answer, in field ``named``; its schema is in ``schema_holder`` of it."""
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return
    if kind == "json_object":
        draft.want(None)
        return
    given = None
    if isinstance(wanted, dict) and kind == "json_schema":
        given = wanted.get(schema_holder) if schema_holder else wanted
    at = f"{named}.{schema_holder}" if schema_holder else named
    schema = given.get("schema") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(schema, dict):
        raise UntranslatableError(f"{named} is none of text, json_object, json_schema")
    draft.want(
        schema,
        is_strict=given.get("strict") is True,
        title=given.get("name"),
        description=given.get("description"),
    )
    if not draft.keeps_schemas:
        leave_out_but(draft, given.get("strict"), (False,), f"{at}.strict")
    known = {"type", "name", "description", "schema", "strict"}
    leave_out_rest(draft, given, known, f"{at}.")


def sample(draft: Draft, fields: Mapping[str, Any]) -> None:
    """What OpenAI's APIs call alike of how an answer is drawn."""
    draft.temperature(fields.get("temperature"), "temperature")
    draft.number("top_p", fields.get("top_p"), "top_p", most=1.0)
    for name in ("seed", "presence_penalty", "frequency_penalty"):
        draft.put_aside(name, fields.get(name), name)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise UntranslatableError("the text of a part is not a text")
    return value
