"""What passes through where there are several hosts: which of them is asked, or all.

``X-LLM-Host`` in a request names the host, whatever the request is. Without it:

- a list (``/api/tags``, ``/v1/models``, ``/api/ps``) is put together of the lists of all hosts that
  are there;
- a question about a model is put to a host that has it;
- pull, copy and delete are done on every host that they concern (``every_host``);
- any other change, of a model or an account, is refused, with the names of the hosts;
- whatever else comes goes to the first host that is there.

The answer says in ``X-LLM-Host`` who gave it, where that was one.
"""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from modelsplit_policy.failures import ErrorCode, Failure, Reason, said_back
from modelsplit_policy.model_names import canonical
from modelsplit_policy.vocabulary import Action
from modelsplit_proxy.http import cors, headers
from modelsplit_proxy.http.body import BodyError
from modelsplit_proxy.http.downstream import date_line
from modelsplit_proxy.http.fetch import fetch
from modelsplit_proxy.http.upstream import Fault, UpstreamError
from modelsplit_proxy.passthrough import exchange_failures
from modelsplit_proxy.passthrough.every_host import Change, EveryHost
from modelsplit_proxy.passthrough.intercept import Question
from modelsplit_proxy.passthrough.passthrough import Passthrough
from modelsplit_proxy.passthrough.rewritten import Questioning
from modelsplit_proxy.protocol import named_models
from modelsplit_proxy.protocol.routes import path_of
from modelsplit_proxy.runtime.parts import parts
from modelsplit_proxy.runtime.tasks import in_steps
from modelsplit_proxy.watch.model_list import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from modelsplit_policy.vocabulary import Host
    from modelsplit_proxy.http.downstream import Downstream
    from modelsplit_proxy.http.request import Request
    from modelsplit_proxy.passthrough.passthrough import PassthroughParts
    from modelsplit_proxy.passthrough.rewritten import QuestionParts
    from modelsplit_proxy.protocol.routes import PathRoute
    from modelsplit_proxy.runtime.lifecycle import Lifecycle
    from modelsplit_proxy.runtime.tasks import Tasks
    from modelsplit_proxy.watch.fleet import Fleet, UpstreamHost

# How long a list waits for a host that is slow to answer.
_LIST_S: Final = 5.0
_CONSUMED: Final = frozenset({b"x-llm-host"})
_NAME_MAX: Final = 60
# By route: under which key the rows of a list stand, and under which key a row has its name;
# None: a name may come more than once.
_EVERYWHERE: Final = frozenset({Action.PULL, Action.COPY, Action.DELETE})
_LISTS: Final = MappingProxyType(
    {
        "/api/tags": ("models", "name"),
        "/v1/models": ("data", "id"),
        "/api/ps": ("models", None),
    }
)


@parts
class FleetRouteParts:
    """What outlives the request. ``passthroughs`` and ``questions``: by host."""

    fleet: Fleet
    passthroughs: Mapping[Host, PassthroughParts]
    questions: Mapping[Host, QuestionParts]
    lifecycle: Lifecycle
    tasks: Tasks


class Passing(NamedTuple):
    """One request. ``consumed``: as for ``Passthrough``."""

    route: PathRoute
    request: Request
    target: str
    down: Downstream
    consumed: frozenset[bytes]


