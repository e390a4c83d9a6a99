"""What Ollama has installed and what that can do, against what the policy names.

An alias never hides an installed model silently, and a model that a role relies on, or that
cannot stand in for its primary, is missed before its first call: ``check-config --online``
and the start-up log say so. While the process runs, what is known of the policy's models
spares calls a fallback that would be turned away.
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import orjson

from modelsplit_policy import capabilities
from modelsplit_policy.capabilities import ModelFacts
from modelsplit_policy.egress import unserved
from modelsplit_policy.hints import pulling
from modelsplit_policy.model_names import canonical, runs_in_cloud
from modelsplit_policy.vocabulary import Provider
from modelsplit_proxy.http.upstream import UpstreamError
from modelsplit_proxy.watch.model_list import capabilities_in

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from modelsplit_policy.capabilities import Capability, Unable
    from modelsplit_policy.config.model import Policy
    from modelsplit_policy.loaded_models import Listed
    from modelsplit_policy.prices import Prices
    from modelsplit_policy.vocabulary import Role
    from modelsplit_proxy.watch.fleet_model_list import FleetModelList
    from modelsplit_proxy.watch.model_list import ModelList

logger = logging.getLogger("modelsplit")

# How long to wait for the answers.
_TIMEOUT_S: Final = 10.0
# So old may a list be where nothing is known to have changed since.
_FRESH_S: Final = 60.0
# A call waits no longer for what is known of its model.
_UNSURE_S: Final = 2.0
# Between an answer and the next question: where something has changed, or looks wrong;
# while nothing is known; at most.
_AT_LEAST_S: Final = 2.0
_UNKNOWN_S: Final = 10.0
_AT_MOST_S: Final = 300.0


def shown(body: bytes) -> frozenset[str] | None:
    """The capabilities in an answer of ``/api/show``; None if it names none."""
    try:
        return capabilities_in(orjson.loads(body))
    except (orjson.JSONDecodeError, AttributeError):
        return None


def named(policy: Policy) -> dict[str, str]:
    """Our own models that roles and experiments name: canonical name to the policy's spelling."""
    return {
        canonical(model): model
        for role, row in policy.roles.items()
        if row.provider is Provider.LOCAL
        for model in (row.primary, row.fallback, *_arms(policy, role))
        if model is not None
    }


def warnings(policy: Policy, installed: frozenset[str], pulled_at: str = "") -> Iterator[str]:
    """One sentence for everything that will surprise somebody.

    ``pulled_at``: as for ``hints.pulling``.
    """
    for role, row in policy.roles.items():
        for alias in row.aliases:
            if canonical(alias) in installed:
                yield f'alias "{alias}" of {role} hides the installed model of that name'
        for model in (row.primary, row.fallback, *_arms(policy, role)):
            if model is None or row.provider is not Provider.LOCAL:
                continue
            if canonical(model) not in installed:
                yield f"{role}: {model} is not installed; try `{pulling([model], pulled_at)}`"


def cloud_gaps(policy: Policy, installed: Container[str] = ()) -> Iterator[str]:
    """One sentence for every model of CLOUD that nobody serves.

    Ollama serves those of its own cloud, and what is installed by such a name.
    """
    has_providers = bool(policy.cloud.providers)
    for role, row in policy.roles.items():
        if row.provider is not Provider.CLOUD:
            continue
        for model in filter(None, (row.primary, row.fallback)):
            refused = unserved(policy.cloud, model, row.provider)
            if refused is not None:
                yield f"{role}: {refused.message}"
            elif not (has_providers or runs_in_cloud(model) or canonical(model) in installed):
                yield (
                    f"{role}: {model} cannot be served: no cloud provider is configured, and it is "
                    "none of Ollama's cloud models; name one of those in the policy"
                )


def unpriced_here(prices: Prices, installed: Mapping[str, Listed]) -> Iterator[str]:
    """One sentence for every installed model of Ollama's own cloud without a price."""
    for name, row in installed.items():
        runs_elsewhere = row.remote or runs_in_cloud(name)
        if runs_elsewhere and prices.of(name, Provider.CLOUD) is None:
            yield (
                f"{name} runs in Ollama's own cloud and has no price, so its calls are refused "
                f'whatever is approved; set models["{name}"].price, where a subscription pays to '
                '{"input": 0, "output": 0}'
            )


