"""What holds for every test: its loop, its end if it hangs, chance, and the options."""

from __future__ import annotations

import inspect
import os
import time
from typing import TYPE_CHECKING

import hypothesis
import pytest

from support import patience, tools
from support.fake_time import FakeTimeLoop, FlowingTimeLoop
from support.hanging import Loop, guarded
from support.workers import ByFile

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Generator, Mapping

    from xdist.remote import Producer

# A busy machine makes an example slow, not wrong; and a run that fails must fail again.
hypothesis.settings.register_profile(
    "modelsplit",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("modelsplit")

# What people are told is in the machine's zone.
os.environ["TZ"] = "UTC"
time.tzset()


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """Every test runs on uvloop, as the product does."""
    if item.get_closest_marker("fake_time"):
        return {"fake time": FakeTimeLoop}
    if item.get_closest_marker("flowing_time"):
        return {"flowing time": FlowingTimeLoop}
    return {"uvloop": Loop}


@pytest.fixture(autouse=True)
def _patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    own_time = map(request.node.get_closest_marker, ("fake_time", "flowing_time"))
    patience.set_far_away(monkeypatch, real_time=not any(own_time))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = guarded(item.obj)
    yield


def pytest_addoption(parser: pytest.Parser) -> None:
    # It is said here because pytest asks for options before it looks into the folders.
    parser.addoption(
        "--write-clients-doc",
        action="store_true",
        help="write what tests/clients saw into docs/clients.md",
    )
    parser.addoption(
        "--tools",
        action="store_true",
        help="run the tests that need the programs in tests/tools.txt too; a missing one fails",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without ``--tools``, tests that need more than Python are left out, and counted so."""
    listed = tools.packages(tools.LIST.read_text())
    if wrong := tools.unlisted(items, listed):
        raise pytest.UsageError("not in tests/tools.txt:\n" + "\n".join(wrong))
    if config.getoption("--tools") or config.getoption("--write-clients-doc"):
        return
    left_out = [item for item in items if item.get_closest_marker("tools")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("tools")]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A program that is missing is a failure, never a reason to skip."""
    if missing := tools.missing(tools.named(item)):
        pytest.fail(f"not installed: {', '.join(missing)} (see tests/tools.txt)", pytrace=False)
