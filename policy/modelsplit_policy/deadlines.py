"""How long an attempt may take: at any moment, which bound ends it, or when to look again.

A role's clock does not run while its model is being loaded: a client that leaves during a
load makes Ollama throw the load away, so ending the wait there would pay for the load and
get nothing. Loading has a bound of its own. It begins when the model is known not to be
loaded and ends when the model is seen to be loaded or the first byte comes, whichever is
seen first; a model of which nothing is known is not being loaded. While Ollama loads one, it
may tell nothing of any.

A model that is loaded may read a long prompt for many minutes, so what bounds the wait for
a first byte where the role has no time of its own is generous. It ends early only where the
upstream is mute: it leaves a question open that needs no model, for ``MUTE_S``. An attempt that
is sent when that has been so for long need not find it out once more.

Moments are seconds of one monotonic clock of the caller's. Nothing here waits: the caller
waits until the moment it is told, for the answer or for nothing, and looks again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.failures import ErrorCode, Failure, Reason, for_provider

if TYPE_CHECKING:
    from modelsplit_policy.vocabulary import Provider

# How soon after it is known that a model is loaded the role's clock starts.
LOOK_EVERY_S: Final = 0.1
# How long a call that is out of time may be kept to ask whether it is being loaded for.
LAST_LOOK_S: Final = 0.5
# How long the question for the upstream's version must go unanswered, and the attempt, if it was
# sent before or soon after; the least that any attempt has is this part of it: 5 s, as long as
# that question is given each time.
MUTE_S: Final = 30.0
_OWN_PART: Final = 1 / 6
# How long the client of an answer that may be held back goes without a sign of life.
PING_S: Final = 15.0
# A bound further away than this needs no timer: waits are woken every few seconds in any case.
FAR_S: Final = 300.0


class Limits(NamedTuple):
    """The bounds of one attempt. Seconds; ``total_at`` is a moment; None: no bound.

    ``total_s``: how long the whole call may take, of which ``total_at`` is the end.
    ``load_s`` 0: the model runs elsewhere and is never loaded here. ``first_byte_s``: how long
    a model that is loaded may take to begin its answer.
    """

    role_s: float | None
    load_s: float
    stall_s: float
    total_at: float | None = None
    total_s: float = 0.0
    first_byte_s: float | None = None

    def seconds(self, reason: Reason) -> float:
        """The number of the bound that fired."""
        return {
            Reason.ROLE_TIMEOUT: self.role_s or 0.0,
            Reason.LOAD_TIMEOUT: self.load_s,
            Reason.FIRST_BYTE_TIMEOUT: self.first_byte_s or 0.0,
            Reason.UPSTREAM_MUTE: MUTE_S,
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
    it. ``stall_s``: the longest silence between two pieces. ``ping_s``: it may be held back,
    and after so long a silence, and every so long, its client is shown that it is waited for.
    """

    deadline: float | None = None
    late: Reason = Reason.ROLE_TIMEOUT
    stall_s: float | None = None
    ping_s: float | None = None

    def next_look(self, last: float, pinged: float = -math.inf) -> float | None:
        """When to look next, if the last piece came at ``last``; None: nothing can end it.

        ``pinged``: when the client was last shown that it is waited for.
        """
        deadline, stall_s = self.deadline, self.stall_s
        if stall_s is None:
            return deadline
        silent_at = last + stall_s
        if self.ping_s is not None:
            silent_at = min(silent_at, max(last, pinged) + self.ping_s)
        return silent_at if deadline is None or silent_at < deadline else deadline

    def pings(self, now: float, last: float, pinged: float) -> bool:
        """Whether it is time to show the client that it is waited for."""
        return self.ping_s is not None and now - max(last, pinged) >= self.ping_s

    def held_back(self, most_s: float) -> Bounds:
        """The same for an answer that may be held back for ``most_s`` seconds."""
        if self.stall_s is None:
            return self
        return self._replace(stall_s=max(self.stall_s, most_s), ping_s=PING_S)

    def ended_by(self, now: float, last: float) -> Reason | None:
        """The bound that has ended it by now, if one has."""
        if self.deadline is not None and now >= self.deadline:
            return self.late
        if self.stall_s is not None and now >= last + self.stall_s:
            return Reason.STALL
        return None


UNBOUNDED: Final = Bounds()
# The bounds of what an upstream that is there might have done in time.
_ITS_OWN: Final = frozenset(
    {
        Reason.ROLE_TIMEOUT,
        Reason.LOAD_TIMEOUT,
        Reason.FIRST_BYTE_TIMEOUT,
        Reason.STALL,
    }
)


