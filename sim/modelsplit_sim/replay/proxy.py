"""A proxy in virtual time: the policy's own code decides, asked in the process's order.

Roles, experiments, the limits on clients, breakers, budgets, admission and what it learns, what
is known of loaded models, deadlines, second attempts and the Health Guard are the code that
decides in production. Only time, sockets and the machine are made up. What a policy cannot see
is left out: that a client's body is malformed, that a model is not installed.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Final

from modelsplit_policy import admission as seats
from modelsplit_policy.attempts import (
    BEFORE_A_SEAT,
    BEFORE_SENDING,
    Ask,
    Check,
    Tell,
    Tried,
    first_step,
    next_step,
    retries_at_once,
    wait_left_s,
    worth_asking,
)
from modelsplit_policy.blame import Circumstances
from modelsplit_policy.breaker import Breakers
from modelsplit_policy.breaker import rules_of as breaker_rules
from modelsplit_policy.budgets import Budgets, Charge, Reservation, nano
from modelsplit_policy.call import Event, State
from modelsplit_policy.deadlines import (
    LAST_LOOK_S,
    Deadline,
    Limits,
    failure_of,
    is_clients,
    role_bound,
)
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.model_names import ModelNames, canonical
from modelsplit_policy.parallelism import Report
from modelsplit_policy.prices import Prices, cost_usd
from modelsplit_policy.roles import Providers, Roles, RouteRequest
from modelsplit_policy.tickets import Place, Ticket
from modelsplit_policy.vocabulary import Provider

from . import chance
from .attempt import AttemptRun, CallRun
from .client_limits import ClientLimits
from .demand import Shares
from .watch import HealthLooks, LoadedModelsPoll

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from modelsplit_policy.breaker import Allowed
    from modelsplit_policy.config.model import Policy, RolePolicy
    from modelsplit_policy.roles import Route
    from modelsplit_policy.vocabulary import Host
    from modelsplit_sim.virtual_host import VirtualHost, Work

    from .line import Line
    from .timeline import Timeline

# The process's default for silence inside a stream.
_STALL_S: Final = 60.0
_NONE: Final = Shares()
# What a cloud takes for a token, where nothing was recorded.
_CLOUD_S_PER_TOKEN: Final = 0.015

_BUSY: Final = Failure(
    ErrorCode.OVERLOAD_THROTTLED,
    Reason.UPSTREAM_BUSY,
    "Ollama's own queue is full; retry in 1 s",
    "Upstream Busy",
    retry_after_s=1,
)
_DIED: Final = Failure(
    ErrorCode.UPSTREAM_LOCAL, Reason.RUNNER_FAILED, "the model's runner died", "Upstream Failed"
)
_SPENT: Final = Failure(
    ErrorCode.BUDGET_EXHAUSTED, Reason.CALLS, "the budget has no room", "Budget Exhausted"
)


class VirtualProxy:
    """One process with one policy before its hosts.

    ``told``: called with each call that has ended. ``shares``: by role and model, how often an
    answer does not fit or the upstream fails. ``installed``: models, besides those of the policy.
    ``line``: lets calls in instead of admission, which then has nothing to do.
    """

    def __init__(
        self,
        policy: Policy,
        hosts: Mapping[Host, VirtualHost],
        timeline: Timeline,
        shares: Mapping[tuple[str, str], Shares],
        installed: Iterable[str],
        told: Callable[[CallRun], None],
        line: Line | None = None,
    ) -> None:
        self._policy = policy
        self._hosts = hosts
        self._first = next(iter(hosts))
        self._timeline = timeline
        self._shares = shares
        self._told = told
        self._roles = Roles(policy)
        self._names = ModelNames()
        # By model and role, and by model and provider: asked several times for each call.
        self._provider = cache(Providers(policy).of)
        self._price = cache(Prices(policy).of)
        self.admission = seats.from_policy(policy)
        self._line: Line = self.admission if line is None else line
        self.breakers = Breakers(breaker_rules(policy.breakers))
        self.budgets = Budgets(policy.budgets)
        self._clients = ClientLimits(policy.clients)
        named = {m for row in policy.roles.values() for m in (row.primary, row.fallback) if m}
        models = {*map(canonical, named), *installed}
        for host in hosts.values():
            models |= {*host.shape.models, *host.loaded}
        self._polls = {
            name: LoadedModelsPoll(host, timeline, sorted(models), partial(self._loaded, name))
            for name, host in hosts.items()
        }
        self.health = HealthLooks(policy, self.admission, self.breakers, timeline)
        self._by_ticket: dict[Ticket, AttemptRun] = {}
        self._look_at: float | None = None

    def __repr__(self) -> str:
        return f"<VirtualProxy {self.admission!r} at {self._timeline.now:.3f}>"

    def start(self) -> None:
        """Begin to watch."""
        for poll in self._polls.values():
            poll.ask()
        if self._line is self.admission:
            self.health.look()

    # What happens to a call.

    def arrive(self, call: CallRun) -> None:
        demand = call.demand
        route = self._route(call)
        if isinstance(route, Failure):
            self._end(call, route)
            return
        call.route = route
        refused = self._clients.enter(demand.client)
        if refused is None:
            call.has_client_seat = True
            refused = self._clients.arrive(demand.client, self._timeline.now)
        if refused is not None:
            self._end(call, refused)
            return
        row = self._policy.roles[route.role]
        call.candidates = worth_asking(
            route,
            prefers_resident=row.prefer_resident_fallback,
            loaded=self._is_loaded,
            has_room=lambda model: self._spent(self._charge(call, model)) is None,
            unable=lambda _: None,
        )
        if call.candidates is not route.candidates:
            call.route = route._replace(starts_at_fallback=True)
        self._begin(call, first_step(call.candidates))

    def leave(self, call: CallRun) -> None:
        """Its client has left; harmless for a call that has ended."""
        if call.ended is not None:
            return
        call.gone = True
        call.state.step(Event.CLIENT_GONE)
        if call.attempts and not call.attempts[-1].over:
            attempt = call.attempts[-1]
            self._settle(attempt, None)
            self._close(attempt)
            self._give_seat(attempt)
        self._release(call)
        self._end(call, None)

    def begun(self, work: Work) -> None:
        """The first token of a stream has come."""
        attempt: AttemptRun = work.payload
        if not attempt.over:
            self._begins(attempt)
            call = attempt.call
            call.state.step(Event.COMMIT)
            at = attempt.deadline.bounds().deadline
            if at is not None:
                self._timeline.at(at, self._late_in_stream, attempt)

    def done(self, work: Work) -> None:
        """The answer is whole."""
        attempt: AttemptRun = work.payload
        if attempt.over:
            return
        if attempt.provider is Provider.LOCAL:
            host, known = self._hosts[attempt.host], self._polls[attempt.host].known
            attempt.answered = answered = host.report(work)
            assert work.begun is not None
            attempt.upstream_wait_s = max(0.0, work.begun - work.sent - work.load_s)
            host.leave(work)
            if not answered.load_s and known.known.get(attempt.model) is False:
                known.answered(attempt.model, answered.load_s)
        if attempt.begun is None:
            self._begins(attempt)
        failure = self._judged(attempt)
        if failure is None:
            self._complete(attempt)
        elif attempt.call.state.state is State.STREAMING:
            self._break(attempt, failure)
        else:
            self._set_back(attempt, failure)

    def crashed(self, work: Work) -> None:
        """The runner died under it."""
        attempt: AttemptRun = work.payload
        if attempt.over:
            return
        if attempt.call.state.state is State.STREAMING:
            code = ErrorCode.STREAM_BROKEN_LOCAL
            self._break(attempt, Failure(code, Reason.RUNNER_FAILED, _DIED.message, _DIED.phrase))
        else:
            self._set_back(attempt, _DIED)

    def passed(self) -> None:
        """Time has passed."""
        for poll in self._polls.values():
            poll.look()

    # 1. Routing.

    def _route(self, call: CallRun) -> Route | Failure:
        demand = call.demand
        return self._roles.route(
            RouteRequest(
                model=demand.model,
                role=demand.role,
                retry_level=demand.retry_level,
                no_fallback=demand.no_fallback,
                job=demand.job,
                client=demand.client,
                request=str(call.number),
            )
        )

    # 2. A seat.

    def _begin(self, call: CallRun, ask: Ask) -> None:
        role, now = call.route.role, self._timeline.now
        model = self._names.canonical(ask.candidate.model)
        attempt = AttemptRun(call, ask, model, self._provider(model, role), now)
        call.attempts.append(attempt)
        checks: dict[Check, Callable[[], Failure | None]] = {
            Check.BREAKER: lambda: self._stopped(attempt),
            Check.BUDGET: lambda: self._spent(self._charge(call, model)),
            Check.SEAT: lambda: self._seat(attempt, ask),
        }
        for check in BEFORE_A_SEAT:
            refused = checks[check]()
            if refused is not None:
                self._release(call)
                self._set_back(attempt, refused)
                return
        assert attempt.ticket is not None
        # One that stood in line may have been seated, and sent, as the one before gave way.
        if attempt.ticket.place is Place.SEATED and attempt.seated is None:
            self._dispatch(attempt)
        self._fill()

    def _seat(self, attempt: AttemptRun, ask: Ask) -> Failure | None:
        call, row, now = attempt.call, self._row(attempt.call), self._timeline.now
        most_ms = min(row.max_wait_ms, row.total_timeout_ms or row.max_wait_ms)
        attempt.ticket = ticket = Ticket(
            call.route.role,
            attempt.model,
            now,
            client=call.demand.client,
            max_wait_s=wait_left_s(most_ms / 1000, call.demand.max_wait_s, ask.waited_s),
            max_hold_s=float("inf") if row.max_hold_ms is None else row.max_hold_ms / 1000,
            front=ask.front,
        )
        refused = self._line.ask(ticket, now)
        if ticket.place is Place.WAITING:
            self._by_ticket[ticket] = attempt
            if call.state.state is State.PENDING:
                call.state.step(Event.ENQUEUE)
            self._timeline.at(now + ticket.due_in_s, self._due, ticket)
            self._timeline.at(now + ticket.max_wait_s, self._wait_ends, attempt)
            self._fill()
        self._release(call)
        return refused

    def _due(self, ticket: Ticket) -> None:
        if ticket.place is Place.WAITING:
            self._line.due(ticket)
            self._fill()

    def _wait_ends(self, attempt: AttemptRun) -> None:
        ticket = attempt.ticket
        if attempt.over or ticket is None or ticket.place is not Place.WAITING:
            return
        now = self._timeline.now
        self._set_back(attempt, self._line.refusal(Reason.QUEUE_TIMEOUT, ticket, now))

    def _fill(self) -> None:
        for ticket in self._line.fill(self._timeline.now):
            attempt = self._by_ticket.pop(ticket)
            self._dispatch(attempt)
        at = self._line.look_at
        if at is not None and at != self._look_at:
            self._look_at = at
            self._timeline.at(at, self._look_again, at)

    def _look_again(self, at: float) -> None:
        if at == self._look_at:
            self._look_at = None
            self._fill()

    def _loaded(self, host: Host) -> None:
        known = self._polls[host].known
        if self._line is self.admission:
            self.admission.note_loaded(known.known, host, on_gpu=known.on_gpu)
        else:
            self._line.note_loaded(known.known)
        self._fill()

    def _is_loaded(self, model: str) -> bool | None:
        """Whether any host has it; None: nobody knows."""
        known = [poll.known.loaded(model) for poll in self._polls.values()]
        return True if True in known else (None if None in known else False)

    # 3. The exchange.

    def _dispatch(self, attempt: AttemptRun) -> None:
        call, now = attempt.call, self._timeline.now
        attempt.seated = now
        call.state.step(Event.ADMIT)
        checks: dict[Check, Callable[[], Failure | None]] = {
            Check.BUDGET: lambda: self._reserve(attempt),
            Check.BREAKER: lambda: self._admit(attempt),
        }
        for check in BEFORE_SENDING:
            refused = checks[check]()
            if refused is not None:
                self._set_back(attempt, refused)
                return
        attempt.limits = self._limits(attempt)
        attempt.deadline = Deadline(attempt.limits, now)
        failed = self._fails(attempt)
        if failed is not None and failed.reason in chance.UNSENT:
            self._set_back(attempt, failed)
            return
        if attempt.provider is Provider.CLOUD:
            self._send_to_cloud(attempt)
        elif not self._send(attempt):
            self._set_back(attempt, _BUSY)
            return
        self._look(attempt)

    def _send(self, attempt: AttemptRun) -> bool:
        demand, row = attempt.call.demand, self._row(attempt.call)
        bounds = [n for n in (row.max_num_predict, row.num_predict) if n is not None]
        seated = None if attempt.ticket is None else attempt.ticket.host
        attempt.host = self._first if seated is None else seated
        host = self._hosts[attempt.host]
        attempt.work = work = host.work(
            attempt.model,
            min((demand.output_tokens, *bounds)),
            demand.pace,
            attempt,
            prompt_tokens=demand.prompt_tokens,
            known_tokens=demand.known_tokens,
        )
        work.streams = demand.stream
        return host.send(work)

    def _send_to_cloud(self, attempt: AttemptRun) -> None:
        demand = attempt.call.demand
        takes_s = demand.cloud_s
        if takes_s is None:
            takes_s = demand.output_tokens * _CLOUD_S_PER_TOKEN
        self._timeline.at(self._timeline.now + takes_s, self._cloud_done, attempt)

    def _cloud_done(self, attempt: AttemptRun) -> None:
        if not attempt.over:
            self._begins(attempt)
            failure = self._judged(attempt)
            if failure is None:
                self._complete(attempt)
            else:
                self._set_back(attempt, failure)

    def _limits(self, attempt: AttemptRun) -> Limits:
        row, call = self._row(attempt.call), attempt.call
        load_s = self._policy.load_timeout_ms / 1000
        own_s, asked_s = attempt.candidate.timeout_s, call.demand.timeout_s
        if is_clients(own_s, asked_s):
            call.circumstances = Circumstances(deadline_was_clients=True)
        limits = Limits(
            role_bound(own_s, asked_s),
            0.0 if attempt.provider is Provider.CLOUD else load_s,
            _STALL_S,
            first_byte_s=row.first_byte_timeout_ms / 1000,
        )
        total_ms = row.total_timeout_ms
        if total_ms is None:
            return limits
        total_s = total_ms / 1000
        return limits._replace(total_at=call.arrived + total_s, total_s=total_s)

    def _look(self, attempt: AttemptRun, *, asked: bool = False) -> None:
        """Whoever waits for an answer looks whether a bound has ended it."""
        if attempt.over or attempt.begun is not None:
            return
        now, poll = self._timeline.now, self._polls[attempt.host]
        loaded = poll.known.loaded(attempt.model)
        look = attempt.deadline.look(now, loaded, asked=asked)
        if look.asks:
            if not poll.answers():
                self._timeline.at(now + LAST_LOOK_S, self._last_look, attempt)
                return
            poll.ask()
            loaded = poll.known.loaded(attempt.model)
            look = attempt.deadline.look(now, loaded, asked=True)
        self._hurry(attempt, hurries=look.hurried)
        if look.ended_by is not None:
            self._late(attempt, look.ended_by)
        elif look.until is not None:
            self._timeline.at(look.until, self._look, attempt)

    def _last_look(self, attempt: AttemptRun) -> None:
        self._look(attempt, asked=True)

    def _hurry(self, attempt: AttemptRun, *, hurries: bool) -> None:
        if hurries and not attempt.hurries:
            attempt.hurries = True
            self._polls[attempt.host].hurry()
        elif not hurries and attempt.hurries:
            attempt.hurries = False
            self._polls[attempt.host].relax()

    def _begins(self, attempt: AttemptRun) -> None:
        """The answer begins."""
        now = self._timeline.now
        attempt.begun = now
        self._hurry(attempt, hurries=False)
        attempt.deadline.begun(now)
        if attempt.ticket is not None:
            self._line.first_byte(attempt.ticket, now)
        if attempt.allowed is not None:
            self.breakers.reached(attempt.allowed, now)

    def _judged(self, attempt: AttemptRun) -> Failure | None:
        """What is wrong with an answer that is whole."""
        call = attempt.call
        failed = self._fails(attempt)
        shares, row, demand = self._shares_of(attempt), self._row(call), call.demand
        if failed is not None:
            return failed
        asks = demand.schema
        if asks is None:
            asks = call.checked or shares.unfit + shares.cut > 0
        call.checked = row.validate_output and asks
        unfit = chance.unfit(shares, demand.unfit[attempt.number]) if call.checked else None
        if unfit is None:
            return None
        call.unfit = True
        return None if demand.stream and row.on_stream == "observe" else unfit

    def _fails(self, attempt: AttemptRun) -> Failure | None:
        """How the upstream fails it by itself; None: it does not."""
        shares, chances = self._shares_of(attempt), attempt.call.demand.failing
        return chance.failing(shares, chances[attempt.number], attempt.provider)

    def _shares_of(self, attempt: AttemptRun) -> Shares:
        return self._shares.get((attempt.call.route.role, attempt.model), _NONE)

    def _late(self, attempt: AttemptRun, reason: Reason) -> None:
        self._set_back(attempt, self._failure_of(attempt, reason))

    def _late_in_stream(self, attempt: AttemptRun) -> None:
        if attempt.over:
            return
        reason = attempt.deadline.bounds().ended_by(self._timeline.now, self._timeline.now)
        if reason is not None:
            self._break(attempt, self._failure_of(attempt, reason))

    def _failure_of(self, attempt: AttemptRun, reason: Reason) -> Failure:
        return failure_of(
            reason, attempt.limits, model=attempt.candidate.model, provider=attempt.provider
        )

    # 4. How attempts end.

    def _complete(self, attempt: AttemptRun) -> None:
        call = attempt.call
        if call.state.state is State.DISPATCHED:
            call.state.step(Event.COMMIT)
        call.state.step(Event.FINISH)
        call.unfit = False
        self._settle(attempt, None)
        self._close(attempt)
        answered = attempt.answered
        report = None if answered is None else Report(*answered)
        self._give_seat(attempt, report)
        self._end(call, None)

    def _break(self, attempt: AttemptRun, failure: Failure) -> None:
        """After its first byte: nothing can be taken back."""
        attempt.failure = failure
        attempt.call.state.step(Event.BREAK)
        self._settle(attempt, failure)
        self._close(attempt)
        self._give_seat(attempt)
        self._end(attempt.call, failure)

    def _set_back(self, attempt: AttemptRun, failure: Failure) -> None:
        """The attempt gave the client nothing: what follows?"""
        call = attempt.call
        attempt.failure = failure
        self._settle(attempt, failure)
        self._close(attempt)
        call.tried.append(Tried(failure, attempt.seated is not None, attempt.waited_s))
        if retries_at_once(failure) and attempt.ticket is not None:
            call.holds = attempt
        else:
            self._give_seat(attempt)
        step = next_step(call.candidates, None, call.tried)
        if isinstance(step, Ask):
            call.state.fall_back()
            self._begin(call, step)
            return
        self._release(call)
        self._tell(call, step, failure)

    def _tell(self, call: CallRun, step: Tell, failure: Failure) -> None:
        passes = self._row(call).on_schema_failure == "pass"
        if passes and failure.code is ErrorCode.SCHEMA_INVALID:
            call.state.step(Event.COMMIT)
            call.state.step(Event.FINISH)
            self._end(call, None)
            return
        call.state.end_unanswered()
        self._end(call, call.tried[step.attempt].failure)

    def _settle(self, attempt: AttemptRun, failure: Failure | None) -> None:
        """Breaker and budget hear how it ended."""
        call, now = attempt.call, self._timeline.now
        if attempt.allowed is not None:
            self.breakers.call_ended(
                attempt.allowed,
                failure,
                now,
                completed=call.state.state is State.COMPLETED,
                circumstances=call.circumstances,
                pair=lambda: call.number,
            )
        price = self._price(attempt.model, attempt.provider)
        if attempt.dispatched is not None:
            attempt.cost_usd = cost_usd(price, *self._used(attempt))
        if attempt.reservation is not None:
            if attempt.dispatched is None or failure is _BUSY:
                self.budgets.give_back(attempt.reservation)
            elif attempt.cost_usd is not None:
                self.budgets.settle(attempt.reservation, nano(attempt.cost_usd))

    def _used(self, attempt: AttemptRun) -> tuple[int, int, float]:
        """Prompt tokens, answer tokens, and seconds of computing."""
        work, demand, now = attempt.work, attempt.call.demand, self._timeline.now
        if work is None:
            return demand.prompt_tokens, demand.output_tokens, 0.0
        if work.begun is None:
            return 0, 0, 0.0
        share = 1.0 - max(0.0, work.left) / work.answer_s if work.answer_s else 1.0
        tokens = round(work.tokens * min(1.0, max(0.0, share)))
        return demand.prompt_tokens, tokens, now - work.begun

    def _close(self, attempt: AttemptRun) -> None:
        """Nothing that still fires for it means anything, and the host computes for it no more."""
        if attempt.over:
            return
        attempt.over = True
        attempt.ended = self._timeline.now
        self._hurry(attempt, hurries=False)
        if attempt.work is not None:
            self._hosts[attempt.host].leave(attempt.work)

    def _give_seat(self, attempt: AttemptRun, report: Report | None = None) -> None:
        """Give back its seat or its place in line; harmless twice."""
        ticket = attempt.ticket
        if ticket is None:
            return
        self._by_ticket.pop(ticket, None)
        if ticket.place in {Place.WAITING, Place.SEATED}:
            self._line.leave(ticket, self._timeline.now, report)
            self._fill()

    def _release(self, call: CallRun) -> None:
        """Give back the seat that was kept for a retry at once."""
        holds, call.holds = call.holds, None
        if holds is not None:
            self._give_seat(holds)

    def _end(self, call: CallRun, failure: Failure | None) -> None:
        now = self._timeline.now
        if not call.state.ended:
            call.state.end_unanswered()
        call.failure = failure
        call.ended = now
        if call.has_client_seat:
            self._clients.leave(call.demand.client)
        self.health.timeouts.call_ended(
            [attempt.failure for attempt in call.attempts if attempt.failure is not None],
            failure,
            now,
            call.circumstances,
            call.number,
        )
        for poll in self._polls.values():
            poll.want()
        self._told(call)

    # 5. Who may say no.

    def _stopped(self, attempt: AttemptRun) -> Failure | None:
        return self.breakers.check(
            attempt.provider,
            attempt.model,
            self._timeline.now,
            pair=lambda: attempt.call.number,
        )

    def _admit(self, attempt: AttemptRun) -> Failure | None:
        now = self._timeline.now
        attempt.call.state.step(Event.DISPATCH)
        verdict: Allowed | Failure = self.breakers.admit(
            attempt.provider, attempt.model, now, pair=lambda: attempt.call.number
        )
        if isinstance(verdict, Failure):
            return verdict
        attempt.allowed = verdict
        attempt.dispatched = now
        return None

    def _charge(self, call: CallRun, model: str) -> Charge:
        """What an attempt is charged with; its money is what it will cost."""
        role = call.route.role
        name = self._names.canonical(model)
        provider = self._provider(name, role)
        price = self._price(name, provider)
        demand = call.demand
        usd = cost_usd(price, demand.prompt_tokens, demand.output_tokens, 0.0)
        return Charge(name, role, provider, 0 if usd is None else nano(usd))

    def _spent(self, charge: Charge) -> Failure | None:
        return None if self.budgets.check(self._timeline.now, charge) is None else _SPENT

    def _reserve(self, attempt: AttemptRun) -> Failure | None:
        charge = self._charge(attempt.call, attempt.model)
        verdict = self.budgets.reserve(self._timeline.now, charge)
        if not isinstance(verdict, Reservation):
            return _SPENT
        attempt.reservation = verdict
        return None

    def _row(self, call: CallRun) -> RolePolicy:
        return self._policy.roles[call.route.role]
