"""The policy file as values: what an operator may write, and everything wrong with it at once.

`parse` is the only door. It works in three steps, so that one typo never hides another fault:

1. Unknown keys are named, with the known key they resemble. A misspelt key whose meaning is
   plain is then read as the key it resembles, so its value is checked too and nothing is
   reported as missing only because it was misspelt.
2. Types and ranges, by pydantic: a number is a number (never ``"6"``, never ``true``).
3. The rules that span several keys, over every part that survived step 2.

Times are whole milliseconds in keys ending in ``_ms`` (the unit Ollama's users meet in the
response headers) and words such as ``"1h"`` in ``window``. Numbers come from the table of
roles in the README; docs/policy.md has one entry per key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from modelsplit_policy.facts import Action, Context, Provider, Role
from modelsplit_policy.model_names import canonical, read

# What a waiting client is promised (milliseconds): shorter, and a model that is only busy
# looks broken; longer, and the client's own timeout fires first. `allow_long_wait` lifts both.
WAIT_MS: Final = (5_000, 10_000)
LONG_WAIT_MS: Final = (1, 600_000)

# A day. Longer is a slip of the unit: nobody waits a day for one answer.
_DAY_MS: Final = 86_400_000
# Far above any machine; keeps every later sum and division inside ordinary integers.
_COUNT_MAX: Final = 1_000_000

_NAME: Final = r"^[A-Za-z0-9._:/-]{1,256}$"
_LABEL: Final = r"^[A-Za-z0-9._-]{1,64}$"
_WINDOW: Final = r"^[1-9][0-9]{0,5}[smhd]$"
# Written into requests as it stands here, and Go's durations know no days.
_KEEP_ALIVE: Final = r"^[1-9][0-9]{0,5}[smh]$"
_UNIT_SECONDS: Final = MappingProxyType({"s": 1, "m": 60, "h": 3_600, "d": 86_400})

_LATENCIES: Final = (
    "job_e2e_latency_ms",
    "planner_latency_ms",
    "llm_latency_ms",
    "tool_latency_ms",
    "llm_queue_wait_ms",
)
_RATES: Final = ("fallback_rate", "schema_error_rate", "executor_job_rate")
OBJECTIVES: Final = (*_LATENCIES, "event_loop_lag_p99", "timeouts", *_RATES)
"""Every name the `slo` object may hold, in the order reports show them."""

Condition = Literal["failure_analysis", "complex_output", "schema_failed", "operator"]
Sticky = Literal["job", "client", "request"]
Scalar = str | int | float | bool

K = TypeVar("K")
V = TypeVar("V")
M = TypeVar("M", bound=BaseModel)


def _scalar(value: object) -> Scalar:
    if isinstance(value, str | bool | int) or (
        isinstance(value, float) and abs(value) < float("inf")  # false for NaN as well
    ):
        return value
    raise PydanticCustomError("scalar_type", "must be a string, a number, true or false")


def _whole(value: object) -> object:
    # 1 == 1.0 == True in Python, so Literal[1] lets all three in.
    if type(value) is not int:
        raise PydanticCustomError("int_type", "must be a whole number")
    return value


def _frozen(value: Mapping[K, V]) -> Mapping[K, V]:
    return MappingProxyType(dict(value))


def _readable(name: str) -> str:
    if read(name) is None:
        raise PydanticCustomError("model_name", "cannot be read as the name of a model by Ollama")
    return name


# Pydantic's `frozen` stops at the attribute; the proxy carries it into the mapping.
_Frozen = (AfterValidator(_frozen), PlainSerializer(dict))

Milliseconds = Annotated[int, Field(strict=True, ge=1, le=_DAY_MS)]
Count = Annotated[int, Field(strict=True, ge=1, le=_COUNT_MAX)]
CountOrNone = Annotated[int, Field(strict=True, ge=0, le=_COUNT_MAX)]
Flag = Annotated[bool, Field(strict=True)]
Money = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Threshold = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
ModelName = Annotated[str, Field(strict=True, pattern=_NAME), AfterValidator(_readable)]
Label = Annotated[str, Field(strict=True, pattern=_LABEL)]
Window = Annotated[str, Field(strict=True, pattern=_WINDOW)]
KeepAlive = Annotated[str, Field(strict=True, pattern=_KEEP_ALIVE)]
OptionName = Annotated[str, Field(strict=True, min_length=1)]
OptionValue = Annotated[
    Scalar,
    PlainValidator(_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
Options = Annotated[Mapping[OptionName, OptionValue], *_Frozen]
Version = Annotated[Literal[1], BeforeValidator(_whole)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", title=None)


class GlobalPolicy(_Part):
    """The one cap over all local roles together."""

    max_concurrent: Count = Field(description="Local calls at the upstream at the same time.")
    parallel: Count | None = Field(
        default=None,
        description="Calls at once that are worth running on the host. Null: learned.",
    )
    forecast: Flag = Field(
        default=True, description="Refuse at once a call whose wait would exceed its cap."
    )


class RolePolicy(_Part):
    """One row of the table of roles."""

    primary: ModelName | None = Field(
        description="Model of attempt 1. Null only for CHAT, which serves what the client named."
    )
    fallback: ModelName | None = Field(
        default=None, description="Model of attempt 2, the last one. Null: no second attempt."
    )
    provider: Provider = Field(
        default=Provider.LOCAL,
        description="Who computes the answer: CLOUD for the role CLOUD, LOCAL for the others.",
    )
    timeout_ms: Milliseconds | None = Field(
        description="Milliseconds attempt 1 may take, loading excluded. Null: no limit of ours."
    )
    fallback_timeout_ms: Milliseconds | None = Field(
        default=None,
        validate_default=True,
        description="Milliseconds attempt 2 may take. Missing or null: the same as timeout_ms.",
    )
    max_concurrent: Count | None = Field(
        description="Calls of this role at the same time. Null: only the global cap applies."
    )
    reserved: CountOrNone = Field(
        default=0, description="Seats of the global cap that no other role may take."
    )
    lend_reserved: Flag = Field(
        default=False, description="Others may use idle reserved seats until the next release."
    )
    ageing_ms: CountOrNone = Field(
        default=4000,
        description="Milliseconds by which later calls of more urgent roles may go first.",
    )
    max_hold_ms: Milliseconds | None = Field(
        default=None,
        description="Milliseconds a call may be held back by usefulness alone. Null: its wait.",
    )
    max_wait_ms: Milliseconds = Field(
        description="Milliseconds a call may queue before it is refused: 5000 to 10000."
    )
    allow_long_wait: Flag = Field(
        default=False, description="Permits any max_wait_ms from 1 to 600000."
    )
    max_queue: CountOrNone = Field(
        description="Calls that may queue at the same time; the next is refused at once."
    )
    aliases: tuple[ModelName, ...] = Field(
        description="Model names that mean this role, in any spelling that Ollama takes."
    )
    claims: tuple[ModelName, ...] = Field(
        default=(), description="Real model names whose calls belong to this role."
    )
    context: Context = Field(description="Which activity the latency is counted under.")
    validate_output: Flag = Field(
        default=False,
        alias="validate",
        description="Check the answer against the request's format schema.",
    )
    on_schema_failure: Literal["error", "pass"] = Field(
        default="error",
        description="After the retry failed too: answer 502, or pass the answer on, marked.",
    )
    on_stream: Literal["hold", "observe"] = Field(
        default="observe",
        alias="validate_streams",
        description="Hold a validated stream back until it is valid, or pass it on and count.",
    )
    total_timeout_ms: Milliseconds | None = Field(
        default=None,
        description="Milliseconds for the whole call, waiting and both attempts. Null: no bound.",
    )
    early_headers_after_ms: Milliseconds | None = Field(
        default=None,
        description="Milliseconds after which a stream's head goes out early. Null: never.",
    )
    prefer_resident_fallback: Flag = Field(
        default=False,
        description="Start at the fallback if it is loaded and the primary is not.",
    )
    max_num_ctx: Count | None = Field(
        default=None, description="A larger num_ctx is cut to this. Null: as the client says."
    )
    max_keep_alive: KeepAlive | None = Field(
        default=None,
        description='A longer keep_alive, or one for ever, is cut to this: "5m", "1h".',
    )
    num_predict: Count | None = Field(
        default=None, description="Tokens at most, for calls that name no number or 0."
    )
    max_num_predict: Count | None = Field(
        default=None, description="A larger number of tokens, or no end (-1, -2), is cut to this."
    )

    @field_validator("fallback_timeout_ms")
    @classmethod
    def _as_for_the_primary(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is None and info.data.get("fallback") is not None:
            timeout: int | None = info.data.get("timeout_ms")
            return timeout
        return value


class PricePolicy(_Part):
    """What a model costs: by the token, as price lists print it, or by the hour, or both."""

    input: Money = Field(default=0.0, description="US dollars per million prompt tokens.")
    output: Money = Field(default=0.0, description="US dollars per million answer tokens.")
    usd_per_hour: Money = Field(
        default=0.0, description="US dollars per hour of computing, such as its electricity."
    )


class ModelPolicy(_Part):
    """What holds for one model, whichever role calls it."""

    max_concurrent: Count | None = Field(
        default=None, description="Calls of this model at the same time. Null: no cap of its own."
    )
    parallel: Count | None = Field(
        default=None,
        description="Requests the upstream computes together for it. Null: as the upstream says.",
    )
    options: Options = Field(
        default={},
        validate_default=True,
        description="Runner options pinned when we choose the model, such as num_ctx.",
    )
    price: PricePolicy | None = Field(
        default=None, description="What it costs. Null: free if LOCAL, unknown if CLOUD."
    )
    max_output_tokens: Count = Field(
        default=4096,
        description="Tokens an answer is reckoned with beforehand, for calls that name no number.",
    )


class BudgetPolicy(_Part):
    """A ceiling over a sliding window, for the calls that match every selector it names."""

    name: Label = Field(description="Unique; appears in errors, metrics and RateLimit headers.")
    models: tuple[ModelName, ...] | None = Field(
        default=None, min_length=1, description="Selector: calls of any of these models."
    )
    role: Role | None = Field(default=None, description="Selector: calls of this role.")
    provider: Provider | None = Field(default=None, description="Selector: calls to it.")
    calls: CountOrNone | None = Field(default=None, description="Calls within the window.")
    usd: Money | None = Field(default=None, description="US dollars within the window.")
    window: Window = Field(description='Length of the window: "30m", "1h", "1d".')
    shadow: Flag = Field(default=False, description="Count and report, but refuse nothing.")

    @property
    def window_s(self) -> int:
        """Length of the window in seconds."""
        return seconds(self.window)


class EscalationPolicy(_Part):
    """What a client may say to be moved from EXECUTOR to HEAVY, or from HEAVY to CLOUD."""

    conditions: tuple[Condition, ...] = Field(
        description="Accepted values of X-LLM-Escalate. Empty: nothing escalates."
    )


class ArmPolicy(_Part):
    """One variant of an experiment."""

    name: Label = Field(description="Unique in its experiment; the value of X-LLM-Variant.")
    model: ModelName = Field(description="Model of attempt 1 in this arm.")
    weight: Money = Field(description="Share of the traffic, relative to the other arms.")
    options: Options = Field(
        default={}, validate_default=True, description="Runner options set in this arm."
    )


class ExperimentPolicy(_Part):
    """A comparison of models within one role."""

    name: Label = Field(description="Unique; part of the hash that picks the arm.")
    role: Role = Field(description="Whose calls take part. Not CHAT.")
    arms: tuple[ArmPolicy, ...] = Field(min_length=1, description="The variants.")
    sticky: Sticky = Field(description="What keeps its arm: a job, a client, or nothing.")
    enabled: Flag = Field(default=False, description="False: checked, but without effect.")


class SloPolicy(_Part):
    """One objective: it holds while the measured value stays below the number."""

    p95: Threshold | None = Field(default=None, description="Milliseconds; latencies only.")
    p99: Threshold | None = Field(default=None, description="Milliseconds; latencies only.")
    max: Threshold | None = Field(
        default=None,
        description="A count (timeouts), a share of 1 (rates), milliseconds (event_loop_lag_p99).",
    )
    window: Window = Field(default="5h", description="What is looked back over.")

    @property
    def window_s(self) -> int:
        """Length of the window in seconds."""
        return seconds(self.window)


class ClientsPolicy(_Part):
    """Limits for each client by itself; all off by default."""

    rate_per_s: Threshold | None = Field(
        default=None, description="Calls per second of one client. Null: not limited."
    )
    burst: Count = Field(default=1, description="Calls one client may make at once.")
    max_concurrent: Count | None = Field(
        default=None, description="Calls of one client at the same time. Null: not limited."
    )


class ManagementPolicy(_Part):
    """Which changes to the models of the host go through."""

    deny: tuple[Action, ...] = Field(
        default=(), description="Actions that are refused with 403, whoever asks."
    )


class Policy(_Part):
    """The whole policy, checked. Read once at start; a change needs a restart."""

    schema_: str | None = Field(
        default=None, alias="$schema", strict=True, description="For editors; not read."
    )
    version: Version = Field(description="Version of this format.")
    global_: GlobalPolicy = Field(alias="global", description="The cap over all local roles.")
    roles: Annotated[Mapping[Role, RolePolicy], *_Frozen] = Field(
        description="All five roles.",
        json_schema_extra={"required": [role.value for role in Role]},
    )
    models: Annotated[Mapping[ModelName, ModelPolicy], *_Frozen] = Field(
        default={},
        validate_default=True,
        description="What holds for a model in any role.",
        json_schema_extra={"additionalProperties": False},
    )
    load_timeout_ms: Milliseconds = Field(
        default=120_000, description="Milliseconds a model may take to load."
    )
    budgets: tuple[BudgetPolicy, ...] = Field(description="Ceilings on calls and money.")
    escalation: EscalationPolicy = Field(description="How a call may ask for a stronger role.")
    experiments: tuple[ExperimentPolicy, ...] = Field(description="Comparisons of models.")
    slo: Annotated[Mapping[str, SloPolicy], *_Frozen] = Field(
        description="Objectives by name.",
        json_schema_extra={"propertyNames": {"enum": list(OBJECTIVES)}},
    )
    clients: ClientsPolicy = Field(
        default=ClientsPolicy(), description="Limits for each client by itself."
    )
    management: ManagementPolicy = Field(
        default=ManagementPolicy(), description="Which changes to models go through."
    )

    @field_validator("roles", mode="before")
    @classmethod
    def _the_cloud_is_the_cloud(cls, value: object) -> object:
        return _with_provider(value)


def seconds(window: str) -> int:
    """Read ``"30m"`` as 1800. The pattern of `Window` has already been checked."""
    return int(window[:-1]) * _UNIT_SECONDS[window[-1]]


# --- Problems ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing to mend, and where: ``$.roles.EXECUTOR.max_que``."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class PolicyError(Exception):
    """The policy cannot be used; `problems` is everything found, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


