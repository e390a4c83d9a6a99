"""From recorded calls to demands: what was recorded is kept, what was not is drawn, by a seed.

A call that did not end says how long it was at least; a client that did not leave, how long it
waited at least. What lies beyond is drawn from calls of the same role and model
(``survival``). Nothing is left out because it failed: replaying only what succeeded would
flatter every policy.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.failures import ERRORS, ErrorCode, Reason
from modelsplit_policy.model_names import canonical
from modelsplit_policy.roles import Roles, Route, RouteRequest

from .demand import NO_RETRIES, Demand, Kind, Retries, Shares
from .overlap import stays
from .recorded import TraceError
from .run import Traffic
from .survival import Survival
from .traffic import Coverage, in_turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.host_shape import HostShape

    from .recorded import Recorded
    from .traffic import Source

# A next call of a job that comes later than this after the last one ended is no answer to it.
_THINK_MAX_S: Final = 600.0
# Shares from fewer attempts than these are the whole role's.
_ENOUGH: Final = 20
# A prompt that was read in less than this share of its time was known in part.
_KNOWN_SHARE: Final = 0.7
_FAILED: Final = ("E_UPSTREAM", "E_UNREACHABLE", "E_STREAM_BROKEN")
# An attempt that ended so had not begun to compute.
_COMPUTED_NOTHING: Final = frozenset(
    {Reason.LOAD_TIMEOUT, Reason.CONNECT_REFUSED, Reason.DNS, Reason.UPSTREAM_BUSY}
)


class Behaviour(NamedTuple):
    """How clients behave. ``chained``: whose next call waits for the last: jobs, clients, none."""

    chained: str = "jobs"
    retries: Retries = NO_RETRIES


class RecordedTraffic:
    """Recorded calls, ready to be drawn. ``policy``: by whose names the roles are told."""

    def __init__(
        self,
        calls: Iterable[Recorded],
        policy: Policy,
        shape: HostShape,
        behaviour: Behaviour = Behaviour(),  # noqa: B008 - an immutable tuple
    ) -> None:
        self._shape = shape
        self._behaviour = behaviour
        self._policy = policy
        self._roles = Roles(policy)
        self._left_out: Counter[str] = Counter()
        self._unanswered: Counter[str] = Counter()
        self._calls = self._answered(self._usable(calls))
        if not self._calls:
            why = "none of its calls can be replayed"
            if self._unanswered:
                why += ": none was answered, so nobody knows how long answers are"
            raise TraceError(f"{why}; replay more calls, or a shipped workload (--workload)")
        self._begins = self._calls[0].arrived
        self._seen = _tokens_seen(self._calls, shape)
        self._lengths = self._length_samples()
        self._prompts = _middle_prompts(self._calls)
        self._patience = self._patience_samples()
        self._after = _chains(self._calls, behaviour.chained)
        self.shares = self._all_shares()

    def __repr__(self) -> str:
        return f"<RecordedTraffic {len(self._calls)} calls>"

    def halves(self, calls: int) -> tuple[Source, Source]:
        """The calls in pieces of time, every other piece in each half; TraceError: too few."""
        if len(self._calls) < 2 or self._calls[0].arrived == self._calls[-1].arrived:
            raise TraceError("too few calls to learn from some and to judge by others")
        return in_turn([call.arrived for call in self._calls], calls, self._between)

    def _between(self, begins: float, ends: float) -> RecordedTraffic:
        own = [call for call in self._calls if begins <= call.arrived < ends]
        return RecordedTraffic(own, self._policy, self._shape, self._behaviour)

    def drawn(self, seed: int, load: float = 1.0) -> tuple[Traffic, Coverage]:
        """The demands of one seed, and where they come from.

        ``load``: so many times as often; what a client does between two calls of a job takes
        as long as ever.
        """
        chance = random.Random(f"trace {seed}")
        parts: dict[str, Counter[str]] = defaultdict(Counter)
        demands = [self._demand(n, call, chance, parts) for n, call in enumerate(self._calls)]
        if load != 1.0:
            demands = [replace(demand, at=demand.at / load) for demand in demands]
        seconds = (self._calls[-1].arrived - self._begins) / load
        coverage = Coverage(len(demands), seconds, parts, self._left_out, self._unanswered)
        return Traffic(demands, self.shares, self._behaviour.retries), coverage

    def _usable(self, calls: Iterable[Recorded]) -> list[Recorded]:
        """Those that can be replayed; the others are counted, by why not."""
        usable = []
        for call in calls:
            if call.role is None:
                self._left_out["refused before they had a role"] += 1
            elif not call.requested_model:
                self._left_out["that named no model"] += 1
            elif call.client_retry and self._behaviour.retries.most:
                self._left_out["tried again by a library, as it will here"] += 1
            else:
                usable.append(call)
        return usable

    def _answered(self, calls: Iterable[Recorded]) -> list[Recorded]:
        """Without those of a role none of whose calls tells how long its answers are."""
        calls = list(calls)
        told = {call.role for call in calls if call.embeds or _length(call) is not None}
        self._unanswered.update(str(call.role) for call in calls if call.role not in told)
        return [call for call in calls if call.role in told]

    def _demand(
        self,
        number: int,
        call: Recorded,
        chance: random.Random,
        parts: dict[str, Counter[str]],
    ) -> Demand:
        # Every call takes as many chances, so that one that is recorded moves no other's.
        pace, length, patience = chance.gauss(0, 1), chance.random(), chance.random()
        unfit, failing = (chance.random(), chance.random()), (chance.random(), chance.random())
        tokens = self._tokens(number, call, length, parts["length of the answer"])
        prompt, known = self._prompt(call, parts["prompt"])
        after, think_s = self._after.get(number, (None, 0.0))
        parts["pace"]["drawn" if self._shape.spread else "assumed"] += 1
        parts["arrival"]["recorded" if after is None else "after the call before"] += 1
        return Demand(
            at=call.arrived - self._begins,
            model=call.requested_model,
            output_tokens=tokens,
            prompt_tokens=prompt,
            role=self._header(call),
            patience_s=self._patience_s(call, patience, parts["patience"]),
            client=call.client,
            job=call.job,
            stream=call.stream,
            no_fallback=call.no_fallback,
            max_wait_s=_seconds(call.max_wait_ms),
            timeout_s=_seconds(call.timeout_ms),
            retry_level=call.retry_level,
            schema=call.schema_asked,
            known_tokens=known,
            pace=max(0.5, 1 + pace * self._shape.spread),
            unfit=unfit,
            failing=failing,
            after=after,
            think_s=think_s,
            cloud_s=_cloud_s(call),
        )

    # Whose call.

    def _header(self, call: Recorded) -> str:
        """The role its client asked for in a header; empty: the model's name said it."""
        assert call.role is not None
        if call.route_reason in {"alias", "claim", "default"}:
            return ""
        if call.route_reason == "header":
            return call.role
        route = self._roles.route(RouteRequest(call.requested_model))
        named = isinstance(route, Route) and route.role == call.role
        return "" if named or call.role == "CHAT" else call.role

    # How much there is to do.

    def _tokens(self, number: int, call: Recorded, chance: float, source: Counter[str]) -> int:
        if call.embeds:
            source["recorded"] += 1
            return 0
        length = _length(call)
        if length is not None:
            source["recorded"] += 1
            return length
        least = self._seen.get(number, 0.0)
        for key in (_key(call), call.role):
            sample = self._lengths.get(key)
            if sample is not None and sample.count:
                drawn = sample.draw(chance, least)
                assert drawn is not None
                source["drawn"] += 1
                return round(drawn)
        raise TraceError(
            f"no call of role {call.role} has ended, so nobody knows how long its answers are"
        )

    def _length_samples(self) -> dict[object, Survival]:
        whole: dict[object, list[float]] = defaultdict(list)
        cut: dict[object, list[float]] = defaultdict(list)
        for number, call in enumerate(self._calls):
            if call.embeds:
                continue
            length = _length(call)
            for key in (_key(call), call.role):
                if length is not None:
                    whole[key].append(length)
                elif number in self._seen:
                    cut[key].append(self._seen[number])
        return {key: Survival(whole[key], cut[key]) for key in {*whole, *cut}}

    def _prompt(self, call: Recorded, source: Counter[str]) -> tuple[int, int]:
        """Tokens of the prompt, and how many of them a runner that is not fresh remembers."""
        tokens = call.prompt_tokens
        if tokens is None:
            source["assumed"] += 1
            return self._prompts.get(call.role, 0), 0
        source["recorded"] += 1
        last = call.attempts[-1] if call.attempts else None
        if last is None or last.prompt_ms is None:
            return tokens, 0
        shape = self._shape.of(canonical(last.model))
        whole_ms = shape.prompt_ms + tokens * shape.prompt_ms_per_token
        if not shape.prompt_ms_per_token or last.prompt_ms >= _KNOWN_SHARE * whole_ms:
            return tokens, 0
        read = max(0.0, last.prompt_ms - shape.prompt_ms) / shape.prompt_ms_per_token
        return tokens, tokens - min(tokens, round(read))

    # How long its client waits.

    def _patience_s(self, call: Recorded, chance: float, source: Counter[str]) -> float:
        waited_s = (call.latency_ms or 0.0) / 1000
        if call.left:
            source["recorded"] += 1
            return waited_s
        sample = self._patience.get(call.role)
        if sample is None or not sample.count:
            source["assumed endless"] += 1
            return math.inf
        source["drawn"] += 1
        drawn = sample.draw(chance, waited_s)
        return math.inf if drawn is None else drawn

    def _patience_samples(self) -> dict[str | None, Survival]:
        roles = {call.role for call in self._calls}
        samples = {}
        for role in roles:
            own = [call for call in self._calls if call.role == role]
            waits = [((call.latency_ms or 0.0) / 1000, call.left) for call in own]
            whole = [wait_s for wait_s, left in waits if left]
            cut = [wait_s for wait_s, left in waits if not left]
            samples[role] = Survival(whole, cut, beyond=math.inf)
        return samples

    # How often it goes wrong.

    def _all_shares(self) -> dict[tuple[str, str], Shares]:
        """By role and model: of the attempts that were sent, those that ended so."""
        ended: dict[tuple[str, str], list[_Ended]] = defaultdict(list)
        for call in self._calls:
            for attempt in call.attempts:
                if attempt.dispatched_ms is not None:
                    how = _Ended(attempt.outcome, attempt.reason, call.schema_asked is not False)
                    for model in (canonical(attempt.model), ""):
                        ended[call.role or "", model].append(how)
        models = {*(model for _, model in ended if model), *self._shape.models}
        roles = {role for role, _ in ended}
        shares = {}
        for role in roles:
            for model in models:
                own = ended.get((role, model), [])
                shares[role, model] = _shares(own if len(own) >= _ENOUGH else ended[role, ""])
        return {key: value for key, value in shares.items() if any(value)}


