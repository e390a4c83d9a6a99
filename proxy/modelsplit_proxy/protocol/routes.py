"""What each path of Ollama's is: one table, by method and path.

- inference: a call to a model. Admitted, tagged, counted, recorded.
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
from typing import Final
from urllib.parse import unquote

from modelsplit_policy.vocabulary import Action, Dialect

TRANSCRIPTIONS: Final = "/v1/audio/transcriptions"


class Kind(StrEnum):
    INFERENCE = "inference"
    METADATA = "metadata"
    MANAGEMENT = "management"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Route:
    """One row: ``label`` is the path, with a star for its last segment where any will do."""

    label: str
    kind: Kind
    dialect: Dialect
    action: Action | None = None


def _rows(kind: Kind, *rows: str, action: Action | None = None) -> list[tuple[str, Route]]:
    """Rows written as ``METHOD /path``, several methods separated by commas."""
    table = []
    for row in rows:
        methods, _, path = row.partition(" ")
        route = Route(path, kind, dialect_of(path), action)
        table += [(method, route) for method in methods.split(",")]
    return table


def _changes(action: Action, *rows: str) -> list[tuple[str, Route]]:
    return _rows(Kind.MANAGEMENT, *rows, action=action)


def dialect_of(target: str) -> Dialect:
    """The dialect errors on ``target`` are told in."""
    path = target.partition("?")[0]
    if path.startswith("/v1/messages"):
        return Dialect.ANTHROPIC
    return Dialect.OPENAI if path.startswith("/v1/") else Dialect.OLLAMA


ROUTES: Final = (
    *_rows(
        Kind.INFERENCE,
        "POST /api/generate",
        "POST /api/chat",
        "POST /api/embed",
        "POST /api/embeddings",
        "POST /v1/chat/completions",
        "POST /v1/completions",
        "POST /v1/embeddings",
        "POST /v1/responses",
        f"POST {TRANSCRIPTIONS}",
        "POST /v1/images/generations",
        "POST /v1/images/edits",
        "POST /v1/messages",
    ),
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
    *_rows(
        Kind.OTHER,
        "POST /api/experimental/web_search",
        "POST /api/experimental/web_fetch",
    ),
)
"""Every pair of a method and a route that is known, kind by kind."""

_EXACT: Final = MappingProxyType(
    {(method, route.label): route for method, route in ROUTES if route.label[-1] != "*"}
)
_BY_FOLDER: Final = MappingProxyType(
    {(method, route.label[:-1]): route for method, route in ROUTES if route.label[-1] == "*"}
)
_UNKNOWN: Final = MappingProxyType(
    {dialect: Route("other", Kind.OTHER, dialect) for dialect in Dialect}
)


def classify(method: str, target: str) -> Route:
    """The row of a request.

    ``target`` is the origin-form request target, query included.
    """
    path = path_of(target)
    route = _EXACT.get((method, path))
    if route is not None:
        return route
    folder, _, name = path.rpartition("/")
    route = _BY_FOLDER.get((method, f"{folder}/")) if name else None
    return route or _UNKNOWN[dialect_of(path)]


def path_of(target: str) -> str:
    """The path of a request target, percent-decoded."""
    path = target.partition("?")[0]
    return unquote(path) if "%" in path else path
