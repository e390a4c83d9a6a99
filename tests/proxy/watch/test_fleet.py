"""What is known of several hosts together."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from modelsplit_policy.breaker import BreakerRules, Breakers
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.hints import Absence
from modelsplit_policy.host_rules import EVERYTHING
from modelsplit_policy.vocabulary import Host, Provider
from modelsplit_proxy.limits.breakers import BreakerKeeper
from modelsplit_proxy.watch.fleet import (
    Fleet,
    FleetLoadedModels,
    FleetProbe,
    HostBars,
    UpstreamHost,
)
from support.attempts import Ticking


class Watch:
    def __init__(self, **loaded: bool) -> None:
        self._loaded = loaded
        self.models = frozenset(name for name, is_loaded in loaded.items() if is_loaded)
        self.answer = orjson.dumps({"models": [{"name": name} for name in sorted(self.models)]})
        self.told: list[str] = []

    def loaded(self, model: str) -> bool | None:
        return self._loaded.get(model)

    @contextlib.contextmanager
    def hurried(self) -> Iterator[None]:
        self.told.append("hurried")
        yield

    async def ask(self, wait_s: float | None) -> None:
        self.told.append(f"asked for {wait_s}")

    async def look(self) -> None:
        self.told.append("looked at")

    def call_ended(self, record: object) -> None:
        del record
        self.told.append("a call has ended")


class Models:
    """What a host has; ``had``: and what it had when it said so last."""

    def __init__(self, models: tuple[str, ...], had: tuple[str, ...]) -> None:
        self._models, self._had = models, had

    def has(self, model: str) -> bool:
        return model in self._models

    def may_have(self, model: str) -> bool:
        return model in self._had


def host(name: str, **more: Any) -> UpstreamHost:
    values: dict[str, Any] = {
        "up": True,
        "version": "1.0",
        "error": None,
        "mute_since": None,
        "away_since": None,
        "unanswered": (),
        "watch": Watch(),
        "gone": False,
        "models": (),
        "had": (),
    } | more
    probe = SimpleNamespace(**{key: values[key] for key in ("up", "version", "error")})
    for key in ("mute_since", "away_since", "unanswered"):
        setattr(probe, key, values[key])
    probe.absence = Absence.GONE if values["mute_since"] is None else Absence.HANGS
    probe.look = values["watch"].look
    return UpstreamHost(
        Host(name),
        name,
        *cast("tuple[Any, Any]", (None, None)),
        cast("Any", probe),
        cast("Any", Models(values["models"], values["had"])),
        cast("Any", values["watch"]),
        cast("Any", SimpleNamespace(is_gone=values["gone"])),
        cast("Any", None),
        EVERYTHING,
    )


def nobody(name: Host) -> bool:
    """None is drained."""
    del name
    return False


@pytest.mark.parametrize(
    ("ups", "together"),
    [((True, False), True), ((None, False), None), ((False, False), False), ((None, True), True)],
)
def test_the_fleet_is_there_while_one_host_is(
    ups: tuple[bool | None, ...], together: bool | None
) -> None:
    hosts = [host(name, up=up) for name, up in zip("ab", ups, strict=True)]
    assert FleetProbe(hosts, nobody).up is together


def test_what_is_wrong_is_told_of_each_while_none_is_there() -> None:
    away = {"up": False, "version": None}
    probe = FleetProbe(
        [host("a", error="refused", **away), host("b", error="reset", **away)], nobody
    )
    assert (probe.error, probe.version) == ("a: refused; b: reset", None)
    one = FleetProbe([host("a", error="refused", **away), host("b")], nobody)
    assert (one.error, one.version) == (None, "1.0")
    assert one.away == ("a does not answer (refused)",)
    assert probe.away == ()


async def test_each_host_that_leaves_its_question_open_is_named() -> None:
    hosts = [host("a", unanswered=(("Ollama", 3.0),)), host("b")]
    probe = FleetProbe(hosts, nobody)
    assert probe.unanswered == (("host a", 3.0),)
    await probe.look()
    assert [cast("Any", one.loaded_models).told for one in hosts] == [["looked at"]] * 2


def test_all_are_away_since_the_last_of_them_went() -> None:
    assert FleetProbe([host("a", away_since=3.0), host("b")], nobody).away_since is None
    both = [host("a", away_since=3.0), host("b", away_since=5.0)]
    assert FleetProbe(both, nobody).away_since == 5.0


@pytest.mark.parametrize(
    ("away", "drained", "told"),
    [
        ("", "a", ()),
        ("b", "a", ("a is drained", "b does not answer (refused)")),
        ("", "ab", ("a is drained", "b is drained")),
        ("ab", "", ()),
    ],
)
def test_the_fleet_is_shut_where_whom_nobody_drained_is_away(
    away: str, drained: str, told: tuple[str, ...]
) -> None:
    hosts = [host(name, up=name not in away, error="refused") for name in "ab"]
    assert FleetProbe(hosts, drained.__contains__).shut == told


def test_the_fleet_hangs_where_all_of_it_does() -> None:
    one = FleetProbe([host("a", mute_since=3.0), host("b")], nobody)
    assert (one.mute_since, one.absence) == (None, Absence.GONE)
    both = FleetProbe([host("a", mute_since=3.0), host("b", mute_since=5.0)], nobody)
    assert (both.mute_since, both.absence) == (5.0, Absence.HANGS)


async def test_a_model_is_loaded_where_one_host_has_it() -> None:
    near, far = Watch(m=True, n=False), Watch(m=False, n=False)
    both = FleetLoadedModels([host("a", watch=near), host("b", watch=far)])
    assert [both.loaded(name) for name in ("m", "n", "k")] == [True, False, None]
    assert both.models == frozenset({"m"})
    assert orjson.loads(both.answer) == {"models": [{"name": "m", "host": "a"}]}
    with both.hurried():
        await both.ask(0.5)
    assert near.told == far.told == ["hurried", "asked for 0.5"]


def test_the_end_of_a_call_concerns_the_host_it_went_to() -> None:
    near, far = Watch(), Watch()
    both = FleetLoadedModels([host("a", watch=near), host("b", watch=far)])
    both.call_ended(cast("Any", SimpleNamespace(attempts=[SimpleNamespace(host="b")])))
    both.call_ended(cast("Any", SimpleNamespace(attempts=[])))
    assert (near.told, far.told) == ([], ["a call has ended"])


def test_what_no_call_asks_is_asked_of_the_first_host_that_is_there() -> None:
    hosts = [host("a", up=False), host("b", up=None), host("c", models=("m",))]
    assert Fleet(hosts).anyone().name == "c"
    assert Fleet(hosts[:2]).anyone().name == "b"
    assert Fleet(hosts[:1]).anyone().name == "a"
    found = Fleet(hosts).with_installed("M:latest")
    assert found is not None
    assert found.name == "c"
    assert Fleet(hosts[:2]).with_installed("m") is None


def test_a_model_is_asked_about_at_the_host_that_had_it_and_is_away_rather_than_denied() -> None:
    """Who is there would say that it is not installed."""
    away, there = host("a", up=False, had=("m",)), host("b", models=("n",))
    found = Fleet([there, away]).with_installed("m")
    assert found is away
    found = Fleet([away, host("c", models=("m",))]).with_installed("m")
    assert found is not None
    assert found.name == "c"
    # One that is there and has not said yet is known to lack nothing.
    assert not host("d", up=True, had=("m",)).may_have("m")


def test_a_model_is_unloaded_where_it_is_loaded() -> None:
    fleet = Fleet([host("a"), host("b", watch=Watch(m=True))])
    found = fleet.with_loaded("m", [Host("a"), Host("b")])
    assert found is not None
    assert found.name == "b"
    assert fleet.with_loaded("m", [Host("a")]) is None


def test_a_host_is_barred_while_it_is_gone_or_its_breaker_is_open() -> None:
    clock = Ticking()
    breakers = BreakerKeeper(Breakers(BreakerRules(failures=1, pairs=1, open_s=2.0)), clock)
    bars = HostBars([host("a", gone=True), host("b")], breakers)
    now = clock.now()
    assert (bars.bar(Host("a"), "m", now), bars.bar(Host("b"), "m", now)) == (math.inf, 0.0)
    allowed = breakers.admit(Provider.LOCAL, "m", None, Host("b"))
    assert not isinstance(allowed, Failure)
    failed = Failure(ErrorCode.UPSTREAM_LOCAL, Reason.RUNNER_FAILED, "it died", "Bad Gateway")
    breakers.ended(allowed, failed, completed=False)
    assert bars.bar(Host("b"), "m", now) == pytest.approx(2.0)
    assert bars.bar(Host("b"), "n", now) == 0.0
