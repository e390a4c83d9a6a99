"""A request on its way to a provider: what it asks, in the form of the Messages API.

That form is what requests of every dialect are brought into, because it can say nearly all
that the others can. What it cannot say is named, or refused where leaving it out would change
what is asked; nothing is dropped silently. Values in, values out: no I/O, no clock.
"""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from modelsplit_policy.failures import said_back

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The tool whose arguments are the answer, where a form is wanted that the API has no word for.
ANSWER_TOOL: Final = "answer"
_ANSWER_IS: Final = "Give your whole answer as the arguments of this tool."
_ANY_OBJECT: Final = {"type": "object", "additionalProperties": True}
# The API's least.
_THINKING_MIN: Final = 1024
# What each kind of picture begins with.
_PICTURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_HEAD_CHARS: Final = 64


class UntranslatableError(Exception):
    """The request asks for what the provider's API cannot say; the text is a sentence."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a model of a provider takes.

    ``model``: its name there. ``max_tokens``: what bounds an answer whose client names no
    bound. ``thinking_tokens``: what it may think with; 0: it cannot. ``is_adaptive``: it thinks,
    and decides itself for how long. ``has_schemas``: its API takes the schema of an answer.
    ``samples``: it takes temperature and the like; ``hottest``: the highest temperature.
    """

    model: str
    max_tokens: int
    thinking_tokens: int = 0
    has_schemas: bool = False
    is_adaptive: bool = False
    samples: bool = True
    hottest: float = 1.0


class Question(NamedTuple):
    """What goes to the provider. ``body``: a request of the Messages API.

    ``untranslated``: fields of the client's that are not in it. ``answers_by_tool``: the answer
    comes as the arguments of ``ANSWER_TOOL``.
    """

    body: dict[str, Any]
    untranslated: tuple[str, ...] = ()
    answers_by_tool: bool = False


