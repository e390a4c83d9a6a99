"""Whether the process and its service are well: for watchdogs, load balancers, Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from modelsplit_proxy.admin import headroom
from modelsplit_proxy.admin.page import Page, json_page
from modelsplit_proxy.metrics import storage as storage_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelsplit_proxy.admin.page import Handler, PageAsked
    from modelsplit_proxy.admin.parts import HealthParts
    from modelsplit_proxy.http.upstream import UpstreamTarget
    from modelsplit_proxy.watch.fleet import FleetProbe
    from modelsplit_proxy.watch.upstream_probe import UpstreamProbe


class HealthRoutes:
    """``/healthz``, ``/readyz``, ``/metrics``."""

    def __init__(self, parts: HealthParts) -> None:
        self._parts = parts
        self.routes: Mapping[str, Handler] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
        }

    async def _healthz(self, asked: PageAsked) -> Page:
        """200 while the process can answer, whatever it has to say of the service."""
        del asked
        parts = self._parts
        health = parts.service.fields()
        return json_page(
            {
                "status": health["level"].lower(),
                "error": health["cause"] or None,
                "health": health,
                "upstream": upstream_fields(parts.probe, parts.target),
                "ledger": storage_metrics.fields(parts.store, parts.recorder),
            }
        )

    async def _readyz(self, asked: PageAsked) -> Page:
        """503 while calls would fail: draining, or Ollama known to be away.

        Its header tells how much room there is.
        """
        del asked
        parts = self._parts
        room = headroom.measured(parts.headroom)
        body = {
            "ready": room.ready,
            "draining": room.draining,
            "upstream": upstream_fields(parts.probe, parts.target),
            "headroom": room.fields(),
        }
        return json_page(body, status=200 if room.ready else 503, lines=room.lines())

    async def _metrics(self, asked: PageAsked) -> Page:
        del asked
        text = generate_latest(self._parts.registry)
        return Page(text, content_type=CONTENT_TYPE_LATEST)


def upstream_fields(probe: UpstreamProbe | FleetProbe, target: UpstreamTarget) -> dict[str, Any]:
    """What is known of the upstream, as plain values."""
    return {
        "address": f"http://{target.authority}",
        "up": probe.up,
        "version": probe.version,
        "error": probe.error,
    }
