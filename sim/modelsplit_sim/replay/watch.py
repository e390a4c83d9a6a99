"""What a proxy watches in virtual time: which models are loaded, and how well the service is.

``loaded_models`` and ``health`` of the policy decide when to look and what it means; this
module asks the virtual host when they say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelsplit_policy.health import HealthGuard, Level, rules_of
from modelsplit_policy.health_samples import Timeouts, shedding, signals
from modelsplit_policy.loaded_models import Listed, LoadedModels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from modelsplit_policy.admission import Admission
    from modelsplit_policy.breaker import Breakers
    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.virtual_host import VirtualHost

    from .timeline import Timeline

# As the process does: how long a question waits for its answer, and between two looks.
_QUESTION_S: Final = 2.0
_LOOK_S: Final = 1.0
# Of a loaded model, in the list of them; how many does not matter.
_BYTES: Final = 1_000_000


class LoadedModelsPoll:
    """Asks the host what it has loaded, as often as ``known`` says; ``learned`` is told then.

    While the host loads a model a question may stay open until that is over.
    """

    def __init__(
        self,
        host: VirtualHost,
        timeline: Timeline,
        models: Iterable[str],
        learned: Callable[[], None],
    ) -> None:
        self._host = host
        self._timeline = timeline
        self._models = [Listed(model, f"sha of {model}") for model in models]
        self._learned = learned
        # The question that is open, by its number; and the one that is due next.
        self._question = 0
        self._is_open = False
        self._due_at = float("inf")
        # What the host had loaded when it was asked last, and as it said it.
        self._loaded: frozenset[str] | None = None
        self._rows: list[Listed] = []
        self.known = LoadedModels()
        self.known.learn(self._models, 0.0)

    def ask(self, _: object = None) -> None:
        """Ask now, unless a question is open."""
        if self._is_open:
            return
        self.known.asking()
        self._question += 1
        if self._host.is_loading and self._host.shape.mute_while_loading:
            self._is_open = True
            self._timeline.at(self._timeline.now + _QUESTION_S, self._unanswered, self._question)
            return
        self._answer()

    def answers(self) -> bool:
        """Whether a question would be answered at once."""
        return not (self._host.is_loading and self._host.shape.mute_while_loading)

    def look(self) -> None:
        """Time has passed: a question that was open may have its answer."""
        if self._is_open and not self._host.is_loading:
            self._answer()

    def want(self) -> None:
        """A call has ended: what is loaded may have changed."""
        if self.known.want():
            self._schedule()

    def hurry(self) -> None:
        """Somebody waits for a load to end; ``relax`` is then owed."""
        if self.known.hurry():
            self._schedule()

    def relax(self) -> None:
        self.known.relax()

    def _answer(self) -> None:
        self._is_open = False
        loaded = self._host.loaded
        if loaded is not self._loaded:
            self._loaded = loaded
            self._rows = [self._row(model) for model in loaded]
        self.known.observe(self._rows, self._timeline.now)
        self._learned()
        self._schedule()

    def _row(self, model: str) -> Listed:
        share = self._host.share_on_gpu(model)
        vram = None if share is None else int(share * _BYTES)
        return Listed(model, f"sha of {model}", size=_BYTES, vram=vram)

    def _unanswered(self, question: int) -> None:
        if self._is_open and question == self._question:
            self._is_open = False
            self.known.unanswered(self._timeline.now)
            self._learned()
            self._schedule()

    def _schedule(self) -> None:
        if self._is_open:
            return
        at = max(self._timeline.now, self.known.next_question())
        if at < self._due_at or self._due_at <= self._timeline.now:
            self._due_at = at
            self._timeline.at(at, self._due, at)

    def _due(self, at: float) -> None:
        if at == self._due_at:
            self._due_at = float("inf")
            self.ask()


class HealthLooks:
    """Runs the Health Guard once a second, and has admission turn away whom it says.

    A look at what is certainly in order is left out: it could not change anything.
    """

    def __init__(
        self, policy: Policy, admission: Admission, breakers: Breakers, timeline: Timeline
    ) -> None:
        rules = rules_of(policy.health)
        self._policy = policy
        self._admission = admission
        self._breakers = breakers
        self._timeline = timeline
        self.guard = HealthGuard(rules)
        self.timeouts = Timeouts(rules.timeouts_window_s)
        # Seconds for which calls were being turned away.
        self.shed_s = 0.0

    def look(self, _: object = None) -> None:
        now = self._timeline.now
        self._timeline.at(now + _LOOK_S, self.look)
        if self.guard.shedding is not Level.OK:
            self.shed_s += _LOOK_S
        elif self._is_calm(now):
            return
        step = self.guard.update(
            signals(
                self._admission,
                self._policy,
                self._breakers.snapshot(now),
                now,
                timeouts=self.timeouts.count(now),
                upstream_up=True,
                lag=(0.0, 0),
            ),
            now,
        )
        if step is not None:
            self._admission.shedding = shedding(self.guard)

    def _is_calm(self, now: float) -> bool:
        if self.guard.level is not Level.OK or self.timeouts.count(now):
            return False
        if self._admission.in_line:
            return False
        return not self._breakers.snapshot(now)
