"""No proxy: each call goes straight to the host, for one model a role. What is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelsplit_policy.attempts import Ask
from modelsplit_policy.call import Event
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.model_names import canonical
from modelsplit_policy.roles import Candidate, Roles, Route, RouteRequest
from modelsplit_policy.vocabulary import Provider

from .attempt import AttemptRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.virtual_host import VirtualHost, Work

    from .attempt import CallRun
    from .timeline import Timeline

_BUSY: Final = Failure(
    ErrorCode.OVERLOAD_THROTTLED,
    Reason.UPSTREAM_BUSY,
    "server busy, please try again",
    "Service Unavailable",
)
_DIED: Final = Failure(
    ErrorCode.UPSTREAM_LOCAL, Reason.RUNNER_FAILED, "the runner died", "Internal Server Error"
)


class Direct:
    """Clients that speak to Ollama. ``policy``: whose names they know the roles by.

    ``model``: for every role; empty: each role's primary.
    """

    def __init__(
        self,
        policy: Policy,
        model: str,
        host: VirtualHost,
        timeline: Timeline,
        told: Callable[[CallRun], None],
    ) -> None:
        self._roles = Roles(policy)
        self._model = model
        self._host = host
        self._timeline = timeline
        self._told = told

    def __repr__(self) -> str:
        return f"<Direct {self._model or 'split'} at {self._timeline.now:.3f}>"

    def start(self) -> None:
        """Nothing watches."""

    def arrive(self, call: CallRun) -> None:
        demand, now = call.demand, self._timeline.now
        route = self._roles.route(RouteRequest(model=demand.model, role=demand.role))
        assert isinstance(route, Route)
        call.route = route
        name = self._model or route.candidates[0].model
        model = canonical(name)
        attempt = AttemptRun(call, Ask(Candidate(name, None)), model, Provider.LOCAL, now)
        attempt.seated = attempt.dispatched = now
        call.attempts.append(attempt)
        for event in (Event.ADMIT, Event.DISPATCH):
            call.state.step(event)
        attempt.work = work = self._host.work(
            model,
            demand.output_tokens,
            demand.pace,
            attempt,
            prompt_tokens=demand.prompt_tokens,
            known_tokens=demand.known_tokens,
        )
        work.streams = demand.stream
        if not self._host.send(work):
            self._end(attempt, _BUSY)

    def leave(self, call: CallRun) -> None:
        """Its client has left; harmless for a call that has ended."""
        if call.ended is None:
            call.gone = True
            call.state.step(Event.CLIENT_GONE)
            self._end(call.attempts[-1], None)

    def begun(self, work: Work) -> None:
        """The first token of a stream has come."""
        work.payload.begun = self._timeline.now

    def done(self, work: Work) -> None:
        """The answer is whole."""
        attempt: AttemptRun = work.payload
        attempt.answered = self._host.report(work)
        assert work.begun is not None
        attempt.upstream_wait_s = max(0.0, work.begun - work.sent - work.load_s)
        for event in (Event.COMMIT, Event.FINISH):
            attempt.call.state.step(event)
        self._end(attempt, None)

    def crashed(self, work: Work) -> None:
        """The runner died under it."""
        attempt: AttemptRun = work.payload
        if not attempt.over:
            self._end(attempt, _DIED)

    def passed(self) -> None:
        """Time has passed."""

    def _end(self, attempt: AttemptRun, failure: Failure | None) -> None:
        call = attempt.call
        if not call.state.ended:
            call.state.end_unanswered()
        attempt.over = True
        attempt.failure = call.failure = failure
        attempt.ended = call.ended = self._timeline.now
        if attempt.work is not None:
            self._host.leave(attempt.work)
        self._told(call)
