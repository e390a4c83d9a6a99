"""The hosts as they stand, as plain values and as lines; none where there is only the upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelsplit_proxy.runtime.text_table import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from modelsplit_policy.admission import Admission
    from modelsplit_policy.hosts import HostSeats
    from modelsplit_proxy.watch.fleet import Fleet, UpstreamHost

_GIB = 2**30


def rows(fleet: Fleet | None, admission: Admission) -> list[dict[str, Any]]:
    """One for each host, in the policy's order; ``installed``: how many models."""
    if fleet is None:
        return []
    return [_row(host, admission.host(host.name)) for host in fleet.hosts]


def whole_rows(fleet: Fleet | None, admission: Admission) -> list[dict[str, Any]]:
    """The same with the names of the models that each has installed."""
    names = () if fleet is None else [sorted(host.model_list.names()) for host in fleet.hosts]
    return [
        row | {"models": models} for row, models in zip(rows(fleet, admission), names, strict=True)
    ]


def _row(host: UpstreamHost, seats: HostSeats) -> dict[str, Any]:
    probe, loaded, memory = host.probe, host.loaded_models.models, seats.rules.memory
    return {
        "name": host.name,
        "address": f"http://{host.target.authority}",
        "state": _state(host, seats),
        "drained": seats.drained,
        "up": probe.up,
        "version": probe.version,
        "error": probe.error,
        "running": seats.running,
        "seats": seats.seats,
        "useful": seats.parallelism.host,
        "tier": seats.rules.tier,
        "weight": seats.rules.weight,
        "memory_gb": None if memory is None else round(memory / _GIB, 3),
        "loaded": None if loaded is None else sorted(loaded),
        "installed": None if seats.installed is None else len(seats.installed),
    }


def _state(host: UpstreamHost, seats: HostSeats) -> str:
    """``draining`` while a drained host has calls; ``hangs``: it takes them and says nothing."""
    if seats.drained:
        return "draining" if seats.running else "drained"
    if host.probe.mute_since is not None:
        return "hangs"
    return {True: "up", None: "unknown", False: "away"}[host.probe.up]


def lines(hosts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """``hosts``: as ``rows`` gives them."""
    told = [
        (
            row["name"],
            row["state"],
            f"{row['running']}/{row['seats']}",
            str(row["useful"]),
            str(row["tier"]),
            row["version"] or "-",
            "unknown" if row["loaded"] is None else ", ".join(row["loaded"]) or "nothing",
            row["address"],
        )
        for row in hosts
    ]
    head = ("HOST", "STATE", "RUN/CAP", "USEFUL", "TIER", "OLLAMA", "LOADED", "ADDRESS")
    yield from table([head, *told], "<<>>><<<")
