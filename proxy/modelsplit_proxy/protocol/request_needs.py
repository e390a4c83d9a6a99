"""What a request needs of its model, read off its fields: tools, thinking, pictures, a gap to fill.

``fields`` are what an ordinary decoder makes of the body. That is enough: what is not seen
here is not asked for beforehand, and Ollama has the last word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.capabilities import Capability

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    RequestFields = Mapping[str, Any]

_LEVELS: Final = frozenset({"low", "medium", "high", "max"})
# Of OpenAI's efforts these do not ask for thinking.
_NO_EFFORT: Final = frozenset({"", "none"})
_PICTURES: Final = frozenset({"image_url", "input_image", "image"})


def of_generate(fields: RequestFields) -> Iterator[Capability]:
    yield Capability.COMPLETION
    if _is_text(fields.get("suffix")):
        yield Capability.INSERT
    if fields.get("images"):
        yield Capability.VISION
    yield from _thinking(fields)


def of_chat(fields: RequestFields) -> Iterator[Capability]:
    yield Capability.COMPLETION
    yield from _tools(fields)
    yield from _thinking(fields)
    if any(message.get("images") for message in _objects(fields.get("messages"))):
        yield Capability.VISION


def of_completions(fields: RequestFields) -> Iterator[Capability]:
    yield Capability.COMPLETION
    if _is_text(fields.get("suffix")):
        yield Capability.INSERT


def of_chat_completions(fields: RequestFields) -> Iterator[Capability]:
    yield Capability.COMPLETION
    yield from _tools(fields)
    yield from _effort(fields)
    if _shows_pictures(fields.get("messages")):
        yield Capability.VISION


def of_responses(fields: RequestFields) -> Iterator[Capability]:
    yield Capability.COMPLETION
    yield from _tools(fields)
    yield from _effort(fields)
    if _shows_pictures(fields.get("input")):
        yield Capability.VISION


def of_messages(fields: RequestFields) -> Iterator[Capability]:
    """Anthropic's. Thinking is no need: Ollama lets it go where a model has none."""
    yield Capability.COMPLETION
    yield from _tools(fields)
    if _shows_pictures(fields.get("messages")):
        yield Capability.VISION


def _tools(fields: RequestFields) -> Iterator[Capability]:
    if isinstance(fields.get("tools"), list) and fields["tools"]:
        yield Capability.TOOLS


def _thinking(fields: RequestFields) -> Iterator[Capability]:
    think = fields.get("think")
    if think is True or (isinstance(think, str) and think in _LEVELS):
        yield Capability.THINKING


def _effort(fields: RequestFields) -> Iterator[Capability]:
    reasoning = fields.get("reasoning")
    effort = fields.get("reasoning_effort")
    if isinstance(reasoning, dict):
        effort = reasoning.get("effort")
    if isinstance(effort, str) and effort not in _NO_EFFORT:
        yield Capability.THINKING


def _shows_pictures(messages: object) -> bool:
    parts = (part for message in _objects(messages) for part in _objects(message.get("content")))
    return any(part.get("type") in _PICTURES for part in parts)


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""
