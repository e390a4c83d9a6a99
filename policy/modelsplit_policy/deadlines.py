"""How long an attempt may take: at any moment, which bound ends it, or when to look again.

A role's clock does not run while its model is being loaded: a client that leaves during a
load makes Ollama throw the load away, so ending the wait there would pay for the load and
get nothing. Loading has a bound of its own. It begins when the model is not loaded and
ends when the model is seen to be loaded or the first byte comes, whichever is seen first.

Moments are seconds of one monotonic clock of the caller's. Nothing here waits: the caller
waits until the moment it is told, for the answer or for nothing, and looks again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.failures import ErrorCode, Failure, Reason, for_provider

if TYPE_CHECKING:
    from modelsplit_policy.vocabulary import Provider

# How soon after it is known that a model is loaded the role's clock starts.
LOOK_EVERY_S: Final = 0.1
# How long a call that is out of time may be kept to ask whether it is being loaded for.
LAST_LOOK_S: Final = 0.5


class Limits(NamedTuple):
    """The bounds of one attempt. Seconds; ``total_at`` is a moment; None: no bound.

    ``total_s``: how long the whole call may take, of which ``total_at`` is the end.
    """

    role_s: float | None
    load_s: float
    stall_s: float
    total_at: float | None = None
    total_s: float = 0.0

    def seconds(self, reason: Reason) -> float:
        """The number of the bound that fired."""
        return {
            Reason.ROLE_TIMEOUT: self.role_s or 0.0,
            Reason.LOAD_TIMEOUT: self.load_s,
            Reason.STALL: self.stall_s,
            Reason.TOTAL_TIMEOUT: self.total_s,
        }[reason]


class Look(NamedTuple):
    """What to do now. One of the last two, or wait.

    ``until``: wait for the answer until this moment, then look again; None: wait for it
    however long it takes. ``hurried``: the model is being loaded, and whoever knows what
    is loaded should ask often. ``asks``: ask what is loaded before anything else, then
    look again with ``asked``. ``ended_by``: this bound has ended it.
    """

    until: float | None
    hurried: bool = False
    asks: bool = False
    ended_by: Reason | None = None


class Bounds(NamedTuple):
    """What ends an answer that has begun; None: no bound.

    ``deadline``: the moment by which it must be whole, and ``late`` what it means to miss
    it. ``stall_s``: the longest silence between two pieces.
    """

    deadline: float | None = None
    late: Reason = Reason.ROLE_TIMEOUT
    stall_s: float | None = None

    def next_look(self, last: float) -> float | None:
        """When to look next, if the last piece came at ``last``; None: nothing can end it."""
        deadline, stall_s = self.deadline, self.stall_s
        if stall_s is None:
            return deadline
        silent_at = last + stall_s
        return silent_at if deadline is None or silent_at < deadline else deadline

    def ended_by(self, now: float, last: float) -> Reason | None:
        """The bound that has ended it by now, if one has."""
        if self.deadline is not None and now >= self.deadline:
            return self.late
        if self.stall_s is not None and now >= last + self.stall_s:
            return Reason.STALL
        return None


UNBOUNDED: Final = Bounds()


class Deadline:
    """The bounds of one attempt that is sent at the moment ``sent``.

    ``loading``: whether its model is being loaded, as far as is known; None before the
    first look.
    """

    __slots__ = ("_expires", "_limits", "loading", "sent")

    def __init__(self, limits: Limits, sent: float) -> None:
        self._limits = limits
        self.sent = sent
        self.loading: bool | None = None
        self._expires = self._role_from(sent)

    def __repr__(self) -> str:
        return f"<Deadline {self._limits}, {'loading' if self.loading else 'computing'}>"

    def at(self) -> tuple[float | None, Reason]:
        """When the role's clock, or the whole call's, runs out, and which of the two."""
        return self._expires

    def look(self, now: float, loaded: bool | None, *, asked: bool = False) -> Look:
        """What to do while the answer has not begun.

        ``loaded``: what is known of the model: True, False, or None if nothing is.
        ``asked``: that is the answer to a question this attempt asked because it was told so.
        """
        if self.loading is None:
            self.loading = loaded is False
        if self.loading:
            if loaded is not True:
                return self._look_at_load(now)
            self._load_ended(now)
        until, reason = self._expires
        if until is None or now < until:
            return Look(until)
        # What was known when it was sent may be old: ask before giving a load away. Nothing
        # that can be learned changes the whole call's bound, or that of a load.
        if not asked:
            asks = reason is Reason.ROLE_TIMEOUT and now < self.sent + self._limits.load_s
            return Look(until, asks=asks, ended_by=None if asks else reason)
        if loaded is not False:
            return Look(until, ended_by=reason)
        self.loading = True
        return self._look_at_load(now)

    def begun(self, now: float) -> None:
        """The answer begins: its model is loaded, whoever has seen that or not."""
        if self.loading:
            self._load_ended(now)

    def bounds(self) -> Bounds:
        """What ends the answer once it has begun."""
        return Bounds(*self._expires, self._limits.stall_s)

    def _load_ended(self, now: float) -> None:
        self.loading = False
        self._expires = self._role_from(now)

    def _role_from(self, now: float) -> tuple[float | None, Reason]:
        """When the time is over, if the role's clock counts from ``now``."""
        role_s, total_at = self._limits.role_s, self._limits.total_at
        role_at = None if role_s is None else now + role_s
        if total_at is None:
            return role_at, Reason.ROLE_TIMEOUT
        return _sooner(role_at, Reason.ROLE_TIMEOUT, total_at)

    def _look_at_load(self, now: float) -> Look:
        limits = self._limits
        load_at = self.sent + limits.load_s
        until, reason = _sooner(load_at, Reason.LOAD_TIMEOUT, limits.total_at)
        assert until is not None
        if now >= until:
            return Look(until, ended_by=reason)
        return Look(min(until, now + LOOK_EVERY_S), hurried=True)


def role_bound(own_s: float | None, asked_s: float | None) -> float | None:
    """The role's timeout, or what a client shortened it to. Seconds; None: no bound."""
    if own_s is None or asked_s is None:
        return asked_s if own_s is None else own_s
    return min(own_s, asked_s)


def is_clients(own_s: float | None, asked_s: float | None) -> bool:
    """Whether that bound is the client's and not the role's own."""
    return asked_s is not None and (own_s is None or asked_s < own_s)


def early_head_in(after_s: float, started: float, now: float) -> float:
    """How long until a call that began at ``started`` is given an early head; 0: now."""
    return max(0.0, after_s - (now - started))


def failure_of(reason: Reason, limits: Limits, *, model: str, provider: Provider) -> Failure:
    """What a bound that fired amounts to, with its number."""
    bound_s = limits.seconds(reason)
    name = model[:80]
    text = {
        Reason.ROLE_TIMEOUT: f"{name} was not done within the role's {bound_s:g} s",
        Reason.LOAD_TIMEOUT: f"{name} was not loaded within load_timeout_ms, {bound_s:g} s",
        Reason.TOTAL_TIMEOUT: f"the call was not done within the role's total of {bound_s:g} s",
        Reason.STALL: f"{name} fell silent for {bound_s:g} s in the middle of its answer",
    }[reason]
    code = for_provider(ErrorCode.TIMEOUT_LOCAL, provider)
    return Failure(code, reason, text, "Upstream Timeout")


def _sooner(
    bound: float | None, reason: Reason, total_at: float | None
) -> tuple[float | None, Reason]:
    if total_at is not None and (bound is None or total_at < bound):
        return total_at, Reason.TOTAL_TIMEOUT
    return bound, reason