Step = str | int
Loc = tuple[Step, ...]

_WORD: Final = re.compile(r"[$A-Za-z_][A-Za-z0-9_$]*")


def json_path(loc: Iterable[Step]) -> str:
    """Write a place as JSON path: ``$.models["gpt-oss:20b"].price``."""
    return "$" + "".join(map(_step_text, loc))


def _step_text(step: Step) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    if _WORD.fullmatch(step):
        return f".{step}"
    return f"[{_quoted(step)}]"


def _quoted(text: str) -> str:
    """Quote as JSON would, on one line: an operator's key may hold a line break or worse."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    safe = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)
    return f'"{"".join(safe)}"'


def _problem(loc: Iterable[Step], message: str) -> Problem:
    return Problem(json_path(loc), message)


# A key of the file, not of the policy: the file's reader resolves it before `parse`.
_EXTENDS: Final = "extends"
_MISSING: Final = 'missing; add it, or put "extends": "default" in the file'

_MESSAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missing": _MISSING,
        "int_type": "must be a whole number, not {got}",
        "float_type": "must be a number, not {got}",
        "finite_number": "must be a finite number",
        "string_unicode": "must be text, not half of a surrogate pair",
        "string_type": "must be a string, not {got}",
        "bool_type": "must be true or false, not {got}",
        "tuple_type": "must be a list, not {got}",
        "dict_type": "must be an object, not {got}",
        "mapping_type": "must be an object, not {got}",
        "model_type": "must be an object, not {got}",
        "greater_than": "must be more than {gt}, not {got}",
        "greater_than_equal": "must be at least {ge}, not {got}",
        "less_than_equal": "must be at most {le}, not {got}",
        "enum": "must be {expected}, not {got}",
        "literal_error": "must be {expected}, not {got}",
        "too_short": "must not be empty",
        "string_too_short": "must not be empty",
        "scalar_type": "must be a string, a number, true or false, not {got}",
    }
)
_PATTERNS: Final[Mapping[str, str]] = MappingProxyType(
    {
        _NAME: "must be 1 to 256 letters, digits or . _ : / -, not {got}",
        _LABEL: "must be 1 to 64 letters, digits or . _ -, not {got}",
        _WINDOW: 'must be a whole number with s, m, h or d, such as "30m" or "1h", not {got}',
        _KEEP_ALIVE: 'must be a whole number with s, m or h, such as "5m" or "1h", not {got}',
    }
)


def _got(value: object) -> str:
    """Show a value as the file has it, short enough for one line."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case str():
            return _quoted(value if len(value) <= 40 else f"{value[:40]}…")
        case int() if abs(value) > 10**15:
            return f"a number of {int(value.bit_length() * 0.30103) + 1} digits"
        case int() | float():
            return str(value)
        case Mapping():
            return "an object"
        case _:
            return "a list"


