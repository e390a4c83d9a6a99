"""What looks back over the kept records: cost, experiments."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from modelsplit_policy.failures import ErrorCode
from modelsplit_proxy.admin.page import failed, json_page
from modelsplit_proxy.records import cost_history
from modelsplit_proxy.records.experiment_data import ExperimentData
from modelsplit_proxy.records.experiment_report import UnknownExperimentError, report
from modelsplit_proxy.records.query import read_since

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.admin.page import Handler, Page, PageAsked
    from modelsplit_proxy.admin.parts import ReportParts


class ReportRoutes:
    """``/cost``, ``/experiments``."""

    def __init__(self, parts: ReportParts) -> None:
        self._parts = parts
        self.routes: Mapping[str, Handler] = {
            "/cost": self._cost,
            "/experiments": self._experiments,
        }

    async def _cost(self, asked: PageAsked) -> Page:
        """What calls have cost, within a day unless the query says since when."""
        parts = self._parts
        since = {"since": asked.query.get("since", "1d")}
        since_us = read_since(since, parts.clock.wall())
        read, table = parts.recorder.read, parts.costs.table
        return json_page(await asyncio.to_thread(cost_history.spent, read, since_us, table))

    async def _experiments(self, asked: PageAsked) -> Page:
        """What experiments have shown so far, or the one that is named."""
        parts, query = self._parts, asked.query
        since_us = read_since(query, parts.clock.wall())
        policy, data = parts.policy, ExperimentData(parts.recorder.read)
        try:
            fields = await asyncio.to_thread(report, policy, data, query.get("name"), since_us)
        except UnknownExperimentError as error:
            return failed(str(error), ErrorCode.BAD_REQUEST, 404)
        return json_page(fields)