class FleetRoutes:
    """Decides for one fleet."""

    def __init__(self, parts: FleetRouteParts) -> None:
        self._parts = parts

    async def serve(self, passing: Passing, plan: Question | bytes) -> Failure | None:
        """Answer the client; a Failure is what to answer when nothing could be."""
        passing = passing._replace(consumed=passing.consumed | _CONSUMED)
        named = passing.request.headers.get("X-LLM-Host")
        if named is not None:
            host = self._parts.fleet.by_name.get(named.strip())
            return self._unknown(named) if host is None else await self._at(host, passing, plan)
        if isinstance(plan, Question) or passing.route.label in _LISTS:
            return await self._question(passing, plan)
        return await self._other(passing, plan)

    async def _question(self, passing: Passing, plan: Question | bytes) -> Failure | None:
        if passing.route.label in _LISTS:
            return await self._list(passing, plan)
        wordings = plan.wordings if isinstance(plan, Question) else ()
        host = self._with(*(wording.model for wording in wordings))
        return await self._at(host, passing, plan)

    async def _other(self, passing: Passing, plan: bytes) -> Failure | None:
        label = passing.route.label
        if passing.route.action in _EVERYWHERE and plan:
            return await self._everywhere(passing, plan)
        if passing.route.action is not None or label == "/api/blobs/*":
            return self._unnamed()
        try:
            model = await _model_of(passing, plan)
        except BodyError as error:
            return error.failure
        return await self._at(self._with(model), passing, plan)

    async def _at(
        self, host: UpstreamHost, passing: Passing, plan: Question | bytes
    ) -> Failure | None:
        request, down, consumed = passing.request, passing.down, passing.consumed
        if isinstance(plan, Question):
            questions = self._parts.questions[host.name]
            return await Questioning(questions, request, down, plan, consumed=consumed).serve()
        passthrough = self._parts.passthroughs[host.name]
        return await Passthrough(
            passthrough, request, passing.target, down, consumed=consumed, taken=plan
        ).serve()

    def _with(self, *models: str) -> UpstreamHost:
        """A host that is there and has one of the models, the first by preference; else anyone."""
        fleet = self._parts.fleet
        found = (fleet.with_installed(model) for model in models if model)
        return next((host for host in found if host is not None), None) or fleet.anyone()

    # Lists.

    async def _list(self, passing: Passing, plan: Question | bytes) -> Failure | None:
        key, named_by = _LISTS[passing.route.label]
        hosts = [host for host in self._parts.fleet.hosts if host.probe.up is not False]
        answers = await asyncio.gather(*(self._ask(host, passing.target) for host in hosts))
        lists = [answer for answer in answers if isinstance(answer, dict)]
        if not lists:
            return self._no_list(answers)
        body = orjson.dumps(lists[0] | {key: _union(lists, key, named_by)})
        changed = None
        if isinstance(plan, Question) and plan.change is not None:
            changed = plan.change(body)
        self._send(passing, body if changed is None else changed)
        return None

    async def _ask(self, host: UpstreamHost, target: str) -> dict[str, object] | UpstreamError:
        """One host's list as it stands, or why there is none."""
        try:
            async with asyncio.timeout(_LIST_S):
                status, body = await fetch(host.pool, host.target.authority, target, MAX_BYTES)
            fields = orjson.loads(body) if status == 200 else None
        except UpstreamError as error:
            return error
        except TimeoutError:
            return UpstreamError(Fault.CONNECT_TIMEOUT, f"no list within {_LIST_S:g} s")
        except orjson.JSONDecodeError:
            fields = None
        if not isinstance(fields, dict):
            return UpstreamError(Fault.PROTOCOL, "its list is no list")
        return fields

    def _no_list(self, answers: Sequence[object]) -> Failure:
        errors = [answer for answer in answers if isinstance(answer, UpstreamError)]
        error = errors[0] if errors else UpstreamError(Fault.REFUSED, "no host is there")
        fleet = self._parts.fleet
        return exchange_failures.with_all(
            error, [host.target for host in fleet.hosts], fleet.asked_at
        )

    def _send(self, passing: Passing, body: bytes) -> None:
        request, down = passing.request, passing.down
        lines = [b"Content-Type: application/json; charset=utf-8\r\n", date_line()]
        lines += [headers.VIA_LINE, *cors.lines(request.origin)]
        close = self._parts.lifecycle.draining or not request.content.is_eof()
        down.head(200, "OK", lines, length=len(body), close=close)
        down.write(body)
        down.end()

    # Changes.

    async def _everywhere(self, passing: Passing, body: bytes) -> Failure | None:
        """A change of models on all hosts that it concerns; ``body`` has been read, and whole."""
        try:
            fields = await in_steps(named_models.fields_of(body))
        except BodyError as error:
            return error.failure
        action = passing.route.action
        key = "source" if action is Action.COPY else "model"
        name = named_models.model(fields) if key == "model" else named_models.text(fields, key)
        close = self._parts.lifecycle.draining or not passing.request.content.is_eof()
        change = Change(
            *(passing.request, passing.down, passing.target, body, passing.consumed, close)
        )
        every = EveryHost(
            *(self._parts.tasks, change, self._concerned(action, name)), self._parts.fleet.asked_at
        )
        if action is Action.PULL:
            return await every.pull(streams=False not in fields.all("stream"))
        return await every.change()

    def _concerned(self, action: Action | None, model: str) -> Sequence[UpstreamHost]:
        """Where what is pulled may run; where what is copied or deleted is known to be."""
        hosts, name = self._parts.fleet.hosts, canonical(model)
        if action is Action.PULL:
            chosen = [host for host in hosts if host.rules.takes_model(name)]
        else:
            chosen = [host for host in hosts if host.model_list.has(name) or host.may_have(name)]
        return chosen or hosts

    def _unknown(self, name: str) -> Failure:
        return _bad_host(f'there is no host "{said_back(name, _NAME_MAX)}"', self._parts.fleet)

    def _unnamed(self) -> Failure:
        return _bad_host("there are several hosts, and this is for one of them", self._parts.fleet)


async def _model_of(passing: Passing, body: bytes) -> str:
    """The model that a question which passes as it came is about; empty: none. BodyError."""
    if passing.route.label == "/v1/models/*":
        return path_of(passing.target).rpartition("/")[2]
    if passing.route.label != "/api/show":
        return ""
    return named_models.model(await in_steps(named_models.fields_of(body)))


def _union(lists: Iterable[Mapping[str, object]], key: str, named_by: str | None) -> list[object]:
    """The rows of all lists; of those of one name the first, where that is wanted."""
    rows: dict[object, object] = {}
    for fields in lists:
        listed = fields.get(key)
        for row in listed if isinstance(listed, list) else ():
            name = row.get(named_by) if named_by is not None and isinstance(row, dict) else None
            rows.setdefault(len(rows) if name is None else str(name), row)
    return list(rows.values())


def _bad_host(what: str, fleet: Fleet) -> Failure:
    names = ", ".join(fleet.by_name)
    return Failure(
        ErrorCode.BAD_REQUEST,
        Reason.BAD_HEADER,
        f"{what}; say which in the header X-LLM-Host: {said_back(names, _NAME_MAX)}",
        "Bad Host Header",
    )
