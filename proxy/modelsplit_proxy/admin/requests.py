"""What became of calls: a list, a trace, or one of them explained."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.failures import ErrorCode
from modelsplit_proxy.admin.page import Page, Pages, failed, json_page, text_page, wants_text
from modelsplit_proxy.records import explain, request_log, trace
from modelsplit_proxy.records.query import WORDS, only, read_number, read_query
from modelsplit_proxy.records.reader import newest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelsplit_proxy.admin.page import Handler, PageAsked
    from modelsplit_proxy.admin.parts import RequestParts
    from modelsplit_proxy.records.query import Query

_MAX_LATEST: Final = 1000


class RequestRoutes:
    """``/requests``, ``/requests/{id}``."""

    def __init__(self, parts: RequestParts) -> None:
        self._parts = parts
        self.routes: Mapping[str, Handler] = {
            "/requests": self._requests,
            "/requests/{id}": self._request,
        }

    async def _requests(self, asked: PageAsked) -> Page | Pages:
        """Calls as JSON or as lines, newest first; or finished ones as a trace, oldest first."""
        only(asked.query, (*WORDS, "limit", "format"))
        query = read_query(asked.query, self._parts.clock.wall())
        if asked.query.get("format") == "trace":
            return await self._trace(self._parts.recorder.reader.in_order(query))
        limit = read_number("limit", asked.query.get("limit"), 100, _MAX_LATEST)
        calls = await self._latest(query, limit)
        if wants_text(asked, "trace"):
            return text_page(request_log.listing(calls))
        return json_page(calls)

    async def _latest(self, query: Query, limit: int) -> list[dict[str, Any]]:
        """Running calls as they are, and finished ones."""
        # Before the others: one that ends meanwhile is told once, as it ended.
        running = self._parts.live.newest(query, limit)
        kept = await asyncio.to_thread(self._parts.recorder.latest, query, limit)
        return newest([*kept, *running], limit)

    async def _trace(self, pages: Iterator[list[dict[str, Any]]]) -> Pages:
        """Page by page: nothing grows with the number of calls."""
        lines = (trace.lines(page) for page in pages)
        return Pages(await asyncio.to_thread(next, lines, None), lines)

    async def _request(self, asked: PageAsked) -> Page:
        """One call, running or finished, as JSON or in words."""
        request_id = asked.item
        live = self._parts.live
        fields = live.find(request_id)
        if fields is None:
            fields = await asyncio.to_thread(self._parts.recorder.find, request_id)
        if fields is None:
            fields = live.begins(request_id)
        if fields is None:
            text = f'no call has the request id "{request_id[:128]}"'
            return failed(text, ErrorCode.BAD_REQUEST, 404)
        return text_page(explain.text(fields)) if wants_text(asked) else json_page(fields)
