"""What can be changed: settings of the policy and of Ollama, each with the values worth trying."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.model_names import canonical
from modelsplit_policy.vocabulary import Role

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from modelsplit_policy.config.model import Policy, RolePolicy
    from modelsplit_sim.host_shape import HostShape

    # Where a key stands in a policy, from its top.
    Path = tuple[str, ...]

NUM_PARALLEL: Final = ("host", "OLLAMA_NUM_PARALLEL")
MAX_LOADED: Final = ("host", "OLLAMA_MAX_LOADED_MODELS")
# What the search may be told to leave alone.
KINDS: Final = ("models", "host", "line")

_MODEL_ROLES: Final = (Role.PLANNER, Role.EXECUTOR, Role.HEAVY)
_LINE_ROLES: Final = (Role.PLANNER, Role.EXECUTOR, Role.HEAVY, Role.CHAT)
_SEATS: Final = {
    Role.PLANNER: (1, 2, 3, 4, 6),
    Role.EXECUTOR: (1, 2, 3, 5),
    Role.HEAVY: (1, 2),
    Role.CHAT: (1, 2, 4),
}
_WAITS_MS: Final = (5_000, 10_000, 20_000, 40_000)
_WAITS_OF_PLANNERS_MS: Final = (5_000, 8_000, 10_000)
# A wait beyond this has to be allowed.
_USUAL_WAIT_MS: Final = 10_000
_AGEING_MS: Final = (0, 2_000, 8_000, 20_000)


@dataclass(frozen=True, slots=True)
class Setting:
    """Keys that change together, because one without the others means nothing.

    ``kind``: ``models``, ``host``, or ``line``: caps, reservations, waits, ageing.
    """

    kind: str
    changes: Mapping[Path, Any]

    @property
    def is_wide(self) -> bool:
        """Whether it is about more than one role or number: one model for several, or the host."""
        roles = {path[1] for path in self.changes if path[0] == "roles"}
        return self.kind == "host" or len(roles) > 1


@dataclass(frozen=True, slots=True)
class Candidate:
    """Settings laid over the policy and the host of today; none: today's own."""

    settings: tuple[Setting, ...] = field(default=())

    @property
    def changes(self) -> dict[Path, Any]:
        """All of them; of two for the same key the later one's."""
        return {path: value for each in self.settings for path, value in each.changes.items()}

    @property
    def overlay(self) -> dict[str, Any]:
        """Those of the policy, as a document to be laid over it."""
        document: dict[str, Any] = {}
        for path, value in self.changes.items():
            if path[0] != "host":
                _put(document, path, value)
        return document

    @property
    def unit_lines(self) -> list[str]:
        """Those of Ollama, as lines of its unit."""
        return [
            f'Environment="{path[1]}={value}"'
            for path, value in sorted(self.changes.items())
            if path[0] == "host"
        ]

    def host(self, shape: HostShape) -> HostShape:
        """The host with Ollama told so; more calls at once in a runner take more memory."""
        changes = self.changes
        if NUM_PARALLEL in changes:
            shape = shape.with_slots(changes[NUM_PARALLEL])
        if MAX_LOADED in changes:
            shape = replace(shape, max_loaded=changes[MAX_LOADED])
        return shape

    def plus(self, setting: Setting) -> Candidate:
        """With one more; without those all of whose keys it has too."""
        kept = (each for each in self.settings if not each.changes.keys() <= setting.changes.keys())
        return Candidate((*kept, setting))

    def beside(self, other: Candidate) -> Candidate:
        """With what the other one has besides; its values for keys that both have."""
        more = (each for each in other.settings if each not in self.settings)
        return Candidate((*self.settings, *more))

    def without(self, setting: Setting) -> Candidate:
        return Candidate(tuple(each for each in self.settings if each is not setting))


def _put(document: dict[str, Any], path: Path, value: Any) -> None:
    *above, key = path
    for step in above:
        document = document.setdefault(step, {})
    document[key] = value


