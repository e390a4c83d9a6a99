"""Ollama's list of what is installed (``/api/tags``): one question for all who need it."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final

import orjson

from modelsplit_policy.loaded_models import Listed
from modelsplit_policy.model_names import canonical_stored
from modelsplit_proxy.http.fetch import fetch
from modelsplit_proxy.http.upstream import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from modelsplit_proxy.http.upstream_pool import UpstreamPool
    from modelsplit_proxy.runtime.tasks import Tasks

LIST: Final = "/api/tags"
DETAILS: Final = "/api/show"
# How large one of Ollama's lists may be, and how long to wait for this one.
MAX_BYTES: Final = 4 * 1024 * 1024
_TIMEOUT_S: Final = 10.0


def question(model: str) -> bytes:
    """What to ask ``/api/show``."""
    return orjson.dumps({"model": model})


def rows(body: bytes) -> list[Listed] | None:
    """The models in one of Ollama's lists, as it names them; None: it is something else."""
    try:
        return [_row(model) for model in orjson.loads(body)["models"]]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


def listed(body: bytes) -> dict[str, Listed] | None:
    """The same by canonical name."""
    models = rows(body)
    return None if models is None else {canonical_stored(row.name): row for row in models}


def capabilities_in(model: Mapping[str, Any]) -> frozenset[str] | None:
    """What Ollama says a model can do. An Ollama that knows of none leaves them out."""
    value = model.get("capabilities")
    return frozenset(map(str, value)) if isinstance(value, list) and value else None


def _row(model: Mapping[str, Any]) -> Listed:
    return Listed(
        str(model["name"]),
        str(model.get("digest") or ""),
        bool(model.get("remote_host") or model.get("remote_model")),
        capabilities_in(model),
        size if isinstance(size := model.get("size"), int) else 0,
        vram if isinstance(vram := model.get("size_vram"), int) else None,
    )


def _digests(models: Mapping[str, Listed]) -> dict[str, str]:
    return {name: model.digest for name, model in models.items()}


class ModelList:
    """What one host has installed. It is asked when somebody needs to know, and once for all."""

    def __init__(
        self,
        pool: UpstreamPool,
        authority: str,
        tasks: Tasks,
        on_found: Callable[[Mapping[str, int]], None] | None = None,
    ) -> None:
        """``on_found``: told of every list: the models by canonical name, and their bytes."""
        self._pool = pool
        self._on_found = on_found
        self._authority = authority
        self._tasks = tasks
        # The last question, open or answered, and when it began; long ago if it failed, or if
        # what it says is known to be old.
        self._question: asyncio.Task[None] | None = None
        self._asked_at = -math.inf
        self._found: dict[str, Listed] | None = None
        # What it said last, however long ago; None: it never has.
        self._last: frozenset[str] | None = None

    def __repr__(self) -> str:
        known = "unknown" if self._found is None else f"{len(self._found)} models"
        return f"<ModelList {known}>"

    def outdate(self) -> None:
        """Something has changed: neither what is known says so nor a question that is open."""
        self._asked_at = -math.inf

    def differs(self, body: bytes) -> bool:
        """Whether a list of Ollama's says otherwise than what is known; False: nobody can tell."""
        found = self._found
        if found is None:
            return False
        models = listed(body)
        return models is not None and _digests(models) != _digests(found)

    def has(self, model: str) -> bool:
        """Whether the host is known to have the model of that canonical name."""
        return model in (self._found or {})

    def may_have(self, model: str) -> bool:
        """Whether the host does not say what it has, and had the model or has never said."""
        return self._found is None and (self._last is None or model in self._last)

    def silent_about(self, model: str) -> tuple[str, ...]:
        """As of several hosts (``FleetModelList``); of one, nobody is asked while it is away."""
        del model
        return ()

    def names(self) -> list[str]:
        """The models as Ollama named them last; empty: nobody has asked, or it did not say."""
        return [model.name for model in (self._found or {}).values()]

    async def since(self, moment: float) -> Mapping[str, Listed] | None:
        """The models by canonical name, as Ollama lists them at ``moment`` or later.

        ``moment``: of the loop's time. None: it does not say. One question is open at a time;
        who is cancelled, or waits no longer, takes nothing from the others.
        """
        if self._asked_at < moment:
            await self._answered()
        if self._asked_at < moment:
            self._asked_at = asyncio.get_running_loop().time()
            self._question = self._tasks.start(self._ask(), "model list")
        await self._answered()
        return self._found

    async def _answered(self) -> None:
        if self._question is not None and not self._question.done():
            await asyncio.wait([self._question])

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                status, body = await fetch(self._pool, self._authority, LIST, MAX_BYTES)
                self._found = listed(body) if status == 200 else None
        except (TimeoutError, UpstreamError):
            self._found = None
        if self._found is None:
            self._asked_at = -math.inf
            return
        self._last = frozenset(self._found)
        if self._on_found is not None:
            self._on_found({name: row.size for name, row in self._found.items()})

    async def details(self, model: Listed) -> bytes | None:
        """What the host says of one of its models; None: not even that; UpstreamError."""
        body = question(model.name)
        status, answer = await fetch(self._pool, self._authority, DETAILS, MAX_BYTES, body)
        return answer if status == 200 else None
