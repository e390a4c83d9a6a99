"""Traces are off unless asked for, and say what they need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelsplit_proxy.config.settings import SettingError
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.tracing import setup
from support.harness import settings

TESTS = Path(__file__).parents[2]

# A whole proxy, one call through it, and what of OpenTelemetry has been imported meanwhile.
SERVES = """
import asyncio, sys
from support.calls import call
from support.harness import running

async def serve():
    async with running() as up, up.client() as client:
        assert (await client.request("POST", "/api/generate", call("/api/generate", "x"))).status

asyncio.run(serve())
optional = {"opentelemetry", "google", "requests", "urllib3"}
print(sorted(optional & {name.partition(".")[0] for name in sys.modules}))
"""


def test_nobody_who_did_not_ask_has_traces(tmp_path: Path) -> None:
    assert setup.traces(settings(1, tmp_path), SystemClock()) is None


def test_nothing_of_opentelemetry_is_imported_where_it_is_off() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SERVES], cwd=TESTS, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "[]\n"), ran.stderr


def test_without_the_extra_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "find_spec", lambda _: None)
    asked = settings(1, tmp_path, otlp_endpoint="http://127.0.0.1:4318/v1/traces")
    with pytest.raises(SettingError, match="opentelemetry-sdk"):
        setup.traces(asked, SystemClock())
