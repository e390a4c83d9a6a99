"""Far away: the product's own bounds on the disk, on reports, on what it and its commands ask.

A busy machine must not run into one. A test of such a bound sets it to what it expects to run into.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from modelsplit_client import async_transport, sync_transport
from modelsplit_policy import deadlines
from modelsplit_proxy import app
from modelsplit_proxy.cli import (
    admin_client,
    check,
    cloud_check,
    doctor_findings,
    doctor_network,
    experiments,
    port_holder,
    record_source,
    state_access,
)
from modelsplit_proxy.passthrough import fleet_routes, rewritten
from modelsplit_proxy.records import recorder, request_log
from modelsplit_proxy.storage import state_file, writer
from modelsplit_proxy.watch import installed_models, loaded_models, model_list, upstream_probe

if TYPE_CHECKING:
    import pytest

FAR_AWAY_S: Final = 3600.0
DISK: Final = (
    (recorder, "_CATCH_UP_S"),
    (request_log, "_CLOSE_S"),
    (state_file, "_CHECK_S"),
    (state_file, "_READ_MAX_S"),
    (writer, "_CLOSE_S"),
    (writer, "_JOIN_S"),
)
COMMANDS: Final = (
    (admin_client, "_TIMEOUT_S"),
    (check, "_ONLINE_TIMEOUT_S"),
    (cloud_check, "_TIMEOUT_S"),
    (doctor_findings, "_TIMEOUT_S"),
    (doctor_network, "_TLS_TIMEOUT_S"),
    (experiments, "_TIMEOUT_S"),
    (port_holder, "_TIMEOUT_S"),
    (record_source, "_TIMEOUT_S"),
    (state_access, "_BUSY_S"),
)
# What the proxy asks Ollama on its own account: in the time of the test's loop.
QUESTIONS: Final = (
    (app, "_FIRST_LOOK_S"),
    (installed_models, "_TIMEOUT_S"),
    (loaded_models, "_TIMEOUT_S"),
    (model_list, "_TIMEOUT_S"),
    (rewritten, "_PATIENCE_S"),
    (fleet_routes, "_LIST_S"),
    (upstream_probe, "_TIMEOUT_S"),
)
BOUNDS: Final = (
    *DISK,
    *COMMANDS,
    (sync_transport, "REPORT_TIMEOUT"),
    (async_transport, "REPORT_TIMEOUT"),
)


def set_far_away(monkeypatch: pytest.MonkeyPatch, *, real_time: bool) -> None:
    """``real_time``: the loop of the test tells the machine's time."""
    for module, name in (*BOUNDS, *QUESTIONS) if real_time else BOUNDS:
        monkeypatch.setattr(module, name, FAR_AWAY_S)


def notice_soon(monkeypatch: pytest.MonkeyPatch, mute_s: float) -> None:
    """Of an Ollama that hangs: a call of it is mute after ``mute_s``, and the probe asks often."""
    monkeypatch.setattr(deadlines, "MUTE_S", mute_s)
    monkeypatch.setattr(upstream_probe, "_TIMEOUT_S", 0.1)
    defaults = upstream_probe.UpstreamProbe.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "every_s", 0.05)