def _length(call: Recorded) -> int | None:
    """Tokens of its answer; None: nobody knows how long a whole one is."""
    return call.output_tokens if call.ok else None


def _key(call: Recorded) -> tuple[str | None, str]:
    model = call.attempts[0].model if call.attempts else call.model or call.requested_model
    return call.role, canonical(model)


def _middle_prompts(calls: Sequence[Recorded]) -> dict[str | None, int]:
    """By role: the median of the prompts' tokens."""
    known: dict[str | None, list[int]] = defaultdict(list)
    for call in calls:
        if call.prompt_tokens is not None:
            known[call.role].append(call.prompt_tokens)
    return {role: sorted(tokens)[len(tokens) // 2] for role, tokens in known.items()}


class _Ended(NamedTuple):
    """How an attempt ended. ``asked``: its answer had to fit a schema, as far as is known."""

    outcome: str
    reason: str | None
    asked: bool

    @property
    def failed(self) -> bool:
        return self.outcome.startswith(_FAILED)


def _shares(ended: Sequence[_Ended]) -> Shares:
    asked = [each for each in ended if each.asked]
    unfit = [each.reason for each in asked if each.outcome == "E_SCHEMA_INVALID"]
    cut = sum(reason == Reason.CUT for reason in unfit)
    failed = [each for each in ended if each.failed]
    of = len(asked) or 1
    return Shares(
        (len(unfit) - cut) / of, len(failed) / len(ended), cut / of, tuple(_kinds(failed))
    )


def _kinds(failed: Sequence[_Ended]) -> Iterator[Kind]:
    """How they failed, the most frequent first; of one without a known reason: with a status."""
    counts = Counter(map(_kind, failed))
    before = 0
    for (code, reason), count in counts.most_common():
        before += count
        yield Kind(code, reason, before / len(failed))


def _kind(ended: _Ended) -> tuple[ErrorCode, Reason]:
    """Told as of a local provider: whose it is, is known when it is replayed."""
    try:
        code = ErrorCode(ended.outcome.replace("_CLOUD", "_LOCAL"))
        reason = Reason(ended.reason or "")
    except ValueError:
        return ErrorCode.UPSTREAM_LOCAL, Reason.STATUS
    known = reason in ERRORS[code].reasons and code is not ErrorCode.STREAM_BROKEN_LOCAL
    return (code, reason) if known else (ErrorCode.UPSTREAM_LOCAL, Reason.STATUS)


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def _cloud_s(call: Recorded) -> float | None:
    if call.role != "CLOUD" or not call.ok or not call.attempts:
        return None
    last = call.attempts[-1]
    if last.ended_ms is None or last.dispatched_ms is None:
        return None
    return (last.ended_ms - last.dispatched_ms) / 1000


def _tokens_seen(calls: Sequence[Recorded], shape: HostShape) -> dict[int, float]:
    """Of calls that were sent and did not end well: at least so many tokens they would have had.

    What was counted, or what the host can have done in the time that it computed for them.
    """
    numbers = {id(call): number for number, call in enumerate(calls)}
    seen: dict[int, float] = {}
    for stay in stays(calls, shape.num_parallel):
        if stay.call.ok or stay.attempt.reason in _COMPUTED_NOTHING:
            continue
        model = shape.of(stay.model)
        alone_s = sum(
            seconds / _slowness(shape, *place) for place, seconds in (stay.company or {}).items()
        )
        prompt_s = model.prompt_ms / 1000
        prompt_s += (stay.call.prompt_tokens or 0) * model.prompt_ms_per_token / 1000
        tokens = max(0.0, alone_s - prompt_s) * 1000 / model.ms_per_token
        number = numbers[id(stay.call)]
        seen[number] = max(seen.get(number, 0.0), tokens, stay.attempt.output_tokens or 0)
    return seen


def _slowness(shape: HostShape, own: int, models: int) -> float:
    """How much longer a call takes beside others: ``own`` of its model, of so many models."""
    if shape.batching is None:
        return shape.slowdown(own + models - 1)
    return shape.slowdown(models) * (1 + shape.batching * (own - 1))


def _chains(calls: Sequence[Recorded], by: str) -> dict[int, tuple[int, float]]:
    """By call: the one of the same job, or client, that its client awaited, and the pause."""
    ended: dict[str, list[tuple[float, int]]] = defaultdict(list)
    after: dict[int, tuple[int, float]] = {}
    for number, call in enumerate(calls):
        key = {"jobs": call.job, "clients": call.client}.get(by, "")
        if not key:
            continue
        before = [entry for entry in ended[key] if entry[0] <= call.arrived]
        if before:
            at, last = max(before)
            if call.arrived - at <= _THINK_MAX_S:
                after[number] = last, call.arrived - at
        ended[key].append((call.arrived + (call.latency_ms or 0.0) / 1000, number))
    return after