class Deadline:
    """The bounds of one attempt that is sent at the moment ``sent``.

    ``loading``: whether its model is being loaded, as far as is known; None before the
    first look.
    """

    __slots__ = ("_begins_by", "_expires", "_limits", "loading", "sent")

    # When the role's clock or the whole call's runs out, and which; by when it must have begun.
    _expires: tuple[float | None, Reason]
    _begins_by: float | None

    def __init__(self, limits: Limits, sent: float) -> None:
        self._limits = limits
        self.sent = sent
        self.loading: bool | None = None if limits.load_s else False
        self._count_from(sent)

    def __repr__(self) -> str:
        return f"<Deadline {self._limits}, {'loading' if self.loading else 'computing'}>"

    def at(self) -> tuple[float | None, Reason]:
        """When the role's clock, or the whole call's, runs out, and which of the two."""
        return self._expires

    def look(
        self,
        now: float,
        loaded: bool | None,
        *,
        asked: bool = False,
        mute_since: float | None = None,
    ) -> Look:
        """What to do while the answer has not begun.

        ``loaded``: what is known of the model: True, False, or None if nothing is.
        ``asked``: that is the answer to a question this attempt asked because it was told so.
        ``mute_since``: since when the upstream has left the question for its version
        unanswered; None: it answers.
        """
        if mute_since is not None:
            mute_at = max(mute_since + MUTE_S, self.sent + _OWN_PART * MUTE_S)
            return self._look_at_mute(now, loaded, asked, mute_at)
        if self.loading is None:
            self.loading = loaded is False
        if self.loading:
            if loaded is not True:
                return self._look_at_load(now)
            self._load_ended(now)
        until = self._begins_by
        if until is None or now < until:
            return Look(until)
        return self._look_when_late(now, loaded, until, asked)

    def begun(self, now: float) -> None:
        """The answer begins: its model is loaded, whoever has seen that or not."""
        if self.loading:
            self._load_ended(now)

    def bounds(self) -> Bounds:
        """What ends the answer once it has begun."""
        return Bounds(*self._expires, self._limits.stall_s)

    def _load_ended(self, now: float) -> None:
        self.loading = False
        self._count_from(now)

    def _count_from(self, now: float) -> None:
        """The role's clock starts, and that for the first byte."""
        role_s, total_at, first_byte_s = (
            self._limits.role_s,
            self._limits.total_at,
            self._limits.first_byte_s,
        )
        until = None if role_s is None else now + role_s
        self._expires = until, Reason.ROLE_TIMEOUT
        if total_at is not None:
            self._expires = _sooner(until, Reason.ROLE_TIMEOUT, total_at)
            until = self._expires[0]
        if first_byte_s is not None and (until is None or now + first_byte_s < until):
            until = now + first_byte_s
        self._begins_by = until

    def _look_when_late(self, now: float, loaded: bool | None, until: float, asked: bool) -> Look:
        """``until`` has passed: the role's bound, the whole call's, or that of the first byte."""
        expires, reason = self._expires
        if expires is None or until < expires:
            reason = Reason.FIRST_BYTE_TIMEOUT
        # What was known when it was sent may be old: ask before giving a load away. Nothing
        # that can be learned changes the whole call's bound, or that of a load.
        if not asked:
            in_time = now < self.sent + self._limits.load_s
            asks = in_time and reason is not Reason.TOTAL_TIMEOUT
            return Look(until, asks=asks, ended_by=None if asks else reason)
        if loaded is not False:
            return Look(until, ended_by=reason)
        self.loading = True
        return self._look_at_load(now)

    def _look_at_mute(self, now: float, loaded: bool | None, asked: bool, mute_at: float) -> Look:
        if now >= mute_at:
            return Look(mute_at, ended_by=Reason.UPSTREAM_MUTE)
        look = self.look(now, loaded, asked=asked)
        if look.ended_by is not None or look.asks:
            return look
        until = mute_at if look.until is None else min(look.until, mute_at)
        return look._replace(until=until)

    def _look_at_load(self, now: float) -> Look:
        limits = self._limits
        load_at = self.sent + limits.load_s
        until, reason = _sooner(load_at, Reason.LOAD_TIMEOUT, limits.total_at)
        assert until is not None
        if now >= until:
            return Look(until, ended_by=reason)
        return Look(min(until, now + LOOK_EVERY_S), hurried=True)


def is_mute(now: float, last: float, mute_since: float | None) -> bool:
    """Whether an answer whose last piece came at ``last`` is held back by one that hangs."""
    return mute_since is not None and now - max(last, mute_since) >= MUTE_S


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


def failure_of(
    reason: Reason,
    limits: Limits,
    *,
    model: str,
    provider: Provider,
    down: bool = False,
    host: str | None = None,
    is_clients: bool = False,
) -> Failure:
    """What a bound that fired amounts to, with its number, and where that stands.

    ``down``: the upstream answers nothing else either. Then it is no matter of this model, and
    asking another one would not help. ``host``: the name of the one of several that was asked.
    ``is_clients``: the client had shortened the role's time.
    """
    bound_s = limits.seconds(reason)
    name = model[:60]
    whose = f"the role's {bound_s:g} s (its timeout in the policy)"
    if is_clients:
        whose = f"the {bound_s:g} s that its client gave it (X-LLM-Timeout-Ms)"
    text = {
        Reason.ROLE_TIMEOUT: f"{name} was not done within {whose}",
        Reason.LOAD_TIMEOUT: f"{name} was not loaded within load_timeout_ms, {bound_s:g} s",
        Reason.TOTAL_TIMEOUT: (
            f"the call was not done within the role's total of {bound_s:g} s (total_timeout_ms)"
        ),
        Reason.FIRST_BYTE_TIMEOUT: (
            f"{name} did not begin its answer within {bound_s:g} s (first_byte_timeout_ms)"
        ),
        # This call may have been sent long after the question that is open.
        Reason.UPSTREAM_MUTE: f"{name} does not answer",
        Reason.STALL: f"{name} fell silent for {bound_s:g} s in the middle of its answer",
    }[reason]
    code = for_provider(ErrorCode.TIMEOUT_LOCAL, provider)
    if (down and reason in _ITS_OWN) or reason is Reason.UPSTREAM_MUTE:
        since = f"for {bound_s:g} s " if reason is Reason.UPSTREAM_MUTE else ""
        reason = Reason.UPSTREAM_MUTE
        who = "Ollama" if host is None else f"Ollama of host {host}"
        text += f", and {since}{who} does not tell its version either: it hangs; restart it"
    elif reason is Reason.STALL:
        text += "; ask again"
    return Failure(code, reason, text, "Upstream Timeout")


def _sooner(
    bound: float | None, reason: Reason, total_at: float | None
) -> tuple[float | None, Reason]:
    if total_at is not None and (bound is None or total_at < bound):
        return total_at, Reason.TOTAL_TIMEOUT
    return bound, reason
