"""How the service does, why, and what to do next: the one answer that every page gives.

Facts go in, a verdict comes out. ``/healthz``, ``/stats``, the metric and ``modelsplit status``
show it and judge nothing themselves, so that no two of them can disagree.

- CRITICAL: nobody is served, or one in two is not.
- DEGRADED: something fails, or will with the next call that needs it, and somebody has to mend it.
- A note is no trouble: it is past, or harms nobody yet.

What a client did wrong is no trouble of the service, and a budget that is used up is what the
policy wants.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_policy.health import AWAY, SEVERITY, Level, Signal
from modelsplit_policy.hints import UNIT, Absence, OllamaSteps, asking, not_there, pulling
from modelsplit_policy.vocabulary import Role

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_policy.health import Trouble

# Of so many calls of a role that failed in five minutes, and that share of all, it is told.
_FAILED_MIN: Final = 3
_FAILED_SHARE: Final = 0.1
# And from here on it is critical.
_MANY_MIN: Final = 10
_MANY_SHARE: Final = 0.5
_NOW_S: Final = 60.0
# For how long it is told that trouble is over: as long as its failed calls are.
RECOVERED_S: Final = 300.0
# A call whose model is loaded and that has not begun to answer for so long may never do so.
SILENT_S: Final = 60.0
# A question of whether it is there that Ollama leaves open for so long is told: as a rule it
# answers within milliseconds, and may yet.
UNANSWERED_S: Final = 2.0
# Reasons that are told of one role, and calls of one kind of trouble.
_TOLD_MAX: Final = 3
# What the client did, or its going, and what the policy wants.
_NO_TROUBLE: Final = frozenset(
    {
        ErrorCode.BAD_REQUEST,
        ErrorCode.UNAUTHORIZED,
        ErrorCode.FORBIDDEN,
        ErrorCode.ESCALATION_DENIED,
        ErrorCode.BUDGET_NOT_APPROVED,
        ErrorCode.REQUEST_TOO_LARGE,
        ErrorCode.RATE_LIMITED,
        ErrorCode.LOOP,
        ErrorCode.CLIENT_GONE,
    }
)
# How calls fail where Ollama is away or hangs, which is told already.
_AWAY_REASONS: Final = frozenset(
    {
        *(Reason.CONNECT_REFUSED, Reason.CONNECT_TIMEOUT, Reason.DNS, Reason.RESET),
        *(Reason.TRUNCATED, Reason.UPSTREAM_MUTE, Reason.STALL, Reason.ROLE_TIMEOUT),
        *(Reason.LOAD_TIMEOUT, Reason.TOTAL_TIMEOUT, Reason.FIRST_BYTE_TIMEOUT),
        *(Reason.BREAKER_OPEN, Reason.QUEUE_TIMEOUT, Reason.QUEUE_FULL, Reason.SHED),
    }
)
# And where what answers is no Ollama.
_OTHER_REASONS: Final = _AWAY_REASONS | {
    *(Reason.NO_ANSWER, Reason.STATUS, Reason.UPSTREAM_BUSY, Reason.UNTERMINATED, Reason.PROTOCOL)
}
_AWAY_SIGNALS: Final = AWAY | {Signal.QUEUE, Signal.TIMEOUTS, Signal.SILENCE}
_WANTED: Final = frozenset({Reason.CALLS, Reason.USD, Reason.UPSTREAM_REJECTED, Reason.DRAINING})
# Of what is no trouble, what is nobody's doing but the policy's.
_POLICYS: Final = frozenset(
    {
        *(Reason.CALLS, Reason.USD, Reason.CLIENT_RATE, Reason.CLIENT_CONCURRENCY),
        *(Reason.NO_APPROVAL, Reason.APPROVAL_EXPIRED, Reason.APPROVAL_REVOKED),
        *(Reason.APPROVAL_SPENT, Reason.PRICE_UNKNOWN, Reason.EGRESS_DENIED),
        *(Reason.ROLE_DENIED, Reason.MANAGEMENT_DENIED, Reason.ROLE_CANNOT_ESCALATE),
    }
)


def is_trouble(role: str, code: str, reason: str) -> bool:
    """Whether a call that failed so is the service's failure, and not its client's."""
    if code == ErrorCode.MODEL_NOT_FOUND and role == Role.CHAT:
        return False  # which the client named
    return code not in _NO_TROUBLE and reason not in _WANTED


def refused_by(reason: str) -> str:
    """Whose doing it is, in words, that a call was refused so which is no trouble."""
    if reason == Reason.DRAINING:
        return "a host or modelsplit drains"
    return "as the policy wants" if reason in _POLICYS else "what its clients sent"


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """One role. ``failed``: by reason, of ``calls`` in the last five minutes, as ``is_trouble``.

    ``failed_now``: how many of them in the last minute, and since Ollama is back. ``models``:
    those that the policy names for it, the first one first. ``missing``: which of them are known
    not to be installed. ``unreached``: which of them no host has that answers, and those of several
    hosts that do not answer and may have them. ``past_ollama``: its calls are a cloud's, whether
    Ollama is there or not, and are those of the last five minutes in any case.
    """

    role: Role
    calls: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    failed_now: int = 0
    waiting: int = 0
    max_queue: int = 0
    models: tuple[str, ...] = ()
    missing: frozenset[str] = frozenset()
    unreached: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    past_ollama: bool = False

    @property
    def failures(self) -> int:
        return sum(self.failed.values())

    @property
    def is_dead(self) -> bool:
        """None of its models is there."""
        return bool(self.models) and self.missing.issuperset(self.models)

    @property
    def is_out_of_reach(self) -> bool:
        """None of its models is where somebody answers, and not for want of installing alone."""
        gone = {*self.missing, *self.unreached}
        return bool(self.unreached) and gone.issuperset(self.models)


class Silent(NamedTuple):
    """A call under way whose answer has not begun, though its model is loaded."""

    request_id: str
    role: str
    model: str
    for_s: float


class Recovered(NamedTuple):
    """Trouble that is over: since when, how long it lasted, and what it was, in words.

    ``failed``: the calls that failed meanwhile.
    """

    ago_s: float
    lasted_s: float
    cause: str = ""
    failed: int = 0


class Unbegun(NamedTuple):
    """Calls that were sent and of whose answer no byte has come; the oldest for so long."""

    calls: int
    oldest_s: float


class Keyless(NamedTuple):
    """A cloud of the policy that has no key. ``cause``: a sentence; ``step``: gives it one."""

    cause: str
    step: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known. Errors are in words, empty where there is none.

    ``absence``: how Ollama is not there, where ``upstream_up`` is False. ``steps``: what to type
    about it. ``unanswered``: who leaves an open question of the probe
    unanswered, in words, and for how long. ``away_s``: for how long Ollama has not answered, where
    ``upstream_up`` is False, and ``away_failed``: the calls that have failed since. ``unbegun``
    None: no call waits for its answer to begin. ``returned``: since when Ollama answers again,
    ``recovered``: since when all is well again; None: nothing was wrong. The calls of ``roles``
    are those of the last five minutes, or since Ollama answers again.

    ``troubles``: the Health Guard's, and ``held`` what it only holds on to; ``shed``: whom it
    turns away and why, in words. ``stopped``: what breakers stop, in words; ``all_stopped``: why
    Ollama's own stops all calls to it. ``rivals``: others that ask an Ollama of ours, in words.
    ``copies``: that our state directory is a copy, or was copied, in words.
    ``hosts_away``: those of several hosts that do not answer while others do, in words;
    ``hosts_shut``: all of them, where none takes calls and some are drained. ``lost``: budgets
    whose counts are lost. ``set_aside``: the damaged state file as it is kept. ``is_approved``:
    whether an approval of the cloud is in force. ``asked_at``: where commands ask, and
    ``pulled_at``: where Ollama's own do, where that is not the default.
    """

    upstream: str = ""
    upstream_up: bool | None = True
    upstream_error: str = ""
    absence: Absence = Absence.GONE
    steps: OllamaSteps = UNIT
    unanswered: tuple[tuple[str, float], ...] = ()
    unbegun: Unbegun | None = None
    away_s: float = 0.0
    away_failed: int = 0
    shed: str = ""
    returned: Recovered | None = None
    recovered: Recovered | None = None
    draining: bool = False
    active: int = 0
    troubles: tuple[Trouble, ...] = ()
    held: Trouble | None = None
    roles: tuple[RoleFacts, ...] = ()
    silent: tuple[Silent, ...] = ()
    stopped: tuple[str, ...] = ()
    all_stopped: str = ""
    state_error: str = ""
    state_directory: str = ""
    shared_error: str = ""
    shared_step: str = ""
    rivals: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    hosts_away: tuple[str, ...] = ()
    hosts_shut: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    set_aside: str = ""
    records_lost: int = 0
    tasks_error: str = ""
    keyless: tuple[Keyless, ...] = ()
    is_approved: bool = False
    asked_at: str = ""
    pulled_at: str = ""