def knobs(policy: Policy, shape: HostShape, kept: Sequence[str] = ()) -> list[list[Setting]]:
    """For each thing that can be changed, the values that are not today's.

    ``kept``: kinds that are left alone.
    """
    every = [*_line_knobs(policy), *_model_knobs(policy, shape), *_host_knobs(shape)]
    wanted = ([each for each in knob if each.kind not in kept] for knob in every)
    return [knob for knob in wanted if knob]


def _line_knobs(policy: Policy) -> Iterator[list[Setting]]:
    whole = policy.global_
    yield [
        _line(("global", "max_concurrent"), n)
        for n in (1, 2, 3, 4, 8, 12)
        if n != whole.max_concurrent
    ]
    yield [_line(("global", "parallel"), n) for n in (None, 1, 2, 4) if n != whole.parallel]
    planner = policy.roles[Role.PLANNER]
    yield [_of(Role.PLANNER, reserved=n) for n in (0, 1, 2) if n != planner.reserved]
    for role in _LINE_ROLES:
        own = policy.roles[role]
        yield [_of(role, max_concurrent=n) for n in _SEATS[role] if n != own.max_concurrent]
        waits = _WAITS_OF_PLANNERS_MS if role is Role.PLANNER else _WAITS_MS
        yield [_wait(role, ms) for ms in waits if ms != own.max_wait_ms]
        if role is not Role.PLANNER:
            yield [_of(role, ageing_ms=ms) for ms in _AGEING_MS if ms != own.ageing_ms]
        yield [_of(role, when_late=word) for word in ("refuse", "start") if word != own.when_late]


def _model_knobs(policy: Policy, shape: HostShape) -> Iterator[list[Setting]]:
    """Another model for a role, one for several, and no second attempt at another model."""
    known = sorted(shape.models) or _named(policy)
    for role in _MODEL_ROLES:
        own = policy.roles[role]
        yield [Setting("models", _model(role, own, name)) for name in known if name != own.primary]
        if own.fallback is not None:
            yield [Setting("models", _model(role, own, None))]
    for roles in ((Role.PLANNER, Role.EXECUTOR), _MODEL_ROLES):
        yield [
            Setting(
                "models",
                {
                    path: value
                    for role in roles
                    for path, value in _model(role, policy.roles[role], name, alone=True).items()
                },
            )
            for name in known
        ]


def _named(policy: Policy) -> list[str]:
    roles = (policy.roles[role] for role in _MODEL_ROLES)
    names = (name for own in roles for name in (own.primary, own.fallback) if name is not None)
    return sorted({canonical(name) for name in names})


def _host_knobs(shape: HostShape) -> Iterator[list[Setting]]:
    slots = (n for n in (1, 2, 4, 8) if n != shape.num_parallel)
    yield [Setting("host", {NUM_PARALLEL: n}) for n in slots]
    yield [Setting("host", {MAX_LOADED: n}) for n in (1, 2, 3, 4) if n != shape.max_loaded]


def _line(path: Path, value: Any) -> Setting:
    return Setting("line", {path: value})


def _of(role: Role, **keys: Any) -> Setting:
    return Setting("line", {("roles", str(role), key): value for key, value in keys.items()})


def _wait(role: Role, wait_ms: int) -> Setting:
    if wait_ms > _USUAL_WAIT_MS:
        return _of(role, max_wait_ms=wait_ms, allow_long_wait=True)
    return _of(role, max_wait_ms=wait_ms)


def _model(
    role: Role, own: RolePolicy, name: str | None, *, alone: bool = False
) -> dict[Path, Any]:
    """The keys of another primary; None: the same, and no fallback. ``alone``: neither here."""
    keys: dict[str, Any] = {} if name is None else {"primary": name}
    if name is None or alone or name == own.fallback:
        keys |= {"fallback": None, "fallback_timeout_ms": None}
    return {("roles", str(role), key): value for key, value in keys.items()}