class Draft:
    """A request being brought into the form of the Messages API."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._system: list[str] = []
        self._turns: list[dict[str, Any]] = []
        self._tools: list[dict[str, Any]] = []
        self._choice: dict[str, Any] | None = None
        self._settings: dict[str, Any] = {}
        self._untranslated: dict[str, None] = {}
        # Calls of tools that no result has answered yet: id and name.
        self._open_calls: list[tuple[str, str]] = []
        self._calls = 0
        self._schema: dict[str, Any] | None = None
        self._thinks = False

    @property
    def max_tokens(self) -> int:
        """What bounds the answer."""
        return self._terms.max_tokens

    def leave_out(self, name: str) -> None:
        """A field of the client's is not in the request."""
        self._untranslated[name] = None

    # What is said.

    def system(self, text: str) -> None:
        """The API has one place for it, before everything else."""
        if text and self._turns:
            self.leave_out("messages.system position")
        if text:
            self._system.append(text)

    def say(self, role: str, blocks: list[dict[str, Any]]) -> None:
        """Add to what ``user`` or ``assistant`` says: the API wants them in turns."""
        if not blocks:
            return
        if self._turns and self._turns[-1]["role"] == role:
            self._turns[-1]["content"] += blocks
        else:
            self._turns.append({"role": role, "content": blocks})

    def call(self, given_id: object, name: object, arguments: object) -> dict[str, Any]:
        """A block of the assistant's that calls a tool."""
        name = text_of(name, "the name of a tool call")
        call_id = given_id if isinstance(given_id, str) and given_id else self._next_id()
        self._open_calls.append((call_id, name))
        return {"type": "tool_use", "id": call_id, "name": name, "input": _arguments(arguments)}

    def tool_result(self, given_id: object, name: object, blocks: list[dict[str, Any]]) -> None:
        """What a tool gave. Without an id, to the first open call of that name, or of any."""
        call_id = self._call_of(given_id, name)
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": call_id}
        self.say("user", [block | ({"content": blocks} if blocks else {})])

    def _next_id(self) -> str:
        self._calls += 1
        return f"call_{self._calls}"

    def _call_of(self, given_id: object, name: object) -> str:
        if isinstance(given_id, str) and given_id:
            return given_id
        for call_id, called in self._open_calls:
            if name in (None, "", called):
                self._open_calls.remove((call_id, called))
                return call_id
        raise UntranslatableError("a tool's result has no call of a tool before it that it answers")

    # How it is to be answered.

    def set(self, name: str, value: object) -> None:
        self._settings[name] = value

    def number(self, name: str, value: object, field: str, *, most: float = math.inf) -> None:
        """A setting that is a number from 0 to ``most``; one outside is cut to that, visibly."""
        if value is None:
            return
        if not self._terms.samples:
            self.leave_out(field)
            return
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124
            raise UntranslatableError(f"{field} is not a number")
        cut = min(max(value, 0), most)
        if cut != value:
            self.leave_out(f"{field}={value:g} (sent as {cut:g})")
        self._settings[name] = cut

    def temperature(self, value: object, field: str) -> None:
        """From 0 to what the API takes."""
        self.number("temperature", value, field, most=self._terms.hottest)

    def stop(self, value: object, field: str) -> None:
        """Texts that end the answer. The API takes none that is only white space."""
        texts = [value] if isinstance(value, str) else value
        if texts is None:
            return
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise UntranslatableError(f"{field} is neither a text nor a list of texts")
        kept = [text for text in texts if text.strip()]
        if len(kept) < len(texts):
            self.leave_out(f"{field} (white space)")
        if kept:
            self._settings["stop_sequences"] = kept

    def tool(self, name: object, description: object, schema: object) -> None:
        if schema is not None and not isinstance(schema, dict):
            raise UntranslatableError("the parameters of a tool are not an object")
        tool: dict[str, Any] = {"name": text_of(name, "the name of a tool")}
        if isinstance(description, str) and description:
            tool["description"] = description
        # The API wants the type said.
        self._tools.append(tool | {"input_schema": {"type": "object"} | (schema or {})})

    def choose(self, choice: dict[str, Any]) -> None:
        """Which tools may be called: the API's ``tool_choice``."""
        self._choice = choice

    def one_call_at_once(self) -> None:
        """No two tools may be called together."""
        if (self._choice or {}).get("type") != "none":
            self._choice = (self._choice or {}) | {"disable_parallel_tool_use": True}

    def want(self, schema: dict[str, Any] | None) -> None:
        """The answer is to be JSON; of that schema, if there is one."""
        self._schema = _ANY_OBJECT if schema is None else schema

    def think(self) -> None:
        self._thinks = True

    # The whole.

    def question(self, *, stream: bool) -> Question:
        if not self._turns:
            raise UntranslatableError("the request asks nothing: it has no message of a user")
        body: dict[str, Any] = {"model": self._terms.model, "max_tokens": self._terms.max_tokens}
        if self._system:
            body["system"] = "\n\n".join(self._system)
        body["messages"] = self._turns
        by_tool = self._put_schema(body)
        if self._tools:
            body["tools"] = self._tools
        if self._tools and self._choice:
            body["tool_choice"] = {"type": "auto"} | self._choice
        self._put_thinking(body, by_tool=by_tool)
        body |= self._settings
        if stream:
            body["stream"] = True
        return Question(body, tuple(self._untranslated), by_tool)

    def _put_schema(self, body: dict[str, Any]) -> bool:
        """Ask for the form of the answer. True: it comes as the arguments of a tool."""
        if self._schema is None:
            return False
        if self._terms.has_schemas and self._schema is not _ANY_OBJECT:
            body["output_config"] = {"format": {"type": "json_schema", "schema": self._schema}}
            return False
        choice = self._choice or {}
        if choice.get("type") == "tool":
            return False  # which says already what the answer is to be
        if choice.get("type") == "none":
            self._tools, choice = [], {}
        if any(tool["name"] == ANSWER_TOOL for tool in self._tools):
            raise UntranslatableError(
                f'a tool is called "{ANSWER_TOOL}", which is how the form of an answer is asked for'
            )
        forced = {"type": "any"} if self._tools else {"type": "tool", "name": ANSWER_TOOL}
        self.tool(ANSWER_TOOL, _ANSWER_IS, self._schema)
        self._choice = choice | forced
        return True

    def _put_thinking(self, body: dict[str, Any], *, by_tool: bool) -> None:
        if not self._thinks:
            return
        budget = min(self._terms.thinking_tokens, self._terms.max_tokens - 1)
        forced = by_tool or (self._choice or {}).get("type") in {"any", "tool"}
        # Between a tool's call and its result the API wants thoughts back that clients do not keep.
        amid_calls = any(block["type"] == "tool_result" for block in self._turns[-1]["content"])
        can = self._terms.is_adaptive or budget >= _THINKING_MIN
        if not can or forced or amid_calls:
            self.leave_out("think")
            return
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
        if self._terms.is_adaptive:
            body["thinking"] = {"type": "adaptive", "display": "summarized"}
        for name in ("temperature", "top_k", "top_p"):  # not to be had together
            if self._settings.pop(name, None) is not None:
                self.leave_out(f"{name} (with thinking)")


# What requests are made of.


def text_block(text: str) -> list[dict[str, Any]]:
    """A text as the API takes it: none that is empty."""
    return [{"type": "text", "text": text}] if text else []


def picture(data: str) -> dict[str, Any]:
    """A picture in base64, of a kind the API knows."""
    try:
        head = base64.b64decode(data[:_HEAD_CHARS], validate=True)
    except (binascii.Error, ValueError):
        raise UntranslatableError("an image is not base64") from None
    kind = next((kind for mark, kind in _PICTURES if head.startswith(mark)), None)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        raise UntranslatableError("an image is neither PNG, JPEG, GIF nor WebP")
    source = {"type": "base64", "media_type": kind, "data": data}
    return {"type": "image", "source": source}


def text_of(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise UntranslatableError(f"{what} is not a text")
    return value


def objects(value: object, what: str) -> list[dict[str, Any]]:
    """A list of objects; null is an empty one."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UntranslatableError(f"{what} is not a list of objects")
    return value


def leave_out_rest(draft: Draft, given: Mapping[str, Any], known: Iterable[str], at: str) -> None:
    """Name the fields that nobody has read; null says nothing."""
    for name in sorted(given.keys() - set(known)):
        if given[name] is not None:
            draft.leave_out(at + said_back(name))


def _arguments(value: object) -> dict[str, Any]:
    """The arguments of a call, as an object or as JSON text of one."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value or "{}")
        except orjson.JSONDecodeError:
            value = None
    if isinstance(value, dict):
        return value
    raise UntranslatableError("the arguments of a tool call are not a JSON object")