class Cause(NamedTuple):
    """One thing that is wrong. ``step``: a command that shows more of it, or mends it."""

    level: Level
    text: str
    step: str


class Note(NamedTuple):
    """One thing to know. ``step``: as of a cause; empty: nothing need be done."""

    text: str
    step: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``causes``: the worst first; none: all is well."""

    causes: tuple[Cause, ...]
    notes: tuple[Note, ...]

    @property
    def level(self) -> Level:
        return self.causes[0].level if self.causes else Level.OK

    @property
    def cause(self) -> str:
        """The first of its causes; empty: there is none."""
        return self.causes[0].text if self.causes else ""

    @property
    def step(self) -> str:
        """What to do next; empty: nothing."""
        steps = (*(cause.step for cause in self.causes), *(note.step for note in self.notes))
        return next(filter(None, steps), "")


def judge(facts: Facts) -> Verdict:
    """The verdict on these facts."""
    causes = sorted(_causes(facts), key=lambda cause: -SEVERITY[cause.level])
    notes = (*_no_answer(facts), *_over(facts, is_well=not causes), *_notes(facts))
    return Verdict(tuple(causes), notes)


def _causes(facts: Facts) -> Iterator[Cause]:
    """In the order in which they explain each other: the first of the worst is told first."""
    running = asking("modelsplit requests --outcome running", facts.asked_at)
    if facts.draining:
        count = f"{facts.active} request{'' if facts.active == 1 else 's'}"
        text = f"it drains: {count} being answered, new ones are refused"
        yield Cause(Level.CRITICAL, text, running)
    if facts.upstream_up is False:
        text = not_there(facts.upstream, facts.absence, facts.upstream_error)
        yield Cause(Level.CRITICAL, text, facts.steps.against(facts.absence))
    if facts.hosts_shut:
        text = f"no host takes calls: {', '.join(facts.hosts_shut)}"
        yield Cause(Level.CRITICAL, text, asking("modelsplit host list", facts.asked_at))
    yield from _of_models(facts)
    yield from _of_state(facts)
    for silent in () if facts.upstream_up is False else facts.silent[:_TOLD_MAX]:
        text = (
            f"a call of {silent.role} has had no answer from {silent.model} for "
            f"{silent.for_s:.0f} s: it may hang"
        )
        step = asking(f"modelsplit requests {silent.request_id}", facts.asked_at)
        yield Cause(Level.DEGRADED, text, step)
    yield from _of_guard(facts)
    for role in facts.roles:
        yield from _of_role(facts, role)
    for cloud in facts.keyless if facts.is_approved else ():
        yield Cause(Level.DEGRADED, cloud.cause, cloud.step)
    if facts.tasks_error:
        yield Cause(Level.DEGRADED, facts.tasks_error, "journalctl -u modelsplit -n 50")


def _of_models(facts: Facts) -> Iterator[Cause]:
    """Roles whose first model is not installed, or on no host that answers.

    All at once where none has one that is installed. Nothing while Ollama does not answer: nobody
    can install one then.
    """
    if facts.upstream_up is False:
        return
    alive = any(role.models and not (role.is_dead or role.is_out_of_reach) for role in facts.roles)
    yield from _of_reach(facts, Level.DEGRADED if alive else Level.CRITICAL)
    dead = [role for role in facts.roles if role.is_dead]
    if len(dead) > 1 and all(role.is_dead for role in facts.roles if role.models):
        names = ", ".join(dict.fromkeys(model for role in dead for model in role.models))
        first = dict.fromkeys(role.models[0] for role in dead)
        text = f"no role can be served: none of their models is installed ({names})"
        yield Cause(Level.CRITICAL, text, pulling(first, facts.pulled_at))
        return
    for role in facts.roles:
        if role.is_dead:
            absent = f"{role.models[0]} is not installed"
            if len(role.models) > 1:
                absent = f"neither {' nor '.join(role.models)} is installed"
            level = Level.DEGRADED if alive else Level.CRITICAL
            text = f"{role.role} cannot be served: {absent}"
            yield Cause(level, text, pulling(role.models, facts.pulled_at))
        elif role.models and role.models[0] in role.missing and not role.is_out_of_reach:
            text = f"{role.role}: {role.models[0]} is not installed, only its fallback answers"
            yield Cause(Level.DEGRADED, text, pulling(role.models[:1], facts.pulled_at))


def _of_reach(facts: Facts, level: Level) -> Iterator[Cause]:
    """Roles whose models are on hosts that do not answer, while another does."""
    if facts.hosts_shut:
        return
    step = asking("modelsplit host list", facts.asked_at)
    for role in facts.roles:
        if role.is_out_of_reach:
            text = f"{role.role} cannot be served: {_afar(role, tuple(role.unreached))}"
            yield Cause(level, text, step)
        elif role.models[:1] and role.models[0] in role.unreached:
            text = f"{role.role}: {_afar(role, role.models[:1])}, only its fallback answers"
            yield Cause(Level.DEGRADED, text, step)


def _afar(role: RoleFacts, models: tuple[str, ...]) -> str:
    """Of models on no host that answers, who does not."""
    hosts = dict.fromkeys(host for model in models for host in role.unreached[model])
    are = "is" if len(models) == 1 else "are"
    do = "does" if len(hosts) == 1 else "do"
    return f"{', '.join(models)} {are} on no host that answers ({', '.join(hosts)} {do} not)"


def _of_state(facts: Facts) -> Iterator[Cause]:
    if facts.state_error:
        step = f"df -h {facts.state_directory}"
        yield Cause(Level.DEGRADED, f"the state file: {facts.state_error}", step)
    if facts.shared_error:
        text = f"calls that budgets count are refused: the shared Redis: {facts.shared_error}"
        yield Cause(Level.DEGRADED, text, facts.shared_step)
    for rival in facts.rivals:
        yield Cause(Level.DEGRADED, rival, asking("modelsplit config show", facts.asked_at))
    for copy in facts.copies:
        yield Cause(Level.DEGRADED, copy, asking("modelsplit budget show", facts.asked_at))
    if facts.lost:
        names = ", ".join(facts.lost)
        text = f"the state file was damaged, so budgets are taken as used up: {names}"
        step = 'modelsplit budget reset --reason "the state file was damaged"'
        yield Cause(Level.DEGRADED, text, asking(step, facts.asked_at))


def _of_guard(facts: Facts) -> Iterator[Cause]:
    """What the Health Guard says, unless it is told already, or over."""
    for trouble in facts.troubles:
        if not _is_told(facts, trouble):
            yield Cause(trouble.level, _stopped(facts, trouble), _guards_step(facts, trouble))
    held = facts.held
    if held is not None and held.signal not in AWAY and not _is_told(facts, held):
        text = f"better only since a moment ago: {held.cause}"
        yield Cause(held.level, text, _guards_step(facts, held))


def _guards_step(facts: Facts, trouble: Trouble) -> str:
    """What shows more of it: the machine that is busy, those who run, or the calls that failed."""
    if trouble.signal is Signal.LAG:
        return "top"
    is_now = trouble.signal in {Signal.QUEUE, Signal.SILENCE}
    which = "--outcome running" if is_now else "--failed --since 5m"
    return asking(f"modelsplit requests {which}", facts.asked_at)


def _is_told(facts: Facts, trouble: Trouble) -> bool:
    """Whether that Ollama is there, or is not, tells it: that is known at once."""
    if facts.upstream_up is False:
        return trouble.signal in _AWAY_SIGNALS
    return trouble.signal is Signal.UPSTREAM


def _stopped(facts: Facts, trouble: Trouble) -> str:
    """Of a breaker, whose it is and why."""
    if trouble.signal is Signal.MODEL_BREAKERS and facts.stopped:
        return f"calls are stopped: {'; '.join(facts.stopped[:_TOLD_MAX])}"
    if trouble.signal is Signal.PROVIDER_BREAKER and facts.all_stopped:
        return f"calls to Ollama are stopped: {facts.all_stopped}"
    return trouble.cause


def _of_role(facts: Facts, role: RoleFacts) -> Iterator[Cause]:
    if role.max_queue and role.waiting >= role.max_queue:
        text = f"{role.role}'s line is full: {role.waiting} of {role.max_queue} wait"
        step = f"modelsplit requests --role {role.role} --outcome running"
        yield Cause(Level.DEGRADED, text, asking(step, facts.asked_at))
    is_told = _tells_failures(facts, role)
    if role.failed_now and _fails(role) and not (is_told or _lacked_models(role)):
        many = role.failures >= _MANY_MIN and role.failures >= _MANY_SHARE * role.calls
        level = Level.CRITICAL if many else Level.DEGRADED
        yield Cause(level, _failed(facts, role), _failed_step(facts, role))


def _tells_failures(facts: Facts, role: RoleFacts) -> bool:
    """Whether another cause tells why all of its failed calls failed."""
    if facts.upstream_up is False and not role.past_ollama:
        reasons = _OTHER_REASONS if facts.absence is Absence.OTHER else _AWAY_REASONS
        return reasons.issuperset(role.failed)
    return role.is_dead and {Reason.NOT_INSTALLED}.issuperset(role.failed)


def _lacked_models(role: RoleFacts) -> bool:
    """Whether all that failed of it failed for want of models, which are there now."""
    is_there = bool(role.models) and not (role.missing or role.unreached)
    return is_there and {Reason.NOT_INSTALLED}.issuperset(role.failed)


def _fails(role: RoleFacts) -> bool:
    return role.failures >= _FAILED_MIN and role.failures >= _FAILED_SHARE * role.calls


def _failed(facts: Facts, role: RoleFacts) -> str:
    reasons = sorted(role.failed.items(), key=lambda item: -item[1])
    told = ", ".join(f"{reason} {count}" for reason, count in reasons[:_TOLD_MAX])
    if len(reasons) > _TOLD_MAX:
        told += ", …"
    back = None if role.past_ollama else facts.returned
    span = "since Ollama is back" if back and back.ago_s < RECOVERED_S else "in the last 5 min"
    return f"{role.role}: {role.failures} of {role.calls} calls failed {span} ({told})"


def _failed_step(facts: Facts, role: RoleFacts) -> str:
    return asking(f"modelsplit requests --role {role.role} --failed --since 5m", facts.asked_at)


def _no_answer(facts: Facts) -> Iterator[Note]:
    """That Ollama has not answered for a while, and whom that holds up."""
    if facts.upstream_up is False:
        told = [f"Ollama has not answered for {_time(facts.away_s)}"]
        if facts.away_failed:
            told.append(f"{_calls(facts.away_failed)} failed since")
        told += _held_up(facts)
        yield Note("; ".join(told))
        return
    for who, asked_s in _unanswered(facts):
        told = [f"{who} has not answered the probe for {_time(asked_s)}", *_held_up(facts)]
        yield Note("; ".join(told), facts.steps.look)


def _unanswered(facts: Facts) -> list[tuple[str, float]]:
    return [(who, asked_s) for who, asked_s in facts.unanswered if asked_s >= UNANSWERED_S]


def _held_up(facts: Facts) -> Iterator[str]:
    if facts.unbegun is not None:
        calls, oldest_s = facts.unbegun
        verb = "has" if calls == 1 else "have"
        yield f"{_calls(calls)} {verb} had no byte of an answer, the oldest for {_time(oldest_s)}"


def _over(facts: Facts, *, is_well: bool) -> Iterator[Note]:
    """That trouble is over, and how long it was."""
    recovered, returned = facts.recovered, facts.returned
    if _unanswered(facts):
        return  # whether all is well is not known
    if is_well and recovered is not None and recovered.ago_s < RECOVERED_S:
        over = recovered
        text = f"all is well since {_time(over.ago_s)} ago; before, for "
        text += f"{_time(over.lasted_s)}: {over.cause}"
    elif returned is not None and facts.upstream_up and returned.ago_s < RECOVERED_S:
        over = returned
        text = f"Ollama answers again since {_time(over.ago_s)} ago; before, for "
        text += f"{_time(over.lasted_s)}, it did not"
    else:
        return
    yield Note(text + f"; {_calls(over.failed)} failed meanwhile" * bool(over.failed))


def _calls(count: int) -> str:
    return f"{count} call{'' if count == 1 else 's'}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _fallback_afar(facts: Facts, role: RoleFacts) -> Iterator[Note]:
    afar = tuple(model for model in role.models[1:] if model in role.unreached)
    first = role.models[:1]
    is_told = facts.upstream_up is False or bool(facts.hosts_shut)
    if afar and not is_told and not {*role.missing, *role.unreached}.issuperset(first):
        text = f"{role.role} has no fallback: {_afar(role, afar)}"
        yield Note(text, asking("modelsplit host list", facts.asked_at))


def _failed_before(facts: Facts, role: RoleFacts) -> Iterator[Note]:
    """That calls of a role failed, of what is over."""
    if not _fails(role) or _tells_failures(facts, role):
        return
    if not role.failed_now:
        text = f"{_failed(facts, role)}, none in the last minute"
        yield Note(text, _failed_step(facts, role))
    elif _lacked_models(role):
        text = f"{_failed(facts, role)}; its models are installed now"
        yield Note(text, _failed_step(facts, role))


def _notes(facts: Facts) -> Iterator[Note]:
    for role in facts.roles:
        absent = [model for model in role.models[1:] if model in role.missing]
        is_away = facts.upstream_up is False
        if absent and not (is_away or role.is_dead) and role.models[0] not in role.missing:
            text = f"{role.role} has no fallback: {absent[0]} is not installed"
            yield Note(text, pulling(absent, facts.pulled_at))
        yield from _fallback_afar(facts, role)
        yield from _failed_before(facts, role)
    for cloud in () if facts.is_approved else facts.keyless:
        # Nothing may leave, so nobody misses it yet.
        yield Note(cloud.cause, cloud.step)
    for host in () if facts.hosts_shut else facts.hosts_away:
        step = asking("modelsplit host list", facts.asked_at)
        yield Note(f"host {host}; its calls go to the others", step)
    if facts.shed:
        step = asking("modelsplit requests --failed --since 5m", facts.asked_at)
        yield Note(f"so that others are served, {facts.shed}", step)
    if facts.set_aside:
        yield Note(f"the state file was damaged at the start: it is kept as {facts.set_aside}")
    if facts.records_lost:
        yield Note(f"{facts.records_lost} records of calls are lost; the log says which and why")
