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
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from modelsplit_policy.failures import said_back
from modelsplit_policy.quantity import in_digits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The tool whose arguments are the answer, where a form is wanted that the API has no word for.
ANSWER_TOOL: Final = "answer"
_ANSWER_IS: Final = "Give your whole answer as the arguments of this tool."
_ANY_OBJECT: Final = {"type": "object", "additionalProperties": True}
# The API's least.
_THINKING_MIN: Final = 1024
# What of a model's thinking_tokens each effort is; any other is all of them.
_SHARES: Final = MappingProxyType({"low": 0.25, "medium": 0.5})
EFFORTS: Final = frozenset({"low", "medium", "high", "xhigh", "max"})
# Blocks of a model's thoughts.
THOUGHTS: Final = frozenset({"thinking", "redacted_thinking"})
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
    comes as the arguments of ``ANSWER_TOOL``. ``aside``: of what is not in it, that which
    chat completions have a word for: the word, and the client's field and value. ``is_strict``:
    the answer must fit its schema.
    """

    body: dict[str, Any]
    untranslated: tuple[str, ...] = ()
    answers_by_tool: bool = False
    aside: Mapping[str, tuple[str, Any]] = MappingProxyType({})
    is_strict: bool = False


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
        self._is_strict = False
        self._think_field = ""
        self._effort: str | None = None
        self._thoughts_field = ""
        self._aside: dict[str, tuple[str, Any]] = {}

    @property
    def max_tokens(self) -> int:
        """What bounds the answer."""
        return self._terms.max_tokens

    @property
    def keeps_schemas(self) -> bool:
        """Whether the API sees to it that an answer fits its schema."""
        return self._terms.has_schemas

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

    def thought(self, block: dict[str, Any], field: str) -> None:
        """What the assistant thought, as the API itself gave it; only if it is to think again."""
        self._thoughts_field = field
        self.say("assistant", [block])

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
        # The API wants them before whatever else the user says in that turn.
        self._turns[-1]["content"].sort(key=lambda block: block["type"] != "tool_result")

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
            self.leave_out(f"{field}={in_digits(value)} (sent as {in_digits(cut)})")
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

    def strict_tool(self, field: str) -> None:
        """The arguments of the tool that was added last must fit its schema."""
        if self._terms.has_schemas:
            self._tools[-1]["strict"] = True
        else:
            self.leave_out(field)

    def choose(self, choice: dict[str, Any]) -> None:
        """Which tools may be called: the API's ``tool_choice``."""
        self._choice = choice

    def one_call_at_once(self) -> None:
        """No two tools may be called together."""
        if (self._choice or {}).get("type") != "none":
            self._choice = (self._choice or {}) | {"disable_parallel_tool_use": True}

    def only(self, names: Iterable[str]) -> None:
        """Of the tools, those that may be called."""
        kept = set(names)
        self._tools = [tool for tool in self._tools if tool["name"] in kept]
        if len(self._tools) < len(kept):
            raise UntranslatableError("tool_choice allows a tool that the request does not have")

    def want(
        self, schema: dict[str, Any] | None, *, is_strict: bool = False, **about: object
    ) -> None:
        """The answer is to be JSON; of that schema, if there is one.

        ``is_strict``: it must fit. ``about``: its ``title`` and ``description``, where it has
        none itself.
        """
        self._is_strict = is_strict
        texts = {key: text for key, text in about.items() if isinstance(text, str) and text}
        self._schema = _ANY_OBJECT if schema is None else texts | schema

    def think(self, field: str, effort: object = True) -> None:
        """Let the model think before it answers. ``effort``: how much; True: as it likes."""
        self._think_field = field
        if isinstance(effort, str) and effort in EFFORTS:
            self._effort = effort
        elif effort is not True:
            raise UntranslatableError(f"{field} is none of {', '.join(sorted(EFFORTS))}")

    def put_aside(self, name: str, value: object, field: str) -> None:
        """What the Messages API has no word for, and chat completions call ``name``."""
        if value is not None and value != {}:
            self.leave_out(field)
            self._aside[name] = (field, value)

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
        if self._thoughts_field and "thinking" not in body:
            self.leave_out(self._thoughts_field)
            body["messages"] = _without_thoughts(self._turns)
        body |= self._settings
        if stream:
            body["stream"] = True
        left_out = tuple(self._untranslated)
        return Question(body, left_out, by_tool, self._aside, self._is_strict)

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
        if not self._think_field:
            return
        share = _SHARES.get(self._effort or "", 1.0)
        wanted = max(_THINKING_MIN, int(self._terms.thinking_tokens * share))
        budget = min(wanted, self._terms.thinking_tokens, self._terms.max_tokens - 1)
        forced = by_tool or (self._choice or {}).get("type") in {"any", "tool"}
        can = self._terms.is_adaptive or budget >= _THINKING_MIN
        if not can or forced or self._is_amid_calls():
            self.leave_out(self._think_field)
            return
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
        if self._terms.is_adaptive:
            body["thinking"] = {"type": "adaptive", "display": "summarized"}
            if self._effort is not None:
                body["output_config"] = body.get("output_config", {}) | {"effort": self._effort}
        for name in ("temperature", "top_k", "top_p"):  # not to be had together
            if self._settings.pop(name, None) is not None:
                self.leave_out(f"{name} (with thinking)")

    def _is_amid_calls(self) -> bool:
        """Whether the answer goes on from a tool's result, without the thoughts before its call.

        The API wants them back then; most clients do not keep them as it gave them.
        """
        if all(block["type"] != "tool_result" for block in self._turns[-1]["content"]):
            return False
        before = self._turns[-2]["content"] if len(self._turns) > 1 else []
        return not before or before[0]["type"] not in THOUGHTS


