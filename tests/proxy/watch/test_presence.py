"""Who is told that Ollama went away, and that it is back; on a clock that moves when told."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.outage import Outage
from modelsplit_proxy.http.upstream import Fault, UpstreamError, UpstreamTarget
from modelsplit_proxy.watch.presence import Presence
from support.fake_time import passes

if TYPE_CHECKING:
    from modelsplit_policy.vocabulary import Provider
    from modelsplit_proxy.limits.admission_queue import AdmissionQueue
    from modelsplit_proxy.limits.breakers import BreakerKeeper
    from modelsplit_proxy.watch.installed_models import InstalledModels
    from modelsplit_proxy.watch.upstream_probe import UpstreamProbe

REFUSED = UpstreamError(Fault.REFUSED, "connection refused")


class Everybody:
    """The line, the breakers and the probe: what they were told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.version: str | None = "1.0"
        self.is_answered = True
        self.away: Failure | None = None

    def hold(self, away: Failure) -> None:
        self.away = away
        self.told.append("hold")

    def go_on(self) -> None:
        self.told.append("go on")

    def hangs(self, upstream: str) -> None:
        self.told.append(f"{upstream} hangs" if upstream else "it hangs no longer")

    def give_up(self) -> None:
        self.told.append("give up")

    def answered(self, provider: Provider, *, returned: bool) -> None:
        self.told.append(f"{provider} {'is back' if returned else 'answers'}")

    def want(self) -> None:
        self.told.append("what is installed is wanted")

    def call_failed(self, error: UpstreamError) -> None:
        self.told.append(f"call failed: {error}")


def made() -> tuple[Presence, Everybody]:
    everybody = Everybody()
    presence = Presence(
        Outage(),
        cast("AdmissionQueue", everybody),
        cast("BreakerKeeper", everybody),
        cast("UpstreamProbe", everybody),
        cast("InstalledModels", everybody),
        UpstreamTarget("127.0.0.1", 11434, "127.0.0.1:11434"),
    )
    return presence, everybody


def test_the_line_is_told_that_it_hangs_until_it_answers() -> None:
    presence, everybody = made()
    presence.mute()
    presence.mute()
    presence.answered()
    presence.answered()
    hangs = "http://127.0.0.1:11434 hangs"
    assert everybody.told == [hangs, hangs, "it hangs no longer", *["LOCAL answers"] * 2]


@pytest.mark.fake_time
async def test_one_that_is_killed_hangs_no_longer() -> None:
    presence, everybody = made()
    presence.mute()
    assert not presence.failed(UpstreamError(Fault.CONNECT_TIMEOUT, "no connection within 2 s"))
    assert not presence.failed(REFUSED)
    assert everybody.told == ["http://127.0.0.1:11434 hangs", "it hangs no longer"]


@pytest.mark.fake_time
async def test_a_restart_holds_the_line_until_somebody_answers() -> None:
    presence, everybody = made()
    presence.answered()
    assert presence.call_failed(REFUSED), "it waits"
    assert presence.call_failed(REFUSED)
    assert not presence.failed(UpstreamError(Fault.RESET, "it closed the connection")), "was sent"
    await passes(3.0)
    presence.answered()
    presence.answered()
    await passes(60.0)
    assert everybody.told == [
        "LOCAL answers",
        "call failed: connection refused",
        "hold",
        "call failed: connection refused",
        "LOCAL is back",
        "go on",
        "what is installed is wanted",
        "LOCAL answers",
    ]
    away = everybody.away
    assert away is not None
    assert (away.code, away.reason) == (ErrorCode.UNREACHABLE_LOCAL, Reason.CONNECT_REFUSED)


@pytest.mark.fake_time
async def test_what_stays_away_for_too_long_is_waited_for_no_more() -> None:
    presence, everybody = made()
    presence.answered()
    presence.failed(REFUSED)
    await passes(9.9)
    assert presence.failed(REFUSED)
    await passes(0.2)
    assert not presence.failed(REFUSED)
    assert everybody.told == ["LOCAL answers", "hold", "give up"]
    presence.answered()
    assert everybody.told[3:] == ["LOCAL is back", "go on", "what is installed is wanted"]
    assert repr(presence) == "<Presence <Outage there>>"


@pytest.mark.fake_time
async def test_one_that_was_never_there_is_not_waited_for() -> None:
    presence, everybody = made()
    assert not presence.failed(REFUSED)
    await passes(60.0)
    assert everybody.told == []


async def test_another_version_may_have_other_models() -> None:
    presence, everybody = made()
    for everybody.version in ("1.0", None, "1.0", "1.1", "1.1"):
        presence.answered()
    assert everybody.told.count("what is installed is wanted") == 1


async def test_what_is_there_is_asked_what_it_has_where_it_did_not_say() -> None:
    presence, everybody = made()
    everybody.is_answered = False
    presence.answered()
    assert everybody.told == ["LOCAL answers", "what is installed is wanted"]


async def test_bad_http_is_an_answer_too() -> None:
    presence, everybody = made()
    assert not presence.failed(UpstreamError(Fault.PROTOCOL, "/api/version answered 404"))
    assert everybody.told == ["LOCAL answers"]


@pytest.mark.fake_time
async def test_closed_it_tells_nobody_any_more() -> None:
    presence, everybody = made()
    presence.answered()
    presence.failed(REFUSED)
    presence.close()
    await passes(60.0)
    assert everybody.told == ["LOCAL answers", "hold"]


@pytest.mark.fake_time
async def test_it_is_gone_while_nobody_answers_and_calls_do_not_wait_for_it() -> None:
    presence, _ = made()
    assert not presence.is_gone
    presence.failed(REFUSED)
    assert presence.is_gone, "nobody has seen it"
    presence.answered()
    presence.failed(REFUSED)
    assert not presence.is_gone, "calls wait"
    await passes(10.1)
    assert presence.is_gone
    presence.answered()
    assert not presence.is_gone
    presence.mute()
    assert presence.is_gone
