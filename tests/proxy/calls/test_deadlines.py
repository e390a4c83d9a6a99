"""Waiting for the first byte in real time: what policy decides is waited for, told and asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from modelsplit_policy import deadlines
from modelsplit_policy.deadlines import Deadline, Limits
from modelsplit_policy.failures import Reason
from modelsplit_proxy.calls.deadlines import Known as Upstream
from modelsplit_proxy.calls.deadlines import LateError, first_byte
from modelsplit_proxy.http.upstream import Fault, UpstreamError, UpstreamHead

if TYPE_CHECKING:
    from modelsplit_proxy.http.upstream import Exchange
    from modelsplit_proxy.watch.loaded_models import LoadedModelsWatch
    from modelsplit_proxy.watch.upstream_probe import UpstreamProbe

pytestmark = pytest.mark.flowing_time

MODEL = "qwen3:4b"
HEAD = UpstreamHead(200, b"OK", [], None)
LIMITS = Limits(role_s=0.1, load_s=0.3, stall_s=60.0)


class Known:
    """A watch that knows what the test says; ``told`` is what asking would find out."""

    def __init__(self, loaded: bool | None, *told: bool | None) -> None:
        self.now = loaded
        self.told = list(told)
        self.asked = 0
        self.hurries = 0

    def loaded(self, model: str) -> bool | None:
        assert model == MODEL
        return self.now

    async def ask(self, *_: object) -> None:
        self.asked += 1
        self.now = self.told.pop(0)

    @contextlib.contextmanager
    def hurried(self) -> Iterator[None]:
        self.hurries += 1
        try:
            yield
        finally:
            self.hurries -= 1


class Answering:
    """An exchange whose answer begins when the test says so."""

    def __init__(self) -> None:
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ready_by(self, until: float | None) -> UpstreamHead | None:
        left_s = None if until is None else until - asyncio.get_running_loop().time()
        self.looks_again = asyncio.get_running_loop().create_future()
        await asyncio.wait(
            [self.begun, self.looks_again],
            timeout=left_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not self.begun.done():
            return None
        self.begun.result()
        return HEAD


class Waiting:
    """One wait for a first byte; ``spent`` is its length in loop seconds."""

    def __init__(self, known: Known, limits: Limits = LIMITS) -> None:
        self.known = known
        self.exchange = Answering()
        self.probe = SimpleNamespace(mute_since=None)
        self.began = asyncio.get_running_loop().time()
        self.deadline = Deadline(limits, self.began)

    @property
    def spent(self) -> float:
        return asyncio.get_running_loop().time() - self.began

    def at(self, seconds: float, do: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_at(self.began + seconds, do)

    def answer_at(self, seconds: float) -> None:
        self.at(seconds, lambda: self.exchange.begun.set_result(None))

    def loaded_at(self, seconds: float) -> None:
        self.at(seconds, lambda: setattr(self.known, "now", True))

    async def head(self) -> UpstreamHead:
        known = Upstream(cast("LoadedModelsWatch", self.known), cast("UpstreamProbe", self.probe))
        return await first_byte(cast("Exchange", self.exchange), self.deadline, known, MODEL)

    async def late(self) -> Reason:
        with pytest.raises(LateError) as caught:
            await self.head()
        assert self.known.hurries == 0
        return caught.value.reason


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "LOOK_EVERY_S", 0.005)


async def test_a_loaded_model_runs_the_roles_clock_at_once() -> None:
    wait = Waiting(Known(True, True))
    assert await wait.late() is Reason.ROLE_TIMEOUT
    assert 0.099 <= wait.spent < 0.25
    assert wait.known.asked == 1, "asked once more before giving up"


@pytest.mark.parametrize("known", [True, False, None])
async def test_an_answer_in_time_is_an_answer(known: bool | None) -> None:
    wait = Waiting(Known(known))
    wait.answer_at(0.02)
    assert await wait.head() is HEAD
    assert wait.known.asked == 0
    assert wait.known.hurries == 0


async def test_a_load_does_not_run_the_roles_clock() -> None:
    wait = Waiting(Known(False))
    wait.answer_at(0.2)
    assert await wait.head() is HEAD
    assert wait.spent > 1.9 * 0.1


async def test_an_answer_that_ends_a_load_starts_the_roles_clock_for_its_rest() -> None:
    """The first byte may come before anybody has seen that the model is loaded."""
    wait = Waiting(Known(False))
    wait.answer_at(0.2)
    await wait.head()
    bound, reason = wait.deadline.at()
    assert bound is not None
    assert reason is Reason.ROLE_TIMEOUT
    assert 0.299 <= bound - wait.began < 0.4


async def test_the_residency_is_hurried_while_somebody_waits_for_a_load() -> None:
    wait = Waiting(Known(False))
    hurries: list[int] = []
    wait.at(0.02, lambda: hurries.append(wait.known.hurries))
    wait.answer_at(0.04)
    await wait.head()
    assert (hurries, wait.known.hurries) == ([1], 0)


async def test_the_roles_clock_starts_when_the_model_is_loaded() -> None:
    wait = Waiting(Known(False, True))
    wait.loaded_at(0.15)
    assert await wait.late() is Reason.ROLE_TIMEOUT
    assert 0.249 <= wait.spent < 0.4
    bound, reason = wait.deadline.at()
    assert bound is not None
    assert reason is Reason.ROLE_TIMEOUT
    # What a stream is held to afterwards is the clock that moved on, not the one at dispatch.
    assert 0.249 <= bound - wait.began < 0.3


async def test_a_load_has_its_own_bound() -> None:
    wait = Waiting(Known(False))
    assert await wait.late() is Reason.LOAD_TIMEOUT
    assert 0.299 <= wait.spent < 0.45


async def test_a_load_that_nobody_can_see_the_end_of_is_bounded_too() -> None:
    wait = Waiting(Known(False))
    wait.at(0.02, lambda: setattr(wait.known, "now", None))
    assert await wait.late() is Reason.LOAD_TIMEOUT


async def test_where_nothing_is_known_the_roles_clock_runs() -> None:
    wait = Waiting(Known(None, None))
    assert await wait.late() is Reason.ROLE_TIMEOUT
    assert wait.spent < 0.25


@pytest.mark.parametrize("before", [True, None])
async def test_old_knowledge_does_not_cost_a_load(before: bool | None) -> None:
    """The model was evicted without our knowing: it is being loaded as we look again."""
    wait = Waiting(Known(before, False))
    wait.answer_at(0.2)
    assert await wait.head() is HEAD
    assert wait.known.asked == 1


async def test_a_load_that_was_noticed_late_is_bounded_from_its_dispatch() -> None:
    wait = Waiting(Known(True, False), Limits(role_s=0.2, load_s=0.3, stall_s=60.0))
    assert await wait.late() is Reason.LOAD_TIMEOUT
    assert 0.299 <= wait.spent < 0.45


async def test_a_model_that_is_evicted_again_and_again_is_not_waited_for_for_ever() -> None:
    wait = Waiting(Known(True, False, False, False, False))
    wait.loaded_at(0.15)
    wait.at(0.2, lambda: setattr(wait.known, "now", False))
    assert await wait.late() in {Reason.LOAD_TIMEOUT, Reason.ROLE_TIMEOUT}
    assert wait.spent < 0.6


async def test_beyond_the_bound_of_a_load_nobody_asks() -> None:
    wait = Waiting(Known(True), Limits(role_s=0.1, load_s=0.05, stall_s=60.0))
    assert await wait.late() is Reason.ROLE_TIMEOUT
    assert wait.known.asked == 0


async def test_without_a_bound_only_the_load_is_bounded() -> None:
    wait = Waiting(Known(False), Limits(role_s=None, load_s=0.1, stall_s=60.0))
    wait.loaded_at(0.05)
    wait.answer_at(0.3)
    assert await wait.head() is HEAD
    assert wait.deadline.at() == (None, Reason.ROLE_TIMEOUT)


@pytest.mark.parametrize("loaded", [True, False])
async def test_the_total_ends_either_wait_if_it_comes_first(*, loaded: bool) -> None:
    total_at = asyncio.get_running_loop().time() + 0.05
    limits = Limits(role_s=0.1, load_s=0.3, stall_s=60.0, total_at=total_at, total_s=2.0)
    wait = Waiting(Known(loaded), limits)
    assert await wait.late() is Reason.TOTAL_TIMEOUT
    assert wait.spent < 0.1
    assert wait.known.asked == 0, "a load changes nothing about the whole call's bound"
    assert wait.deadline.at() == (total_at, Reason.TOTAL_TIMEOUT)


async def test_the_total_shortens_and_never_lengthens() -> None:
    total_at = asyncio.get_running_loop().time() + 9.0
    limits = Limits(role_s=0.1, load_s=0.3, stall_s=60.0, total_at=total_at, total_s=9.0)
    assert await Waiting(Known(True, True), limits).late() is Reason.ROLE_TIMEOUT
    assert await Waiting(Known(False), limits).late() is Reason.LOAD_TIMEOUT


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_break_is_told_as_it_is(*, loaded: bool) -> None:
    wait = Waiting(Known(loaded))
    error = UpstreamError(Fault.RESET, "gone")
    wait.at(0.02, lambda: wait.exchange.begun.set_exception(error))
    with pytest.raises(UpstreamError) as caught:
        await wait.head()
    assert caught.value is error
    assert wait.known.hurries == 0


@pytest.mark.parametrize("loaded", [True, False])
async def test_whoever_waits_can_leave(*, loaded: bool) -> None:
    wait = Waiting(Known(loaded))
    waiting = asyncio.create_task(wait.head())
    for _ in range(3):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert wait.known.hurries == 0
    assert not wait.exchange.begun.cancelled(), "the exchange is not this wait's to end"


async def test_an_answer_that_begins_during_the_last_look_is_an_answer() -> None:
    """Out of time, and while it is asked whether the model is being loaded, it answers."""
    wait = Waiting(Known(True))

    async def ask(*_: object) -> None:
        wait.exchange.begun.set_result(None)

    wait.known.ask = ask  # type: ignore[method-assign]
    assert await wait.head() is HEAD


async def test_a_break_during_the_last_look_is_told_as_it_is() -> None:
    wait = Waiting(Known(True))
    error = UpstreamError(Fault.RESET, "gone")

    async def ask(*_: object) -> None:
        wait.exchange.begun.set_exception(error)

    wait.known.ask = ask  # type: ignore[method-assign]
    with pytest.raises(UpstreamError):
        await wait.head()


@pytest.mark.parametrize("loaded", [True, False, None])
async def test_a_mute_upstream_ends_the_wait_of_a_role_without_time(
    loaded: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "MUTE_S", 0.05)
    wait = Waiting(Known(loaded), Limits(None, 60.0, 60.0, first_byte_s=900.0))
    wait.probe.mute_since = wait.began
    assert await wait.late() is Reason.UPSTREAM_MUTE


async def test_who_waits_without_a_timer_looks_again_when_told_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadlines, "MUTE_S", 0.05)
    wait = Waiting(Known(True), Limits(None, 60.0, 60.0, first_byte_s=900.0))

    def mute() -> None:
        wait.probe.mute_since = wait.began
        wait.exchange.looks_again.set_result(None)

    wait.at(0.02, mute)
    assert await wait.late() is Reason.UPSTREAM_MUTE