def gaps(policy: Policy, facts: Mapping[str, ModelFacts]) -> Iterator[str]:
    """One sentence for every model that cannot stand in for the primary of its role."""
    for role, row in policy.roles.items():
        if row.primary is None or row.provider is not Provider.LOCAL:
            continue
        primary = facts.get(canonical(row.primary))
        for model in filter(None, (row.fallback, *_arms(policy, role))):
            lacks = capabilities.gap(primary, facts.get(canonical(model)))
            what = "have no second model" if model == row.fallback else "are refused in that arm"
            if lacks:
                yield (
                    f"{role}: {model} lacks {', '.join(lacks)}, which {row.primary} has; "
                    f"calls that need it {what}"
                )


def _arms(policy: Policy, role: Role) -> tuple[str, ...]:
    """Models that only an enabled experiment asks."""
    row = policy.roles[role]
    tests = [test for test in policy.experiments if test.enabled and test.role is role]
    models = [arm.model for test in tests for arm in test.arms]
    return tuple(model for model in models if model not in {row.primary, row.fallback})


def _elsewhere(found: Mapping[str, Listed]) -> frozenset[str]:
    """What is stored under a name of this machine's and runs on another one."""
    return frozenset(name for name, row in found.items() if row.remote and not runs_in_cloud(name))


