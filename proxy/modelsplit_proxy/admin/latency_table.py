"""The latencies of ``/stats`` as a table for people: one line a name, in milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelsplit_proxy.runtime.text_table import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def lines(latencies: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """``latencies``: by name and window.

    A process younger than a window has a shorter one; windows that are the same are shown once.
    """
    latencies = {name: _distinct(by_window) for name, by_window in latencies.items()}
    windows = next(iter(latencies.values())).values()
    header = ["LATENCY, MS"]
    for window in windows:
        header += [f"N IN {_span(window['window_s'])}", "P95", "P99"]
    rows = [[name, *_cells(by_window.values())] for name, by_window in latencies.items()]
    return table([header, *rows], "<" + ">" * (len(header) - 1))


def _distinct(by_window: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Without those that reach back as far as one before them."""
    first: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for name, window in by_window.items():
        first.setdefault(window["since"], (name, window))
    return dict(first.values())


def _cells(windows: Iterable[Mapping[str, Any]]) -> list[str]:
    cells = []
    for window in windows:
        cells += [str(window["n"]), _milliseconds(window["p95"]), _milliseconds(window["p99"])]
    return cells


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} S"
    return f"{seconds / 60:.0f} MIN" if seconds < 5400 else f"{seconds / 3600:.1f} H"
