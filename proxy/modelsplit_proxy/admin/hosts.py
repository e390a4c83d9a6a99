"""The hosts: how they stand, and whether they take new calls."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from modelsplit_policy.failures import ErrorCode, said_back
from modelsplit_proxy.admin import host_rows
from modelsplit_proxy.admin.page import Page, failed, json_page, text_page, wants_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.admin.page import Handler, PageAsked
    from modelsplit_proxy.admin.parts import HostParts

logger = logging.getLogger("modelsplit")

_NAME_MAX = 64


class HostRoutes:
    """``/hosts``; ``drains`` are posted: ``/hosts/{id}/drain|undrain``."""

    def __init__(self, parts: HostParts) -> None:
        self._parts = parts
        self.routes: Mapping[str, Handler] = {"/hosts": self._hosts}
        self.drains: Mapping[str, bool] = {
            "/hosts/{id}/drain": True,
            "/hosts/{id}/undrain": False,
        }

    async def _hosts(self, asked: PageAsked) -> Page:
        rows = host_rows.whole_rows(self._parts)
        if wants_text(asked):
            return text_page("".join(f"{line}\n" for line in host_rows.lines(rows)))
        return json_page(rows)

    def write(self, route: str, name: str) -> Page:
        """Have a host take no new calls, or take them again. ``route``: a key of ``drains``."""
        fleet, is_drained = self._parts.fleet, self.drains[route]
        host = None if fleet is None else fleet.by_name.get(name)
        if fleet is None or host is None:
            known = "the policy names none" if fleet is None else ", ".join(fleet.by_name)
            text = f'there is no host "{said_back(name, _NAME_MAX)}": {known}'
            return failed(text, ErrorCode.BAD_REQUEST, 404)
        self._parts.queue.drain(host.name, is_drained=is_drained)
        what = "takes no new calls" if is_drained else "takes calls again"
        logger.info("host %s %s", host.name, what)
        [row] = [row for row in host_rows.rows(self._parts) if row["name"] == host.name]
        return json_page(row)
