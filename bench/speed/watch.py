"""What is asked of modelsplit while it is measured: its loop's lag, and its page's figures."""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from speed.cells import Target

_BUCKET = re.compile(
    r'^modelsplit_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE
)
_EVERY_S = 1.0


def fetch(port: int, path: str) -> str:
    """A page of the admin port."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        client.request("GET", path)
        return client.getresponse().read().decode()
    finally:
        client.close()


@dataclass(frozen=True, slots=True)
class Lag:
    """Ticks of the event loop by how late they were: bound in seconds -> ticks up to there."""

    counts: dict[str, float]

    @staticmethod
    def read(admin_port: int) -> Lag:
        found = _BUCKET.findall(fetch(admin_port, "/metrics"))
        return Lag({bound: float(count) for bound, count in found})

    def since(self, before: Lag) -> Lag:
        return Lag({bound: n - before.counts.get(bound, 0) for bound, n in self.counts.items()})

    def bound_ms(self, share: float) -> float:
        """The bucket's bound within which ``share`` of the ticks came; nan for no ticks."""
        ticks = self.counts.get("+Inf", 0.0)
        within = [
            float(bound) for bound, count in self.counts.items() if ticks and count >= share * ticks
        ]
        return min(within, default=float("nan")) * 1000


@contextlib.contextmanager
def watching(targets: list[Target]) -> Iterator[None]:
    """Ask for the statistics once a second, as an open page does."""
    over = threading.Event()
    ports = [target.admin_port for target in targets if target.admin_port is not None]

    def watch() -> None:
        while not over.wait(_EVERY_S):
            for port in ports:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    fetch(port, "/stats")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
