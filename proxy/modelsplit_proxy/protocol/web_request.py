"""What makes Ollama reach out to its own cloud beside its models there: searches and pages.

Its two web routes are that alone. They are called as if they named a model of the cloud, so all
that holds for one holds for them. A tool of a type ``web_search…`` in a request to any model has
Ollama run the searches that the model asks for.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.go_json import LARGE, Fields, fold
from modelsplit_proxy.protocol.json_body import Body

if TYPE_CHECKING:
    from collections.abc import Callable

SEARCH: Final = "web_search:cloud"
FETCH: Final = "web_fetch:cloud"
_TYPE: Final = "web_search"
_MARK: Final = _TYPE.encode()
# What may spell the same.
_ESCAPE: Final = b"\\u"
# Tools of more bytes, or nested too deep to be looked through, are taken to be of the kind.
_LONGEST: Final = 1024 * 1024


def _named(model: str, raw: bytes, content_type: str, query: str) -> Body:
    del content_type, query
    return Body(raw, Fields(b"", {}), model, None, quoted=False)


read_search: Final[Callable[[bytes, str, str], Body]] = partial(_named, SEARCH)
read_fetch: Final[Callable[[bytes, str, str], Body]] = partial(_named, FETCH)


def searches(body: Body) -> bool:
    """Whether Ollama would search the web for this request, should its model want that."""
    raw = body.raw
    if _MARK not in raw and _ESCAPE not in raw:
        return False
    return any(map(_has_search, body.fields.decoded("tools", _LONGEST)))


def _has_search(tools: Any) -> bool:
    if tools is LARGE:
        return True
    rows = tools if isinstance(tools, list) else ()
    return any(_is_search(row) for row in rows if isinstance(row, tuple))


def _is_search(tool: tuple[tuple[str, Any], ...]) -> bool:
    # Ollama reads keys in any case, and a null takes no type back.
    types = (value for key, value in tool if fold(key) == "type")
    return any(isinstance(kind, str) and kind.strip().startswith(_TYPE) for kind in types)