class InstalledModels:
    """Keeps what is known of one host's models true.

    ``facts``: of each of our own models that the policy names, by canonical name; empty while
    nobody has told. ``missing``: those of them that are not there. ``unreached``: those that no
    host has which answers, and the hosts that do not and may have them; nothing else is known of
    them. ``listed``: canonical names of all that was there; None while nobody has told.
    ``elsewhere``: models, by canonical name, that are stored under a name of this machine's and
    run on another one. ``unsure``: those of which that is not known, as a change made or makes
    them, with how many such changes are under way. ``is_answered``: whether the last question
    was, True before the first.
    ``tells_gaps``: what a second model lacks is told before anybody needs it, because somebody
    chose it; else when it is.
    """

    def __init__(
        self,
        model_list: ModelList | FleetModelList,
        policy: Policy,
        *,
        tells_gaps: bool = True,
        pulled_at: str = "",
    ) -> None:
        self.pulled_at = pulled_at
        self._model_list = model_list
        self._policy = policy
        self._named = named(policy)
        self._tells_gaps = tells_gaps
        # Of the policy's models, so there are few.
        self._concerned: set[Unable] = set()
        # By digest: what a model can do changes only with the model.
        self._shown: dict[str, frozenset[str]] = {}
        self._sooner = asyncio.Event()
        self._wanted = False
        self._answered = -math.inf
        self.is_answered = True
        # What was said of the models in the log, and is still so.
        self._told: tuple[str, ...] | None = None
        self.facts: Mapping[str, ModelFacts] = {}
        self.missing: frozenset[str] = frozenset()
        self.elsewhere: frozenset[str] = frozenset()
        self.unsure: dict[str, int] = {}
        self.unreached: Mapping[str, tuple[str, ...]] = {}
        self.listed: frozenset[str] | None = None

    def __repr__(self) -> str:
        return f"<InstalledModels {len(self.facts)} known>"

    def unable(self, model: str, needs: Iterable[Capability]) -> Unable | None:
        """Why one of our own models cannot serve a request with these needs; None: it may."""
        found = capabilities.unable(model, self.facts.get(canonical(model)), needs)
        if found is not None and found.lacks:
            self._concerns(found)
        return found

    def _concerns(self, unable: Unable) -> None:
        """Say once that a call had no other model for what this one lacks."""
        if not self._tells_gaps and unable not in self._concerned:
            self._concerned.add(unable)
            lacks = ", ".join(unable.lacks)
            logger.warning(
                "a call had no second model: %s has no %s, which it needed", unable.model, lacks
            )

    def want(self) -> None:
        """Something has changed, or was not as it was known to be."""
        self._wanted = True
        self._model_list.outdate()
        self._sooner.set()

    @contextmanager
    def making(self, name: str) -> Iterator[None]:
        """While a change is under way that may make another model of this canonical name."""
        self.unsure[name] = self.unsure.get(name, 0) + 1
        try:
            yield
        finally:
            self.unsure[name] -= 1
            self.want()

    async def runs_elsewhere(self, model: str) -> bool | None:
        """Whether a model is one of ``elsewhere``; if that is unsure Ollama is asked anew.

        None: it does not say.
        """
        name = canonical(model)
        if name not in self.unsure:
            return name in self.elsewhere
        try:
            async with asyncio.timeout(_UNSURE_S):
                found = await self._model_list.since(asyncio.get_running_loop().time())
        except (TimeoutError, UpstreamError):
            return None
        return None if found is None else name in _elsewhere(found)

    def seen(self, body: bytes) -> None:
        """What Ollama has told somebody else that it has installed."""
        if self._model_list.differs(body):
            self.want()

    def lacks(self, model: str) -> None:
        """Ollama has said that it does not have this one."""
        fact = self.facts.get(canonical(model))
        if fact is not None and fact.installed:
            self.want()

    def has(self, model: str) -> None:
        """This one has answered: so it is there, whatever was known."""
        name = canonical(model)
        if name in self.missing:
            self._learn({**self.facts, name: ModelFacts(True, None)})
            self.want()

    async def names(self) -> frozenset[str] | None:
        """Canonical names of all that is installed, known for a minute at most; None: unknown."""
        moment = asyncio.get_running_loop().time() - _FRESH_S
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                found = await self._model_list.since(moment)
        except (TimeoutError, UpstreamError):
            return None
        return None if found is None else frozenset(found)

    def silent_about(self, model: str) -> tuple[str, ...]:
        """The hosts that do not say what they have, and may have the model; empty: none may."""
        return self._model_list.silent_about(canonical(model))

    async def watch(self) -> None:
        """Ask for ever; a task of the process."""
        while True:
            await self._until_due()
            await self.ask()

    async def ask(self) -> None:
        """Ask once. Without an answer what was known stays: no call has one either."""
        time = asyncio.get_running_loop().time
        self._wanted = False
        made = [name for name, under_way in self.unsure.items() if not under_way]
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                found = await self._model_list.since(time() - _FRESH_S)
                facts = None if found is None else await self._facts(found)
        except (TimeoutError, UpstreamError):
            found = facts = None
        self._answered = time()
        self.is_answered = found is not None and facts is not None
        if found is not None and facts is not None:
            self.unreached = self._unreached(found)
            self.listed = frozenset(found)
            was_missing = self._told is not None and bool(self.missing)
            self._learn(facts)
            self.elsewhere = _elsewhere(found)
            self._sure_of(made)
            self._tell(found)
            if was_missing and not (self.missing or self.unreached):
                logger.info("what the policy names is installed now")

    def _sure_of(self, made: Iterable[str]) -> None:
        """Forget what changes made, by a list that was asked for after them."""
        if self._wanted:
            return  # another one has ended meanwhile
        for name in made:
            if not self.unsure[name]:
                del self.unsure[name]

    def _learn(self, facts: Mapping[str, ModelFacts]) -> None:
        self.facts = facts
        self.missing = frozenset(name for name, fact in facts.items() if not fact.installed)

    def _unreached(self, found: Container[str]) -> dict[str, tuple[str, ...]]:
        """Of a model that a host has which does not answer, nobody can say that it is missing."""
        absent = (name for name in self._named if name not in found)
        silent = ((name, self._model_list.silent_about(name)) for name in absent)
        return {name: hosts for name, hosts in silent if hosts}

    async def _facts(self, found: Mapping[str, Listed]) -> dict[str, ModelFacts]:
        present = {model.digest for model in found.values()}
        self._shown = {digest: can for digest, can in self._shown.items() if digest in present}
        facts = {}
        for name in self._named.keys() - self._unreached(found).keys():
            model = found.get(name)
            known = None if model is None else await self._known(model)
            facts[name] = ModelFacts(model is not None, known)
        return facts

    async def _known(self, model: Listed) -> frozenset[str] | None:
        """What the list says a model can do, or what Ollama says when asked about it."""
        if model.capabilities is not None or model.digest in self._shown:
            return model.capabilities or self._shown[model.digest]
        answer = await self._model_list.details(model)
        can = None if answer is None else shown(answer)
        if can is not None:
            self._shown[model.digest] = can
        return can

    def _tell(self, found: Iterable[str]) -> None:
        """Say what the policy names and Ollama lacks, when that changes."""
        told = self._told
        lacking = gaps(self._policy, self.facts) if self._tells_gaps else ()
        there = frozenset((*found, *self.unreached))
        self._told = (*warnings(self._policy, there, self.pulled_at), *lacking)
        for warning in self._told:
            if told is None or warning not in told:
                logger.warning("%s", warning)

    def _due(self) -> float:
        if not self.is_answered:
            return self._answered if self._wanted else self._answered + _UNKNOWN_S
        if self._wanted:
            return self._answered + _AT_LEAST_S
        # Who is told what to install looks again soon whether it is there.
        complete = self.facts and not (self.missing or self.unreached)
        return self._answered + (_AT_MOST_S if complete else _UNKNOWN_S)

    async def _until_due(self) -> None:
        """Wait until it is time to ask; that may come sooner while it is waited for."""
        time = asyncio.get_running_loop().time
        while (left_s := self._due() - time()) > 0:
            self._sooner.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._sooner.wait()
            except TimeoutError:
                continue
