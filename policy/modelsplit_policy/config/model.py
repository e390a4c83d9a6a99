"""The policy as values: every key's type, range and default.

Times are whole milliseconds in keys ending in ``_ms`` (the unit Ollama's users meet in the
response headers) and words such as ``"1h"`` in ``window``. Numbers come from the table of
roles in the README; docs/policy.md has one entry per key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from modelsplit_policy.model_names import read
from modelsplit_policy.quantity import LIMIT
from modelsplit_policy.slo.names import OBJECTIVES
from modelsplit_policy.vocabulary import Action, Context, Provider, Role

# What a waiting client is promised (milliseconds): shorter, and a model that is only busy
# looks broken; longer, and the client's own timeout fires first. `allow_long_wait` lifts both.
WAIT_MS: Final = (5_000, 10_000)
LONG_WAIT_MS: Final = (1, 600_000)

# A day. Longer is a slip of the unit: nobody waits a day for one answer.
_DAY_MS: Final = 86_400_000
# Far above any machine; keeps every later sum and division inside ordinary integers.
_COUNT_MAX: Final = 1_000_000
_USD_MAX: Final = 1_000_000.0
_PORT_MAX: Final = 65_535

NAME: Final = r"^[A-Za-z0-9._:/-]{1,256}$"
LABEL: Final = r"^[A-Za-z0-9._-]{1,64}$"
WINDOW: Final = r"^[1-9][0-9]{0,5}[smhd]$"
# Written into requests as it stands here, and Go's durations know no days.
KEEP_ALIVE: Final = r"^[1-9][0-9]{0,5}[smh]$"
BASE_URL: Final = (
    r"^(?:https://[A-Za-z0-9._-]+|http://(?:127\.0\.0\.1|localhost)|https?://\[::1\])"
    r"(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/-]*)?$"
)
# Where an Ollama listens, as ``--upstream`` says it.
HOST_URL: Final = r"^http://(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?/?$"
MODEL_GLOB: Final = r"^[A-Za-z0-9._:/*?-]{1,256}$"
# The version of the Messages API that has no temperature, top_p and top_k any more.
NO_SAMPLING_FROM: Final = "2026-10-21"
PROVIDER_MODEL: Final = r"^[!-~]{1,256}$"
HEADER_VALUE: Final = r"^[!-~]{1,128}$"
VARIABLE: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
_UNIT_SECONDS: Final = MappingProxyType({"s": 1, "m": 60, "h": 3_600, "d": 86_400})

Condition = Literal["failure_analysis", "complex_output", "schema_failed", "operator"]
Sheds = Literal["event_loop_lag", "queue_pressure", "timeouts"]
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


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error:
        raise PydanticCustomError("pattern", "is no regular expression of Python's") from None
    return text


def _listens(url: str) -> str:
    port = url.rstrip("/").rpartition(":")[2]
    if port.isdigit() and not 1 <= int(port) <= _PORT_MAX:
        raise PydanticCustomError("host_url", f"must name a port from 1 to {_PORT_MAX}")
    return url


# Pydantic's `frozen` stops at the attribute; the proxy carries it into the mapping.
_Frozen = (AfterValidator(_frozen), PlainSerializer(dict))

Milliseconds = Annotated[int, Field(strict=True, ge=1, le=_DAY_MS)]
Count = Annotated[int, Field(strict=True, ge=1, le=_COUNT_MAX)]
CountOrNone = Annotated[int, Field(strict=True, ge=0, le=_COUNT_MAX)]
Flag = Annotated[bool, Field(strict=True)]
Money = Annotated[float, Field(strict=True, ge=0, le=_USD_MAX, allow_inf_nan=False)]
Weight = Annotated[float, Field(strict=True, ge=0, le=LIMIT - 1, allow_inf_nan=False)]
Threshold = Annotated[float, Field(strict=True, gt=0, le=LIMIT - 1, allow_inf_nan=False)]
Level = Annotated[float, Field(strict=True, ge=0, le=LIMIT - 1, allow_inf_nan=False)]
Part = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
ModelName = Annotated[str, Field(strict=True, pattern=NAME), AfterValidator(_readable)]
Label = Annotated[str, Field(strict=True, pattern=LABEL)]
Window = Annotated[str, Field(strict=True, pattern=WINDOW)]
KeepAlive = Annotated[str, Field(strict=True, pattern=KEEP_ALIVE)]
OptionName = Annotated[str, Field(strict=True, min_length=1)]
OptionValue = Annotated[
    Scalar,
    PlainValidator(_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
Options = Annotated[Mapping[OptionName, OptionValue], *_Frozen]
# https, or http to this machine alone: a key would be read on the way.
BaseUrl = Annotated[str, Field(strict=True, pattern=BASE_URL)]
HeaderValue = Annotated[str, Field(strict=True, pattern=HEADER_VALUE)]
HostUrl = Annotated[str, Field(strict=True, pattern=HOST_URL), AfterValidator(_listens)]
ModelGlob = Annotated[str, Field(strict=True, pattern=MODEL_GLOB)]
Share = Annotated[float, Field(strict=True, gt=0, le=_COUNT_MAX, allow_inf_nan=False)]
ProviderModel = Annotated[str, Field(strict=True, pattern=PROVIDER_MODEL)] | None
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
    restart_wait_ms: CountOrNone = Field(
        default=10_000,
        description="Milliseconds for which calls wait in line for an Ollama that went away.",
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
    first_byte_timeout_ms: Milliseconds = Field(
        default=900_000,
        description="Milliseconds a loaded model may take until its answer begins.",
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
    when_late: Literal["refuse", "start"] = Field(
        default="refuse",
        description="A call that would slow others: refuse it when its wait ends, or start it.",
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
    lease: Part = Field(
        default=0.0,
        description="Share of it that each modelsplit may spend while the shared Redis is away.",
    )

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
    weight: Weight = Field(description="Share of the traffic, relative to the other arms.")
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
    """One objective and what it is held to. A bound that is null is not judged."""

    p95: Threshold | None = Field(
        default=None, description="Milliseconds that 95 of 100 stay below; latencies only."
    )
    p99: Threshold | None = Field(
        default=None, description="Milliseconds that 99 of 100 stay below; latencies only."
    )
    max: Threshold | None = Field(
        default=None,
        description="A count, a share of 1 or milliseconds that the value must stay below.",
    )
    min: Threshold | None = Field(
        default=None, description="A share of 1, hours or days that the value must reach."
    )
    of_baseline: Threshold | None = Field(
        default=None, description="Share of the baseline's value: at most it, or at least it."
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


class JobsPolicy(_Part):
    """How jobs are kept."""

    expire_after: Window = Field(
        default="1h", description="How long after its last event a job expires, as 30m or 1h."
    )

    @property
    def expire_after_s(self) -> int:
        """The same in seconds."""
        return seconds(self.expire_after)


class CloudProviderPolicy(_Part):
    """A cloud that is asked over its own API, and the models it answers for."""

    dialect: Literal["anthropic", "openai"] = Field(
        default="anthropic",
        description="Its API: anthropic, the Messages API; openai, chat completions.",
    )
    base_url: BaseUrl = Field(
        default="https://api.anthropic.com",
        description="Where its API begins. https; http only to this machine.",
    )
    models: Annotated[Mapping[ModelName, ProviderModel], *_Frozen] = Field(
        min_length=1,
        description="Each model by the policy's name, and its name there. Null: the same.",
        json_schema_extra={"additionalProperties": False},
    )
    key_file: Annotated[str, Field(strict=True, min_length=1)] | None = Field(
        default=None, description="A file that holds its key and nothing else; its owner's alone."
    )
    key_env: Annotated[str, Field(strict=True, pattern=VARIABLE)] = Field(
        default="ANTHROPIC_API_KEY",
        description="The variable that holds its key, if no credential and no file does.",
    )
    version: HeaderValue = Field(
        default="2023-06-01", description="What is sent as anthropic-version."
    )
    betas: tuple[HeaderValue, ...] = Field(
        default=(), description="What is sent as anthropic-beta."
    )
    thinking_tokens: CountOrNone = Field(
        default=0, description="Tokens its models may think with. 0: they cannot."
    )
    adaptive_thinking: Flag = Field(
        default=False, description="Its models decide themselves how long they think."
    )
    sampling: Flag = Field(
        default=True, description="Its models take temperature, top_p and top_k."
    )
    structured_output: Flag = Field(
        default=False,
        description="Its models take an answer's schema. False: a tool stands in for it.",
    )
    use_proxy: Flag = Field(
        default=False, description="Go by the variables HTTPS_PROXY and NO_PROXY."
    )
    ca_file: Annotated[str, Field(strict=True, min_length=1)] | None = Field(
        default=None, description="Authorities that are trusted. Null: those of the system."
    )

    @property
    def takes_sampling(self) -> bool:
        """Whether temperature and the like may be sent: later versions of the API refuse them."""
        is_late = self.dialect == "anthropic" and self.version >= NO_SAMPLING_FROM
        return self.sampling and not is_late


class EgressPolicy(_Part):
    """Whose calls may leave for a provider."""

    roles: tuple[Role, ...] = Field(
        default=(Role.CLOUD,), description="Roles whose calls may leave."
    )
    clients: tuple[Label, ...] | None = Field(
        default=None, description="Keys of clients whose calls may leave. Null: all, keys or not."
    )
    conditions: tuple[Condition, ...] | None = Field(
        default=None, description="Escalations that may leave. Null: all that are allowed at all."
    )


class RedactionPolicy(_Part):
    """What is taken out of a request before it leaves."""

    name: Label = Field(description="Unique; the record says how often it was found.")
    pattern: Annotated[str, Field(strict=True, min_length=1), AfterValidator(_pattern)] = Field(
        description="A regular expression, of Python's."
    )
    replacement: Annotated[str, Field(strict=True)] = Field(
        default="[redacted]", description="What stands there instead."
    )


# As the schema prints it.
_ALLOW_FROM: Final[dict[str, JsonValue]] = {
    "roles": [Role.CLOUD.value],
    "clients": None,
    "conditions": None,
}


class CloudPolicy(_Part):
    """Clouds that are asked over their own API, and what may leave for them."""

    providers: Annotated[Mapping[Label, CloudProviderPolicy], *_Frozen] = Field(
        default={},
        validate_default=True,
        description="Each provider by a name of your choice.",
        json_schema_extra={"additionalProperties": False},
    )
    allow_from: EgressPolicy = Field(
        default=EgressPolicy(), description="Whose calls may leave for a provider."
    )
    redact: tuple[RedactionPolicy, ...] = Field(
        default=(), description="What is taken out of every request before it leaves."
    )


class HostPolicy(_Part):
    """One of several Ollamas behind one modelsplit: where it is, and which calls may go there."""

    url: HostUrl = Field(description="Where it listens: http, and no path.")
    weight: Share = Field(
        default=1.0, description="Its share of the calls that several hosts could take, to others'."
    )
    tier: Count = Field(
        default=1, description="Those of a lower tier are asked first, while they are there."
    )
    memory_gb: Share | None = Field(
        default=None, description="Memory for its models, in GiB. Null: not known."
    )
    roles: tuple[Role, ...] | None = Field(
        default=None, min_length=1, description="Roles whose calls may go there. Null: all."
    )
    models: tuple[ModelGlob, ...] | None = Field(
        default=None,
        min_length=1,
        description='Patterns of the models that may run there, as "qwen3:*". Null: all.',
    )
    max_concurrent: Count | None = Field(
        default=None, description="Calls there at the same time. Null: as many as on all hosts."
    )
    parallel: Count | None = Field(
        default=None, description="Calls at once that are worth running there. Null: learned."
    )


class BreakersPolicy(_Part):
    """When calls to a provider or a model are stopped for a while."""

    failures: Count = Field(default=5, description="Failures in a row that open a breaker.")
    pairs: Count = Field(
        default=2,
        description="Pairs of client and body they come from at least; 1: one client suffices.",
    )
    open_ms: Milliseconds = Field(
        default=1_000, description="Milliseconds until a trial; doubled each time, for a model."
    )
    open_max_ms: Milliseconds = Field(
        default=10_000, description="Milliseconds until a model's trial at most."
    )
    memory_ms: Milliseconds = Field(
        default=60_000, description="Milliseconds after which an old failure counts no more."
    )


class BandPolicy(_Part):
    """Where one signal of health turns bad, and where worse; each is left below its `_until`."""

    degraded: Threshold = Field(description="DEGRADED from here.")
    degraded_until: Level = Field(description="DEGRADED until it is down to this.")
    critical: Threshold = Field(description="CRITICAL from here.")
    critical_until: Level = Field(description="CRITICAL until it is down to this.")

    @model_validator(mode="after")
    def _in_order(self) -> BandPolicy:
        if not self.degraded_until < self.degraded or not self.critical_until < self.critical:
            raise PydanticCustomError("band", "a level must be left below where it is entered")
        if self.critical < self.degraded or self.critical_until < self.degraded_until:
            raise PydanticCustomError("band", "critical must not lie below degraded")
        return self


def _band(
    degraded: float, degraded_until: float, critical: float, critical_until: float
) -> BandPolicy:
    return BandPolicy(
        degraded=degraded,
        degraded_until=degraded_until,
        critical=critical,
        critical_until=critical_until,
    )


class HealthPolicy(_Part):
    """What the Health Guard judges by, and what it sheds for."""

    event_loop_lag_ms: BandPolicy = Field(
        default=_band(250, 150, 1000, 600), description="P99 of a minute, in milliseconds."
    )
    lag_samples: Count = Field(
        default=300, description="Samples, ten a second, that the P99 needs to count."
    )
    queue_pressure: BandPolicy = Field(
        default=_band(0.75, 0.5, 0.95, 0.75),
        description="How full a role's line is, or how late its oldest, whichever is less.",
    )
    timeouts: BandPolicy = Field(
        default=_band(5, 3, 15, 10), description="Attempts that timed out in `timeouts_ms`."
    )
    timeouts_ms: Milliseconds = Field(
        default=60_000, description="Milliseconds in which timeouts are counted."
    )
    model_breakers: BandPolicy = Field(
        default=_band(1, 0, 3, 1), description="Models whose breaker is not closed."
    )
    hold_ms: Milliseconds = Field(
        default=10_000, description="Milliseconds that better must last to count."
    )
    sheds: tuple[Sheds, ...] = Field(
        default=("queue_pressure", "timeouts"),
        description="Signals that turn calls away; the others are only shown.",
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
    silent_parse_timeout_ms: Milliseconds = Field(
        default=600_000,
        description="Milliseconds of silence in an answer with tools, a schema or thinking.",
    )
    budgets: tuple[BudgetPolicy, ...] = Field(description="Ceilings on calls and money.")
    escalation: EscalationPolicy = Field(description="How a call may ask for a stronger role.")
    experiments: tuple[ExperimentPolicy, ...] = Field(description="Comparisons of models.")
    slo: Annotated[Mapping[str, SloPolicy | None], *_Frozen] = Field(
        description="Objectives by name. Null: not judged.",
        json_schema_extra={"propertyNames": {"enum": list(OBJECTIVES)}},
    )
    clients: ClientsPolicy = Field(
        default=ClientsPolicy(), description="Limits for each client by itself."
    )
    hosts: Annotated[Mapping[Label, HostPolicy], *_Frozen] = Field(
        default={},
        validate_default=True,
        description="Several Ollamas, each by a name of your choice. Empty: the one upstream.",
        json_schema_extra={"additionalProperties": False},
    )
    breakers: BreakersPolicy = Field(
        default=BreakersPolicy(), description="When a provider or a model is not asked for now."
    )
    health: HealthPolicy = Field(
        default=HealthPolicy(), description="When the service is unwell, and sheds."
    )
    management: ManagementPolicy = Field(
        default=ManagementPolicy(), description="Which changes to models go through."
    )
    jobs: JobsPolicy = Field(default=JobsPolicy(), description="How jobs are kept.")
    cloud: CloudPolicy = Field(
        default_factory=CloudPolicy,
        description="Clouds that are asked over their own API.",
        json_schema_extra={"default": {"providers": {}, "allow_from": _ALLOW_FROM, "redact": []}},
    )

    @field_validator("roles", mode="before")
    @classmethod
    def _the_cloud_is_the_cloud(cls, value: object) -> object:
        return with_provider(value)


def seconds(window: str) -> int:
    """Read ``"30m"`` as 1800. The pattern of `Window` has already been checked."""
    return int(window[:-1]) * _UNIT_SECONDS[window[-1]]


def with_provider(roles: object) -> object:
    """Fill in the provider of CLOUD: the one default that depends on the role's name."""
    cloud = roles.get(Role.CLOUD) if isinstance(roles, Mapping) else None
    if not isinstance(cloud, Mapping) or not isinstance(roles, Mapping):
        return roles
    return {**roles, Role.CLOUD.value: {"provider": Provider.CLOUD.value, **cloud}}
