"""The end of a call, told once to everyone who counts, in one order that ``app`` wires."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from modelsplit_proxy.records.record import CallRecord

logger = logging.getLogger("modelsplit")


class CallEnded:
    """Tells its listeners of each call that has ended, in the order in which they were added.

    A listener gets the record, which changes no more. It must not block. One that raises keeps
    the call from no other listener, and its error goes no further: the client has its answer.
    """

    def __init__(self) -> None:
        self._listeners: list[tuple[str, Callable[[CallRecord], None]]] = []
        self._of_jobs: list[tuple[str, Callable[[CallRecord], None]]] = []
        self._failures: dict[str, int] = {}
        self._logged: set[tuple[str, type[Exception]]] = set()

    @property
    def failures(self) -> Mapping[str, int]:
        """How often each listener has raised, by its name."""
        return self._failures

    def listen(
        self, name: str, listener: Callable[[CallRecord], None], *, only_jobs: bool = False
    ) -> None:
        """``name``: for the log and as a metric's label, so one of a closed set.

        ``only_jobs``: told of calls of jobs alone, behind all others.
        """
        (self._of_jobs if only_jobs else self._listeners).append((name, listener))
        self._failures.setdefault(name, 0)

    def tell(self, record: CallRecord) -> None:
        """Call every listener; raises nothing of theirs."""
        listeners = self._listeners
        if record.job_id is not None:
            listeners = [*listeners, *self._of_jobs]
        for name, listener in listeners:
            try:
                listener(record)
            except Exception as error:  # noqa: BLE001 - the client's answer is whole already
                self._failed(name, error, record.request_id)

    def _failed(self, name: str, error: Exception, request_id: str) -> None:
        """Count it, and log the first of its kind: the same fault may come with every call."""
        self._failures[name] += 1
        kind = type(error)
        if (name, kind) in self._logged:
            return
        self._logged.add((name, kind))
        logger.error(
            "at the end of call %s: %s failed; further %s there are only counted",
            request_id,
            name,
            kind.__name__,
            exc_info=error,
        )
