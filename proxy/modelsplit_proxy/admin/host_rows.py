"""The hosts as they stand, as plain values and as lines; none where there is only the upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from modelsplit_policy.health_samples import not_closed
from modelsplit_proxy.runtime.text_table import table
from modelsplit_proxy.watch.residents import residents

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from modelsplit_policy.admission import Admission
    from modelsplit_policy.breaker import BreakerView
    from modelsplit_policy.hosts import HostSeats
    from modelsplit_proxy.limits.breakers import BreakerKeeper
    from modelsplit_proxy.watch.fleet import Fleet, UpstreamHost

_GIB = 2**30


class Parts(Protocol):
    """What the rows are made of; ``fleet`` None: there is one upstream."""

    @property
    def fleet(self) -> Fleet | None: ...
    @property
    def admission(self) -> Admission: ...
    @property
    def breakers(self) -> BreakerKeeper: ...


def rows(parts: Parts) -> list[dict[str, Any]]:
    """One for each host, in the policy's order; ``installed``: how many models.

    ``stopped``: what its breakers stop, models by name, empty: all calls. ``in_use_gb``: memory of
    its GPU that loaded models take, as the host says; None: it does not.
    """
    if parts.fleet is None:
        return []
    stopped = not_closed(parts.breakers.snapshot())
    return [_row(host, parts.admission.host(host.name), stopped) for host in parts.fleet.hosts]


def whole_rows(parts: Parts) -> list[dict[str, Any]]:
    """The same with the names of the models that each has installed."""
    hosts = () if parts.fleet is None else parts.fleet.hosts
    names = [sorted(host.model_list.names()) for host in hosts]
    return [row | {"models": models} for row, models in zip(rows(parts), names, strict=True)]


def _row(host: UpstreamHost, seats: HostSeats, stopped: Iterable[BreakerView]) -> dict[str, Any]:
    probe, loaded, memory = host.probe, host.loaded_models.models, seats.rules.memory
    in_use = None if loaded is None else _in_use(host.loaded_models.answer)
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
        "in_use_gb": None if in_use is None else round(in_use / _GIB, 3),
        "stopped": [view.key.model or "" for view in stopped if view.key.host == host.name],
        "loaded": None if loaded is None else sorted(loaded),
        "installed": None if seats.installed is None else len(seats.installed),
    }


def _in_use(answer: bytes) -> int | None:
    """Bytes on the GPU, as a list of loaded models says; None: it does not say of each."""
    taken = [row.size_vram for row in residents(answer)]
    return None if None in taken else sum(size for size in taken if size is not None)


def _state(host: UpstreamHost, seats: HostSeats) -> str:
    """``draining`` while a drained host has calls; ``hangs``: it takes them and says nothing."""
    if seats.drained:
        return "draining" if seats.running else "drained"
    if host.probe.mute_since is not None:
        return "hangs"
    return {True: "up", None: "unknown", False: "away"}[host.probe.up]


def _told(row: Mapping[str, Any]) -> str:
    """Its state in a word; one that answers takes no calls while its breaker is open."""
    is_stopped = row["state"] == "up" and "" in row.get("stopped", ())
    return "breaker" if is_stopped else str(row["state"])


def lines(hosts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """``hosts``: as ``rows`` gives them."""
    told = [
        (
            row["name"],
            _told(row),
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