def _message(error: ErrorDetails) -> str:
    ctx = error.get("ctx", {})
    text = _PATTERNS.get(str(ctx.get("pattern"))) or _MESSAGES.get(error["type"], error["msg"])
    expected = str(ctx.get("expected", "")).replace("'", '"')
    return text.format(**{**ctx, "expected": expected, "got": _got(error["input"])})


# --- Step 1: unknown keys ------------------------------------------------------------------


def _within(annotation: Any, step: Step) -> Any:
    """The type found one step inside a type: a field, a mapping's value, a list's item."""
    annotation = _given(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return next((f.annotation for key, f in _fields(annotation) if key == step), None)
    args = get_args(annotation)
    return args[1 if get_origin(annotation) is Mapping else 0] if args else None


def _given(annotation: Any) -> Any:
    """What a value is if it is there: the type without its marks and without null."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _given(args[0])
    if origin is Union or type(None) in args:
        return next((_given(arg) for arg in args if arg is not type(None)), None)
    return annotation


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    return ((field.alias or name, field) for name, field in model.model_fields.items())


def _known_keys(root: type[BaseModel], parent: Loc) -> list[str]:
    annotation: Any = root
    for step in parent:
        annotation = _within(annotation, step)
    annotation = _given(annotation)
    if annotation is Policy:
        return [*(key for key, _ in _fields(Policy)), _EXTENDS]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [key for key, _ in _fields(annotation)]
    return list(OBJECTIVES) if parent == ("slo",) else [role.value for role in Role]


def _closest(key: str, known: Sequence[str]) -> str | None:
    """Known key that a misspelt one resembles, case aside; None where a guess would mislead."""
    by_fold = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(key.casefold(), by_fold, n=1, cutoff=0.6)
    return by_fold[close[0]] if close else None


def _unknown(root: type[BaseModel], loc: Loc) -> tuple[Problem, str | None]:
    *parent, key = loc
    if root is Policy and loc == (_EXTENDS,):
        return _problem(loc, "must be resolved before the policy is parsed"), None
    known = _known_keys(root, tuple(parent))
    close = _closest(str(key), known)
    hint = f'did you mean "{close}"?' if close else f"known here: {', '.join(known)}"
    return _problem(loc, f"unknown key; {hint}"), close


def _unknown_keys(errors: Iterable[ErrorDetails], raw: Mapping[str, object]) -> Iterator[Loc]:
    """Places of keys that nothing reads: fields, roles, objectives."""
    for error in errors:
        loc = error["loc"]
        if error["type"] == "extra_forbidden":
            yield loc
        elif loc[-1] == "[key]" and error["type"] == "enum":
            yield loc[:-1]
    slo = raw.get("slo")
    if isinstance(slo, Mapping):
        yield from (("slo", key) for key in slo if key not in OBJECTIVES)


def _repaired(raw: Any, renames: Mapping[Loc, str | None], at: Loc = ()) -> Any:
    """Copy of the document with unknown keys read as what they resemble, or left out.

    A key that is present under its right name as well keeps the right one.
    """
    if isinstance(raw, Mapping):
        kept = {k: _repaired(v, renames, (*at, k)) for k, v in raw.items()}
        meant = {renames[*at, k]: v for k, v in kept.items() if (*at, k) in renames}
        right = {k: v for k, v in kept.items() if (*at, k) not in renames}
        known = (meant | right).items()
        return {k: v for k, v in known if k is not None and (*at, k) != (_EXTENDS,)}
    if isinstance(raw, list | tuple):
        return [_repaired(item, renames, (*at, i)) for i, item in enumerate(raw)]
    return raw


# --- Step 3: rules that span several keys --------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Draft:
    """The parts of the document that are sound by themselves; the rest is already reported."""

    cap: int | None
    roles: Mapping[Role, RolePolicy]
    models: tuple[str, ...]
    pinned: Mapping[str, Options]
    budgets: Mapping[Any, BudgetPolicy]
    conditions: tuple[str, ...]
    experiments: Mapping[Any, ExperimentPolicy]
    slo: Mapping[Any, SloPolicy]


def _sound(model: type[M], part: object) -> M | None:
    try:
        return model.model_validate(part)
    except ValidationError:
        return None


def _sound_parts(model: type[M], parts: object) -> dict[Any, M]:
    items: Iterable[tuple[Any, object]] = ()
    if isinstance(parts, Mapping):
        items = parts.items()
    elif isinstance(parts, list):
        items = enumerate(parts)
    checked = ((key, _sound(model, part)) for key, part in items)
    return {key: part for key, part in checked if part is not None}


def _with_provider(roles: object) -> object:
    """Fill in the provider of CLOUD: the one default that depends on the role's name."""
    cloud = roles.get(Role.CLOUD) if isinstance(roles, Mapping) else None
    if not isinstance(cloud, Mapping) or not isinstance(roles, Mapping):
        return roles
    return {**roles, Role.CLOUD.value: {"provider": Provider.CLOUD.value, **cloud}}


def _draft(raw: Mapping[str, Any]) -> _Draft:
    cap = _sound(GlobalPolicy, raw.get("global"))
    roles = _sound_parts(RolePolicy, _with_provider(raw.get("roles")))
    escalation = _sound(EscalationPolicy, raw.get("escalation"))
    models = raw.get("models")
    return _Draft(
        cap=cap.max_concurrent if cap else None,
        roles={Role(name): role for name, role in roles.items()},
        models=tuple(models) if isinstance(models, Mapping) else (),
        pinned={name: part.options for name, part in _sound_parts(ModelPolicy, models).items()},
        budgets=_sound_parts(BudgetPolicy, raw.get("budgets")),
        conditions=escalation.conditions if escalation else (),
        experiments=_sound_parts(ExperimentPolicy, raw.get("experiments")),
        slo=_sound_parts(SloPolicy, raw.get("slo")),
    )


def _every_role(raw: Mapping[str, Any]) -> Iterator[Problem]:
    roles = raw.get("roles")
    if isinstance(roles, Mapping):
        yield from (_problem(("roles", r), _MISSING) for r in Role if r not in roles)


def _primaries(draft: _Draft) -> Iterator[Problem]:
    for name, role in draft.roles.items():
        at = ("roles", name.value, "primary")
        if name is Role.CHAT and role.primary is not None:
            yield _problem(at, "must be null: CHAT serves the model the client named")
        if name is not Role.CHAT and role.primary is None:
            yield _problem(at, f"must name a model: only CHAT has none, and this is {name}")


def _fallbacks(draft: _Draft) -> Iterator[Problem]:
    for name, role in draft.roles.items():
        at = ("roles", name.value)
        if role.fallback is None and role.fallback_timeout_ms is not None:
            yield _problem(
                (*at, "fallback_timeout_ms"),
                "has no fallback to apply to; set it to null or name a fallback",
            )
        if role.fallback and role.primary and canonical(role.fallback) == canonical(role.primary):
            yield _problem(
                (*at, "fallback"), "is the primary again; name another model, or null for none"
            )


def _providers(draft: _Draft) -> Iterator[Problem]:
    for name, role in draft.roles.items():
        right = Provider.CLOUD if name is Role.CLOUD else Provider.LOCAL
        if role.provider is not right:
            yield _problem(
                ("roles", name.value, "provider"), f"must be {right} for {name}; leave it out"
            )


def _waits(draft: _Draft) -> Iterator[Problem]:
    for name, role in draft.roles.items():
        low, high = LONG_WAIT_MS if role.allow_long_wait else WAIT_MS
        if not low <= role.max_wait_ms <= high:
            hint = "" if role.allow_long_wait else ', or set "allow_long_wait": true'
            yield _problem(
                ("roles", name.value, "max_wait_ms"),
                f"must be {low} to {high} milliseconds, not {role.max_wait_ms}{hint}",
            )


def _tokens(draft: _Draft) -> Iterator[Problem]:
    for name, role in draft.roles.items():
        given, most = role.num_predict, role.max_num_predict
        if given is not None and most is not None and given > most:
            yield _problem(
                ("roles", name.value, "num_predict"),
                f"is {given}, more than this role's max_num_predict ({most}); lower it",
            )


def _contexts(draft: _Draft) -> Iterator[Problem]:
    """A pinned num_ctx that the clamp of its own role would cut."""
    for name, role in draft.roles.items():
        if role.max_num_ctx is None:
            continue
        for where, pinned in _pinned_contexts(draft, name, role):
            if isinstance(pinned, int | float) and pinned > role.max_num_ctx:
                yield _problem(
                    ("roles", name.value, "max_num_ctx"),
                    f"is {role.max_num_ctx}, but {json_path(where)} is {_got(pinned)};"
                    " raise the one or lower the other",
                )


def _pinned_contexts(
    draft: _Draft, name: Role, role: RolePolicy
) -> Iterator[tuple[Loc, Scalar | None]]:
    """Every num_ctx the policy sets in calls of a role, and where it stands."""
    chosen = {canonical(model) for model in (role.primary, role.fallback) if model}
    for i, test in draft.experiments.items():
        for j, arm in enumerate(test.arms if test.role is name else ()):
            if "num_ctx" in arm.options:
                yield ("experiments", i, "arms", j, "options", "num_ctx"), arm.options["num_ctx"]
            else:
                chosen.add(canonical(arm.model))
    for model, options in draft.pinned.items():
        if canonical(model) in chosen:
            yield ("models", model, "options", "num_ctx"), options.get("num_ctx")


def _reserved(draft: _Draft) -> Iterator[Problem]:
    for name, role in draft.roles.items():
        at = ("roles", name.value, "reserved")
        if name is Role.CLOUD and role.reserved:
            yield _problem(at, "must be 0: CLOUD takes no seat of the global cap")
        elif role.max_concurrent is not None and role.reserved > role.max_concurrent:
            yield _problem(
                at,
                f"is {role.reserved}, more than this role's max_concurrent"
                f" ({role.max_concurrent}); lower it",
            )
    total = sum(role.reserved for name, role in draft.roles.items() if name is not Role.CLOUD)
    if draft.cap is not None and total > draft.cap:
        yield _problem(
            ("global", "max_concurrent"),
            f"is {draft.cap}, but the roles reserve {total} together; raise it or reserve less",
        )


def _model_places(draft: _Draft) -> dict[str, str]:
    """Where each model name is first used, by its normal form."""
    places: list[tuple[Loc, str | None]] = []
    for name, role in draft.roles.items():
        at = ("roles", name.value)
        places += [((*at, "primary"), role.primary), ((*at, "fallback"), role.fallback)]
        places += [((*at, "claims", i), claim) for i, claim in enumerate(role.claims)]
    places += [(("models", model), model) for model in draft.models]
    for i, budget in draft.budgets.items():
        places += [(("budgets", i, "models"), model) for model in budget.models or ()]
    for i, experiment in draft.experiments.items():
        places += [(("experiments", i, "arms"), arm.model) for arm in experiment.arms]
    return {canonical(name): json_path(loc) for loc, name in reversed(places) if name}


def _twice(names: Iterable[tuple[Loc, str]], say: Callable[[str], str]) -> Iterator[Problem]:
    """Report every name whose normal form has been seen before; `say` gets the first place."""
    seen: dict[str, str] = {}
    for loc, name in names:
        first = seen.setdefault(name, json_path(loc))
        if first != json_path(loc):
            yield _problem(loc, say(first))


def _aliases(draft: _Draft) -> Iterator[Problem]:
    names: list[tuple[Loc, str]] = [
        (("roles", name.value, "aliases", i), canonical(alias))
        for name, role in draft.roles.items()
        for i, alias in enumerate(role.aliases)
    ]
    models = _model_places(draft)
    yield from _twice(names, lambda first: f"is the same alias as {first}; keep one of them")
    for loc, name in names:
        if loc[1] == Role.CHAT:
            yield _problem(loc, "CHAT has no model an alias could stand for; remove it")
        if name in models:
            yield _problem(loc, f"is also the name of a model ({models[name]}); rename the alias")


def _claims(draft: _Draft) -> Iterator[Problem]:
    names: list[tuple[Loc, str]] = [
        (("roles", name.value, "claims", i), canonical(claim))
        for name, role in draft.roles.items()
        for i, claim in enumerate(role.claims)
    ]
    yield from _twice(names, lambda first: f"is already claimed at {first}; keep one of them")


def _models(draft: _Draft) -> Iterator[Problem]:
    names: list[tuple[Loc, str]] = [(("models", m), canonical(m)) for m in draft.models]
    yield from _twice(names, lambda first: f"is the same model as {first}; keep one of them")


def _budgets(draft: _Draft) -> Iterator[Problem]:
    names: list[tuple[Loc, str]] = [
        (("budgets", i, "name"), b.name) for i, b in draft.budgets.items()
    ]
    yield from _twice(names, lambda first: f"is also the name at {first}; rename one")
    for i, budget in draft.budgets.items():
        if budget.models is None and budget.role is None and budget.provider is None:
            yield _problem(("budgets", i), "selects no calls; add models, role or provider")
        if budget.calls is None and budget.usd is None:
            yield _problem(("budgets", i), "limits nothing; add calls or usd")


def _conditions(draft: _Draft) -> Iterator[Problem]:
    names: list[tuple[Loc, str]] = [
        (("escalation", "conditions", i), word) for i, word in enumerate(draft.conditions)
    ]
    yield from _twice(names, lambda first: f"is already listed at {first}; remove one")


def _experiments(draft: _Draft) -> Iterator[Problem]:
    tests = draft.experiments.items()
    yield from _twice(
        [(("experiments", i, "name"), test.name) for i, test in tests],
        lambda first: f"is also the name at {first}; rename one",
    )
    yield from _twice(
        [(("experiments", i, "enabled"), test.role) for i, test in tests if test.enabled],
        lambda first: f"is true for a role that {first} already tests; enable one of them",
    )
    for i, test in tests:
        yield from _arms(("experiments", i), test)


def _arms(at: Loc, test: ExperimentPolicy) -> Iterator[Problem]:
    yield from _twice(
        [((*at, "arms", i, "name"), arm.name) for i, arm in enumerate(test.arms)],
        lambda first: f"is also the name at {first}; rename one",
    )
    if test.role is Role.CHAT:
        yield _problem((*at, "role"), "must not be CHAT: it serves the model the client named")
    if not any(arm.weight for arm in test.arms):
        yield _problem((*at, "arms"), "have no weight; give at least one more than 0")


def _objectives(draft: _Draft) -> Iterator[Problem]:
    for name, slo in draft.slo.items():
        if name in _LATENCIES and slo.max is not None:
            yield _problem(("slo", name, "max"), "does not fit a latency; use p95 or p99")
        if name in OBJECTIVES and name not in _LATENCIES:
            for key in ("p95", "p99"):
                if getattr(slo, key) is not None:
                    yield _problem(("slo", name, key), "fits latencies only; use max")
        if name in _RATES and slo.max is not None and slo.max > 1:
            yield _problem(
                ("slo", name, "max"), "is a share between 0 and 1; write 0.1 for 10 per cent"
            )


_RULES: Final = (
    _primaries,
    _fallbacks,
    _providers,
    _waits,
    _tokens,
    _contexts,
    _reserved,
    _aliases,
    _claims,
    _models,
    _budgets,
    _conditions,
    _experiments,
    _objectives,
)


# --- The published schema ------------------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """JSON schema of the policy file, for editors: a whole policy, or an overlay of one.

    An overlay (``"extends": "default"``) is the same shape with nothing required, except
    inside lists, because a list replaces and is therefore written whole.
    """
    policy: dict[str, Any] = _untitled(Policy.model_json_schema())
    shapes: dict[str, Any] = policy.pop("$defs")
    shapes["Policy"] = policy
    listed = {"ArmPolicy", "BudgetPolicy", "ExperimentPolicy"}  # only ever inside lists
    objects = {name for name, shape in shapes.items() if shape.get("type") == "object"} - listed
    overlays = {f"{name}Overlay": _overlay(shapes[name], objects) for name in objects}
    extends = {"const": "default", "description": "Merge this file over the shipped policy."}
    overlays["PolicyOverlay"]["properties"]["extends"] = extends
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "modelsplit policy",
        "type": "object",
        "if": {"required": ["extends"]},
        "then": {"$ref": "#/$defs/PolicyOverlay"},
        "else": {"$ref": "#/$defs/Policy"},
        "$defs": dict(sorted((shapes | overlays).items())),
    }


def _untitled(node: Any) -> Any:
    """Drop the titles pydantic makes of names; they say nothing the name does not."""
    if isinstance(node, dict):
        return {k: _untitled(v) for k, v in node.items() if k != "title"}
    return [_untitled(item) for item in node] if isinstance(node, list) else node


def _overlay(node: Any, objects: Iterable[str]) -> Any:
    if isinstance(node, list):
        return [_overlay(item, objects) for item in node]
    if not isinstance(node, dict):
        return node
    whole = ("items", "propertyNames", "required")
    copy = {k: v if k in whole else _overlay(v, objects) for k, v in node.items()}
    copy.pop("required", None)
    name = str(copy.get("$ref", "")).removeprefix("#/$defs/")
    return copy | {"$ref": f"#/$defs/{name}Overlay"} if name in objects else copy


# --- The door ------------------------------------------------------------------------------


def parse(raw: Mapping[str, object]) -> Policy:
    """Check a whole policy document and return it as values, or raise `PolicyError`.

    The document is the file's JSON after any ``extends`` has been resolved.
    """
    if not isinstance(raw, Mapping):
        raise PolicyError([_problem((), f"must be an object, not {_got(raw)}")])
    document, unknown, meant = _spelt_right(Policy, raw)
    policy, faults = _checked(document)
    if _EXTENDS in meant:  # an overlay whose one typo is here: nothing else is missing
        faults = {fault for fault in faults if fault.message != _MISSING}
    problems = unknown | faults
    if policy is None or problems:
        raise PolicyError(sorted(problems))
    return policy


def check(model: type[M], raw: Mapping[str, object]) -> tuple[M | None, set[Problem]]:
    """Steps 1 and 2 for a document of another kind: its value if it is sound, and what is not."""
    document, unknown, _ = _spelt_right(model, raw)
    value, errors = _validated(model, document)
    problems = {
        _problem(error["loc"], "missing; add it" if error["type"] == "missing" else _message(error))
        for error in errors
    }
    return value, unknown | problems


def _spelt_right(
    model: type[BaseModel], raw: Mapping[str, object]
) -> tuple[dict[str, Any], set[Problem], set[str | None]]:
    """Step 1: the document with known keys only, the unknown ones, and what they were read as."""
    _, errors = _validated(model, raw)
    unknown = {loc: _unknown(model, loc) for loc in _unknown_keys(errors, raw)}
    meant = {loc: close for loc, (_, close) in unknown.items()}
    return _repaired(raw, meant), {problem for problem, _ in unknown.values()}, {*meant.values()}


def _checked(document: Mapping[str, object]) -> tuple[Policy | None, set[Problem]]:
    """Steps 2 and 3, for a document without unknown keys."""
    policy, errors = _validated(Policy, document)
    problems = {_problem(_place(error["loc"]), _message(error)) for error in errors}
    draft = _draft(document)
    problems |= {problem for rule in _RULES for problem in rule(draft)}
    return policy, problems | set(_every_role(document))


def _validated(model: type[M], raw: Mapping[str, object]) -> tuple[M | None, list[ErrorDetails]]:
    try:
        return model.model_validate(raw), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _place(loc: Loc) -> Loc:
    """Where the fault is; pydantic marks a fault of a mapping's key with a step of its own."""
    return loc[:-1] if loc[-1:] == ("[key]",) else loc
