"""One call as its caller means it, before any dialect: values, and the headers they become."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelsplit_client.purpose import Purpose

    Message = Mapping[str, Any]


class Role(StrEnum):
    """The roles of modelsplit's shipped policy; any other text is sent as it is."""

    PLANNER = "PLANNER"
    EXECUTOR = "EXECUTOR"
    HEAVY = "HEAVY"
    CLOUD = "CLOUD"
    CHAT = "CHAT"


class SchemaModel(Protocol):
    """A class that knows its JSON schema and reads itself from JSON, such as a pydantic model."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]: ...

    @classmethod
    def model_validate_json(cls, json_data: str, /) -> Self: ...


class CallOptions(TypedDict, total=False):
    """What every call may say besides its prompt, its role and its retry level.

    model: named instead of the role's own, for the first attempt; CHAT has none of its own.
    system: the system message. options: Ollama's (``temperature``, ``num_predict``, …). think:
    whether to think, or how much. extra: further keys of the request's body, in its dialect.
    headers: further ones of the request, such as ``traceparent``.

    purpose: why an EXECUTOR is asked, see ``needs_llm``; recorded, changes nothing. escalate: the
    condition under which EXECUTOR becomes HEAVY, or HEAVY becomes CLOUD. llm_context: which
    activity a HEAVY or CLOUD call counts under. fallback: False is one attempt only. max_wait:
    seconds in line, timeout: seconds of each attempt; both can only shorten what the role has.
    request_id, job_id: kept in the record; the first is told back.

    wait_if_busy: seconds. A call that is turned away with a ``Retry-After`` is made again after
    that time, as long as no try begins later than this after the first refusal. Else never.
    """

    model: str
    system: str
    options: Mapping[str, Any]
    think: bool | str
    extra: Mapping[str, Any]
    headers: Mapping[str, str]
    purpose: Purpose | str
    escalate: str
    llm_context: str
    fallback: bool
    max_wait: float
    timeout: float
    request_id: str
    job_id: str
    wait_if_busy: float


# Option -> its header; the value as it is.
_PLAIN: Final = (
    ("purpose", "X-LLM-Purpose"),
    ("escalate", "X-LLM-Escalate"),
    ("llm_context", "X-LLM-Context"),
    ("request_id", "X-Request-Id"),
    ("job_id", "X-LLM-Job-Id"),
)
_SECONDS: Final = (("max_wait", "X-LLM-Max-Wait-Ms"), ("timeout", "X-LLM-Timeout-Ms"))


@dataclass(frozen=True, slots=True)
class Call:
    """One call. ``messages`` is None for a prompt (``generate``), else a chat.

    Raises TypeError for an option that no call has.
    """

    role: str
    prompt: str = ""
    messages: Sequence[Message] | None = None
    retry_level: int = 0
    schema: type[SchemaModel] | Mapping[str, Any] | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    stream: bool = False
    options: CallOptions = field(default_factory=CallOptions)

    def __post_init__(self) -> None:
        for name in self.options.keys() - CallOptions.__optional_keys__:
            known = ", ".join(sorted(CallOptions.__optional_keys__))
            raise TypeError(
                f"a call has no argument {name!r}. It has {known}; what is Ollama's goes into"
                " options={…}, what is the body's into extra={…}"
            )

    @property
    def system(self) -> str:
        return self.options.get("system", "")

    @property
    def json_schema(self) -> Mapping[str, Any] | None:
        """The schema as JSON says it."""
        return self.schema.model_json_schema() if isinstance(self.schema, type) else self.schema


def with_system(call: Call, messages: Sequence[Message]) -> list[Message]:
    """``messages``, behind the call's system message where it has one."""
    if not call.system:
        return list(messages)
    return [{"role": "system", "content": call.system}, *messages]


def headers(call: Call) -> dict[str, str]:
    """The request headers that say what the call asked for.

    Raises ValueError for no number, and where nobody says which model is meant.
    """
    options = call.options
    if call.role.upper() in _OF_NO_MODEL and not _is_routed(call):
        raise ValueError(
            f"{call.role or 'a call without a role'} has no model of its own: name one, as in"
            ' model="qwen3:4b", or a role that has, such as PLANNER'
        )
    built = {"X-LLM-Telemetry": "body"}
    if call.role:
        built["X-LLM-Role"] = call.role
    if call.retry_level:
        built["X-LLM-Retry-Level"] = str(call.retry_level)
    if options.get("fallback") is False:
        built["X-LLM-No-Fallback"] = "1"
    for option, name in _PLAIN:
        if value := options.get(option):
            built[name] = str(value)
    for option, name in _SECONDS:
        seconds = options.get(option)
        if isinstance(seconds, int | float):
            built[name] = str(round(seconds * 1000))
    return built | dict(options.get("headers", {}))


# Roles whose calls go to the model that they name; the empty one is what the name makes it.
_OF_NO_MODEL: Final = frozenset({"", Role.CHAT})


def _is_routed(call: Call) -> bool:
    """Whether it names a model, or says its role with a header of its own."""
    options = call.options
    names = {name.lower() for name in options.get("headers", {})}
    named = options.get("model") or options.get("extra", {}).get("model")
    return bool(named) or "x-llm-role" in names
