"""The page that people leave open, ``[LLM OBSERVABILITY]``, and what it is made of.

It only reads. Its files stand beside this module and are sent as they are.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from modelsplit_policy.failures import ErrorCode, said_back
from modelsplit_proxy.admin.dashboard_data import DashboardData
from modelsplit_proxy.admin.page import Page, failed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.admin.page import Handler, Live, PageAsked, Pages
    from modelsplit_proxy.admin.parts import DashboardParts

_FILES: Final = Path(__file__).parent / "static"
_TYPES: Final = MappingProxyType(
    {
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
    }
)
_NAMES: Final = frozenset(
    {
        *("index.html", "page.css", "icon.svg", "uplot.css", "uplot.js"),
        *("app.js", "dom.js", "words.js", "live.js", "now.js", "charts.js", "calls.js"),
        *("later.js", "timeline.js"),
    }
)
# What the page may load and do: what comes from here, and nothing that stands in the page itself.
_BOUNDS: Final = (
    (
        b"Content-Security-Policy: default-src 'self'; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'; object-src 'none'\r\n"
    ),
    b"X-Frame-Options: DENY\r\n",
    b"Referrer-Policy: no-referrer\r\n",
)


class DashboardRoutes:
    """``index``, the page itself; ``/dashboard/{id}``: a file, or figures by their name."""

    def __init__(self, parts: DashboardParts, others: Mapping[str, Handler]) -> None:
        """``others``: the other routes of the admin port."""
        self.data = DashboardData(parts.stats, parts.listen, others)
        self.routes: Mapping[str, Handler] = {"/dashboard/{id}": self._part}

    async def index(self, asked: PageAsked) -> Page:
        del asked
        return await _file("index.html")

    async def _part(self, asked: PageAsked) -> Page | Pages | Live:
        if asked.item in _NAMES:
            return await _file(asked.item)
        answer = self.data.answers.get(asked.item)
        if answer is None:
            text = f'the dashboard has no "{said_back(asked.item, 40)}"'
            return failed(text, ErrorCode.BAD_REQUEST, 404)
        return await answer(asked)


async def _file(name: str) -> Page:
    path = _FILES / name
    body = await asyncio.to_thread(path.read_bytes)
    return Page(body, content_type=_TYPES[path.suffix], lines=_BOUNDS)
