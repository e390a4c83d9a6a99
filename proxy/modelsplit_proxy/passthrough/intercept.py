"""What happens to a request that is no call to a model: pass it, ask otherwise, or refuse it.

Almost everything passes untouched. What speaks of an alias as if it were a model is the
exception: lists get the aliases, questions about one are put about its target, and changes
to one are refused, as is what the policy denies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from modelsplit_policy import management
from modelsplit_policy.catalogue import not_installed
from modelsplit_policy.failures import Failure
from modelsplit_proxy.http.body import BodyError, read_any, read_start
from modelsplit_proxy.protocol import model_lists, named_models
from modelsplit_proxy.protocol.routes import path_of
from modelsplit_proxy.runtime.tasks import in_steps
from modelsplit_proxy.watch.model_list import LIST

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelsplit_policy.catalogue import Alias, Catalogue
    from modelsplit_policy.config.model import ManagementPolicy
    from modelsplit_policy.go_json import Fields
    from modelsplit_policy.vocabulary import Action
    from modelsplit_proxy.http.downstream import Downstream
    from modelsplit_proxy.http.request import Request
    from modelsplit_proxy.protocol.routes import PathRoute


@dataclass(frozen=True, slots=True)
class Wording:
    """One way to put the question: request line and body. ``model``: of which it asks."""

    method: str
    target: str
    body: bytes = b""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask, and what to make of the answer.

    ``wordings`` are tried in turn while Ollama answers 404; after the last, ``missing`` is
    said. ``change`` gives the body to send on, None for the one that came. ``keep_as``: the
    label under which a good answer is kept for when Ollama is slow. ``lists_installed``: the
    answer is Ollama's own list of what is installed. ``answer``: what to say without asking.
    """

    wordings: tuple[Wording, ...]
    change: Callable[[bytes], bytes | None] | None = None
    missing: Failure | None = None
    keep_as: str | None = None
    lists_installed: bool = False
    answer: bytes | None = None


# Ollama's clients send a few hundred bytes; a larger question about a model passes unread.
_BODY_BYTES: Final = 1024 * 1024


class Making(NamedTuple):
    """Pass it on, after ``body``: it may make another model of ``name``, which is canonical."""

    body: bytes
    name: str


Plan = Failure | Question | Making | bytes
"""A refusal, a question of ours, or: pass it on, after these bytes already read of its body."""

_PASS: Final = b""


class Intercept:
    """Decides for one policy. Reads a body where the decision hangs on it."""

    def __init__(
        self,
        catalogue: Catalogue,
        rules: ManagementPolicy,
        max_body_bytes: int,
        pulled_at: str = "",
    ) -> None:
        """``max_body_bytes``: no change of a larger body is let through.

        ``pulled_at``: as for ``hints.pulling``.
        """
        self._catalogue = catalogue
        self._rules = rules
        self._max_body_bytes = max_body_bytes
        self._pulled_at = pulled_at

    async def plan(self, route: PathRoute, target: str, request: Request, down: Downstream) -> Plan:
        if route.action is not None:
            return await self._change(route.action, request, down)
        match route.label:
            case "/api/tags":
                return self._list(route, target, model_lists.tags)
            case "/v1/models":
                return self._list(route, target, model_lists.models)
            case "/v1/models/*":
                return self._one_model(target)
            case "/api/show":
                return await self._show(target, request, down)
            case _:
                return _PASS

    def _list(self, route: PathRoute, target: str, merge: model_lists.Merge) -> Plan:
        if not self._catalogue.aliases:
            return _PASS
        # A HEAD is asked as a GET: its length is that of the list with the aliases.
        wording = Wording("GET", target)
        change = partial(merge, self._catalogue)
        lists_installed = route.label == LIST
        return Question((wording,), change, keep_as=route.label, lists_installed=lists_installed)

    def _one_model(self, target: str) -> Plan:
        folder, _, name = path_of(target).rpartition("/")
        alias = self._catalogue.find(name)
        if alias is None:
            return _PASS
        if alias.remote is not None:
            return Question((), answer=model_lists.one_model(name))
        wordings = [
            Wording("GET", f"{folder}/{quote(model, ':')}", model=model) for model in alias.targets
        ]
        return _about(alias, wordings, partial(model_lists.renamed, name), self._pulled_at)

    async def _change(self, action: Action, request: Request, down: Downstream) -> Plan:
        denied = management.denied(action, self._rules)
        keys = management.named_in(action)
        if denied is not None or not keys:
            return denied or _PASS
        try:
            body = await read_any(request, down, self._max_body_bytes)
            fields = await in_steps(named_models.fields_of(body))
        except BodyError as error:
            return error.failure
        names = {key: _name(fields, key) for key in keys}
        misused = management.misused(action, names, self._catalogue)
        if misused is not None:
            return misused
        name = management.made(action, names)
        return body if name is None else Making(body, name)

    async def _show(self, target: str, request: Request, down: Downstream) -> Plan:
        try:
            body, whole = await read_start(request, down, _BODY_BYTES)
            fields = (
                await in_steps(named_models.fields_of(body)) if whole else named_models.no_fields()
            )
        except BodyError as error:
            return error.failure
        alias = self._catalogue.find(named_models.model(fields))
        if alias is None:
            return body
        if alias.remote is not None:
            return Question((), answer=model_lists.shown(alias, alias.remote))
        wordings = [
            Wording("POST", target, named_models.with_model(fields, model), model)
            for model in alias.targets
        ]
        return _about(alias, wordings, None, self._pulled_at)


def _name(fields: Fields, key: str) -> str:
    return named_models.model(fields) if key == "model" else named_models.text(fields, key)


def _about(
    alias: Alias, wordings: list[Wording], change: model_lists.Change | None, pulled_at: str
) -> Plan:
    return Question(tuple(wordings), change, missing=not_installed(alias, pulled_at))
