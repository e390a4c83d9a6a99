"""Whether the objectives hold, gate by gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_policy.failures import said_back
from modelsplit_policy.slo.objectives import GATES
from modelsplit_proxy.admin.page import Page, json_page, text_page, wants_text
from modelsplit_proxy.config.settings import other_than_default
from modelsplit_proxy.records import slo_report
from modelsplit_proxy.records.query import only, read_since
from modelsplit_proxy.records.query_error import QueryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.admin.page import Handler, PageAsked
    from modelsplit_proxy.admin.parts import SloParts


class SloRoutes:
    """``/slo``."""

    def __init__(self, parts: SloParts) -> None:
        self._parts = parts
        self.routes: Mapping[str, Handler] = {"/slo": self._slo}

    async def _slo(self, asked: PageAsked) -> Page:
        """Every gate, or the one that is named; ``since``: by so much time."""
        query = asked.query
        only(query, ("gate", "since", "format"))
        as_markdown = query.get("format") == "markdown"
        as_text = not as_markdown and wants_text(asked, "markdown")
        gates = read_gates(query.get("gate"))
        since_s = read_window_s(query, self._parts.clock.wall())
        fields = slo_report.fields(await self._parts.judge.report(since_s, gates))
        if not as_text and not as_markdown:
            return json_page(fields)
        asked_at = other_than_default(self._parts.admin())
        where = f"--admin {asked_at}" if asked_at else ""
        lines = slo_report.lines(fields, where) if as_text else slo_report.markdown(fields)
        return text_page("".join(f"{line}\n" for line in lines))


def read_gates(raw: str | None) -> frozenset[int] | None:
    """One gate by its number; None: all. Raises QueryError."""
    if raw is None:
        return None
    known = {str(gate): gate for gate in GATES}
    if raw not in known:
        raise QueryError(
            f'gate "{said_back(raw, 20)}" is unknown; the gates are {", ".join(known)}'
        )
    return frozenset({known[raw]})


def read_window_s(values: Mapping[str, str], now_wall: float) -> int | None:
    """How far ``since`` looks back, whole seconds; None: it is not there. Raises QueryError."""
    if "since" not in values:
        return None
    seconds = round(now_wall - read_since(values, now_wall) / 1e6)
    if seconds < 1:
        raise QueryError(f'since "{said_back(values["since"], 30)}" is not in the past')
    return seconds