def _without_thoughts(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [
        turn | {"content": [block for block in turn["content"] if block["type"] not in THOUGHTS]}
        for turn in turns
    ]
    return [turn for turn in kept if turn["content"]]


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


def document(data: str, title: object) -> dict[str, Any]:
    """A file as data of a URL, or as an address that the provider fetches itself."""
    titled = {"title": title} if isinstance(title, str) and title else {}
    if data.startswith(("https://", "http://")):
        return {"type": "document", "source": {"type": "url", "url": data}} | titled
    head, _, coded = data.partition(",") if data.startswith("data:") else ("", "", data)
    try:
        raw = base64.b64decode(coded, validate=True)
    except (binascii.Error, ValueError):
        raise UntranslatableError("a file is not base64") from None
    if raw.startswith(b"%PDF-"):
        source = {"type": "base64", "media_type": "application/pdf", "data": coded}
        return {"type": "document", "source": source} | titled
    if not head.startswith("data:text/"):
        raise UntranslatableError("a file is neither PDF nor text")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise UntranslatableError("a file of text is not UTF-8") from None
    content = [{"type": "text", "text": text}]
    return {"type": "document", "source": {"type": "content", "content": content}} | titled


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
    """Name the fields that nobody has read; null and an empty list or object say nothing."""
    for name in sorted(given.keys() - set(known)):
        if given[name] is not None and given[name] != [] and given[name] != {}:
            draft.leave_out(at + said_back(name))


def in_their_order(calls: list[dict[str, Any]], holder: str = "") -> list[dict[str, Any]]:
    """Calls by their ``index``, in ``holder`` of each, where each has one; else as they stand."""
    holders = [call.get(holder) if holder else call for call in calls]
    numbers = [
        number
        for value in holders
        if isinstance(value, dict) and type(number := value.get("index")) is int
    ]
    if len(numbers) < len(calls):
        return calls
    return [calls[at] for at in sorted(range(len(calls)), key=numbers.__getitem__)]


def leave_out_but(draft: Draft, value: object, usual: Iterable[object], field: str) -> None:
    """Name a field whose value is none of those that say what is done anyway; nor is null."""
    if value is not None and value not in tuple(usual):
        draft.leave_out(field)


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
