"""What each path of Ollama's is, by method and path.

- inference: a call to a model. Admitted, tagged, counted, recorded. Its rows are in
  ``endpoints``; all others are here.
- metadata: a question about models or the server. Never queued, never counted.
- management: changes which models there are, or the account of the host. Passed on, unless
  the policy denies the action.
- other: everything else, known or not yet invented. Passed on as it is.

The path is compared as Ollama's router does: percent-decoded, then exactly, case and
slashes included; every other spelling is redirected or refused by Ollama itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from modelsplit_policy.vocabulary import Action, Dialect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelsplit_proxy.protocol.endpoint import Endpoint


class Kind(StrEnum):
    INFERENCE = "inference"
    METADATA = "metadata"
    MANAGEMENT = "management"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class PathRoute:
    """One row: ``label`` is the path, with a star for its last segment where any will do.

    ``endpoint``: the row of an inference route, None for any other.
    """

    label: str
    kind: Kind
    dialect: Dialect
    action: Action | None = None
    endpoint: Endpoint | None = None


def _rows(kind: Kind, *rows: str, action: Action | None = None) -> list[tuple[str, PathRoute]]:
    """Rows written as ``METHOD /path``, several methods separated by commas."""
    table = []
    for row in rows:
        methods, _, path = row.partition(" ")
        route = PathRoute(path, kind, dialect_of(path), action)
        table += [(method, route) for method in methods.split(",")]
    return table


def _changes(action: Action, *rows: str) -> list[tuple[str, PathRoute]]:
    return _rows(Kind.MANAGEMENT, *rows, action=action)


def dialect_of(target: str) -> Dialect:
    """The dialect errors on ``target`` are told in."""
    path = target.partition("?")[0]
    if path.startswith("/v1/messages"):
        return Dialect.ANTHROPIC
    return Dialect.OPENAI if path.startswith("/v1/") else Dialect.OLLAMA


_PASSED: Final = (
    *_rows(
        Kind.METADATA,
        "GET,HEAD /",
        "GET,HEAD /api/version",
        "GET /api/status",
        "GET,HEAD /api/tags",
        "POST /api/show",
        "GET /api/ps",
        "HEAD /api/blobs/*",
        "POST /api/me",
        "GET /api/experimental/aliases",
        "GET /api/experimental/model-recommendations",
        "GET /v1/models",
        "GET /v1/models/*",
    ),
    *_changes(Action.PULL, "POST /api/pull"),
    *_changes(Action.PUSH, "POST /api/push"),
    *_changes(Action.CREATE, "POST /api/create", "POST /api/experimental/aliases"),
    *_changes(Action.COPY, "POST /api/copy"),
    *_changes(Action.DELETE, "DELETE /api/delete", "DELETE /api/experimental/aliases"),
    *_changes(Action.BLOBS, "POST /api/blobs/*"),
    *_changes(Action.ACCOUNT, "POST /api/signout", "DELETE /api/user/keys/*"),
)
"""What is no inference route, kind by kind."""

_UNKNOWN: Final = MappingProxyType(
    {dialect: PathRoute("other", Kind.OTHER, dialect) for dialect in Dialect}
)


class Routes:
    """Every route that is known.

    ``rows``: each pair of a method and a route, kind by kind.
    """

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        calls = (
            PathRoute(row.label, Kind.INFERENCE, row.wire.dialect, endpoint=row)
            for row in endpoints
        )
        self.rows = (*(("POST", route) for route in calls), *_PASSED)
        whole = {(method, route.label): route for method, route in self.rows}
        self._exact = {key: route for key, route in whole.items() if key[1][-1] != "*"}
        self._by_folder = {
            (method, label[:-1]): route
            for (method, label), route in whole.items()
            if label[-1] == "*"
        }

    def classify(self, method: str, target: str) -> PathRoute:
        """The row of a request.

        ``target`` is the origin-form request target, query included.
        """
        path = path_of(target)
        route = self._exact.get((method, path))
        if route is not None:
            return route
        folder, _, name = path.rpartition("/")
        route = self._by_folder.get((method, f"{folder}/")) if name else None
        return route or _UNKNOWN[dialect_of(path)]


def path_of(target: str) -> str:
    """The path of a request target, percent-decoded."""
    path = target.partition("?")[0]
    return unquote(path) if "%" in path else path
