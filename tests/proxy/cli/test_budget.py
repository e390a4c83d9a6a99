"""``modelsplit budget``, with and without a running proxy."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelsplit_proxy.cli import budget
from modelsplit_proxy.cli import main as cli
from modelsplit_proxy.limits import egress_store
from modelsplit_proxy.limits.egress_store import Leaving
from modelsplit_proxy.protocol.stream_end import Usage
from modelsplit_proxy.runtime.clock import SystemClock, boot_id, machine_clocks
from modelsplit_proxy.storage.state_file import FILE_NAME
from modelsplit_sim.config import SimConfig
from modelsplit_sim.models import DEFAULT_MODELS, ModelSpec
from support.budget_keepers import Clocks, budget_keeper
from support.calls import call
from support.harness import running
from support.stores import opened

Capture = pytest.CaptureFixture[str]
BY = ("--by", "kim", "--reason", "a trial")
APPROVE = ("approve", "--usd", "5", "--days", "7", *BY)


@pytest.fixture
def at(tmp_path: Path) -> tuple[str, ...]:
    """A state directory that a proxy has had."""
    with opened(tmp_path):
        return ("--state", str(tmp_path))


def said(capsys: Capture, *arguments: str, code: int = 0) -> str:
    """What one verb printed, on stdout if it went well."""
    assert cli.run(["budget", *arguments], {}) == code
    out = capsys.readouterr()
    assert bool(out.out) is (code == 0)
    return out.out if code == 0 else out.err


def shown(capsys: Capture, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said(capsys, "show", "--json", *arguments))
    return found


def test_an_approval_from_its_first_day_to_its_revocation(
    at: tuple[str, ...], capsys: Capture
) -> None:
    assert "approval none: the cloud is closed" in said(capsys, "show", *at)
    text = said(capsys, *APPROVE, *at)
    assert text.startswith("approval 1: 5.00 USD for the cloud until 20")
    assert text.endswith(" UTC, by kim: a trial\n")
    text = said(capsys, "show", *at)
    assert "\nbudget   cloud  0/9 calls, 0.00/5.00 USD in 1d\n" in text
    assert "\napproval 1  5.00 of 5.00 USD left until 20" in text
    assert text.endswith(" UTC  approve 1: 5.00 USD for 7 days, by kim: a trial\n")
    assert said(capsys, "revoke", *BY, *at) == "approval 1 is revoked\n"
    text = said(capsys, "show", *at)
    assert "approval none: the cloud is closed" in text
    assert text.endswith(" UTC  revoke 1, by kim: a trial\n")


def test_one_of_several_approvals_is_revoked_and_the_rest_with_one_word(
    at: tuple[str, ...], capsys: Capture
) -> None:
    at = (*at, "--json")
    for number in (1, 2, 3):
        assert json.loads(said(capsys, *APPROVE, *at))["id"] == number
    assert json.loads(said(capsys, "revoke", "2", *BY, *at)) == {"revoked": [2], "state": at[1]}
    assert json.loads(said(capsys, "revoke", *BY, *at))["revoked"] == [1, 3]
    history = shown(capsys, *at[:2])["history"]
    assert [(one["action"], one["revokes"]) for one in history] == [
        *[("approve", None)] * 3,
        *[("revoke", number) for number in (2, 1, 3)],
    ]


def test_what_is_not_in_force_cannot_be_revoked(at: tuple[str, ...], capsys: Capture) -> None:
    assert "no approval is in force" in said(capsys, "revoke", *BY, *at, code=1)
    said(capsys, *APPROVE, *at)
    assert "approval 7 is not in force" in said(capsys, "revoke", "7", *BY, *at, code=1)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--usd", "0", "--days", "7", *BY), "--usd 0 is not more than 0"),
        (("--usd", "nan", "--days", "7", *BY), "--usd nan is not more than 0"),
        (("--usd", "5", "--days", "367", *BY), "--days 367 is not more than 0 and at most 366"),
        (("--usd", "1e7", "--days", "7", *BY), "more than 0 and at most 1000000"),
        (("--usd", "5", "--days", "7", "--by", " ", "--reason", "r"), "--by must be 1 to 200"),
        (("--usd", "5", "--days", "7", "--by", "k", "--reason", "a\nb"), "--reason must be 1 to"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(
    tmp_path: Path, capsys: Capture, arguments: tuple[str, ...], why: str
) -> None:
    at = ("--state", str(tmp_path / "state"))
    assert why in said(capsys, "approve", *arguments, *at, code=2)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    "verb", [("show",), APPROVE, ("revoke", *BY), ("reset", *BY)], ids=lambda verb: verb[0]
)
def test_a_mistyped_place_is_not_taken_for_an_empty_one(
    tmp_path: Path, capsys: Capture, verb: tuple[str, ...]
) -> None:
    typo = tmp_path / "typo"
    text = said(capsys, *verb, "--state", str(typo), code=2)
    assert text == (
        f"modelsplit: no state file there: {typo / FILE_NAME}; --state names the one of `serve`\n"
    )
    assert not typo.exists()


def test_before_the_first_start_it_says_so_and_an_approval_waits_for_it(
    tmp_path: Path, capsys: Capture
) -> None:
    environ = {"MODELSPLIT_STATE": str(tmp_path / "modelsplit")}
    nobody = ("--admin", "127.0.0.1:1")
    path = tmp_path / "modelsplit" / FILE_NAME
    for verb in (("show",), APPROVE):
        assert cli.run(["budget", *verb, *nobody], environ) == 0
        err = capsys.readouterr().err.splitlines()
        assert err[0] == (
            f"modelsplit: no state file there yet: {path}; no modelsplit has served from it"
        )
        # What was approved cannot be spent before the policy names a model that somebody serves.
        assert err[1:] == ([UNSERVED, UNPRICED] if verb is APPROVE else [])
    assert cli.run(["budget", "show", *nobody], environ) == 0
    out = capsys.readouterr()
    assert "5.00 of 5.00 USD left" in out.out
    assert out.err == f"modelsplit: state file {path} (by MODELSPLIT_STATE)\n"


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Where a user's own proxy and a service would have their state; neither is there yet."""
    service = tmp_path / "service"
    monkeypatch.setattr(budget, "_SERVICES", (service,))
    return tmp_path / "modelsplit", service


UNSERVED = (
    "modelsplit: warning: CLOUD: claude-3-opus cannot be served: no cloud provider is configured, "
    "and it is none of Ollama's cloud models; name one of those in the policy"
)
UNPRICED = (
    "modelsplit: warning: no model of Ollama's own cloud has a price, and without one its calls "
    'are refused; as in models["gpt-oss:120b-cloud"].price: {"input": 0, "output": 0}'
)
NOBODY = ("--admin", "127.0.0.1:1")


@pytest.mark.parametrize("verb", [APPROVE, ("revoke", *BY), ("reset", *BY)], ids=lambda it: it[0])
def test_a_change_that_nobody_could_be_meant_by_is_refused(
    tmp_path: Path, homes: tuple[Path, Path], capsys: Capture, verb: tuple[str, ...]
) -> None:
    """No proxy answers where it is looked for: the running one may have its state anywhere."""
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    assert cli.run(["budget", *verb, *NOBODY], environ) == 1
    assert capsys.readouterr().err.endswith(
        "; so it is not known which state file is meant: name the proxy with --admin ADDRESS, or "
        "the file with --state DIR; a first start of `modelsplit serve` makes one\n"
    )
    assert not homes[0].exists()


@pytest.mark.parametrize("verb", [("show",), APPROVE], ids=lambda it: it[0])
def test_where_a_service_has_its_state_too_nobody_guesses(
    tmp_path: Path, homes: tuple[Path, Path], capsys: Capture, verb: tuple[str, ...]
) -> None:
    own, service = homes
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    with opened(own):
        pass
    assert cli.run(["budget", *verb, *NOBODY], environ) == 0
    path = own / FILE_NAME
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"modelsplit: state file {path} (yours; no proxy answers)"
    service.mkdir()
    assert cli.run(["budget", *verb, *NOBODY], environ) == 1
    assert f"as in --state {service} or --state {own}" in capsys.readouterr().err


async def test_a_proxy_whose_file_is_out_of_sight_is_not_given_another(
    tmp_path: Path, capsys: Capture
) -> None:
    async with running(state=tmp_path / "inside") as up:
        (tmp_path / "inside").rename(tmp_path / "outside")
        at = ("--admin", f"127.0.0.1:{up.admin_port}")
        text = await asyncio.to_thread(said, capsys, *APPROVE, *at, code=1)
        assert "where the running proxy has it; if it runs in a container" in text
        assert not (tmp_path / "inside").exists()
        (tmp_path / "outside").rename(tmp_path / "inside")


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 100)
    at = ("--state", str(tmp_path))
    assert "file is not a database" in said(capsys, "show", *at, code=1)
    assert "file is not a database" in said(capsys, *APPROVE, *at, code=1)


async def test_lost_counts_are_shown_and_reset(tmp_path: Path, capsys: Capture) -> None:
    at = ("--state", str(tmp_path))
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 100)
    clocks = Clocks()
    clocks.reading = machine_clocks(boot_id())()
    async with budget_keeper(tmp_path, clocks):
        pass
    assert [one["counts_lost"] for one in shown(capsys, *at)["budgets"]] == [True, True]
    text = said(capsys, "reset", *BY, *at)
    assert text == "what was lost is taken as not used, by a running proxy too\n"
    found = shown(capsys, *at)
    assert [one["counts_lost"] for one in found["budgets"]] == [False, False]
    assert [one["action"] for one in found["history"]] == ["lost", "reset"]
    assert "nothing to reset" in said(capsys, "reset", *BY, *at, code=1)


async def test_beside_a_running_proxy_it_is_that_proxys_file(
    tmp_path: Path, capsys: Capture
) -> None:
    sim = SimConfig((*DEFAULT_MODELS, ModelSpec("claude-3-opus")), tokens=4)
    body = call("/api/generate", "cloud")
    async with running(sim, state=tmp_path) as up, up.client() as client:
        at = ("--admin", f"127.0.0.1:{up.admin_port}")
        refused = await client.request("POST", "/api/generate", body)
        assert refused.json["reason"] == "no_approval"
        assert await asyncio.to_thread(cli.run, ["budget", *APPROVE, *at], {}) == 0
        told = capsys.readouterr().err.splitlines()
        where = f"modelsplit: state file {tmp_path / FILE_NAME} (the running proxy's)"
        assert told == [where, UNSERVED, UNPRICED]
        async with up.admin() as admin:
            spending = (await admin.request("GET", "/stats")).json["spending"]
            assert (spending["approvals"], spending["approved_usd_left"]) == (1, 5.0)
        answer = await client.request("POST", "/api/generate", body)
        assert (answer.status, answer["RateLimit"]) == (200, '"cloud";r=8;t=86400')
        await up.calls.wait(2)
        found = await asyncio.to_thread(shown, capsys, *at)
        assert (found["running"], found["state"]) == (True, str(tmp_path))
        assert found["budgets"][1]["calls"] == 1
        await asyncio.to_thread(said, capsys, "revoke", *BY, *at)
        refused = await client.request("POST", "/api/generate", body)
        assert refused.json["reason"] == "approval_revoked"
        assert refused.json["error"].startswith("the approval of the cloud by kim was revoked")


async def test_without_a_proxy_the_file_says_what_was_counted(
    tmp_path: Path, capsys: Capture
) -> None:
    async with running(state=tmp_path) as up, up.client() as client:
        answer = await client.request("POST", "/api/generate", call("/api/generate", "gpt-oss:20b"))
        assert answer.status == 200
    found = shown(capsys, "--state", str(tmp_path))
    assert found["running"] is False
    assert [(one["name"], one["calls"]) for one in found["budgets"]] == [
        ("heavy-20b", 1),
        ("cloud", 0),
    ]


def test_what_has_left_is_listed(tmp_path: Path, at: tuple[str, ...], capsys: Capture) -> None:
    assert said(capsys, "egress", *at) == "nothing has left\n"
    wall = SystemClock().wall()
    row = Leaving("r1", 1, wall, "CLOUD", "kim", "escalation", "operator", 3, "a", "opus", 99, 2)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db, db:
        egress_store.add(db, row)
        egress_store.add(db, replace(row, request_id="r2", condition=None, approval=None))
        egress_store.add(db, replace(row, request_id="old", wall=wall - 40 * 86_400))
        egress_store.end(db, row, 200, Usage(12, 6), 0.00063)
        stayed = replace(row, request_id="r3", redacted=0)
        egress_store.add(db, stayed)
        egress_store.end(db, stayed, egress_store.NOT_SENT, Usage(), 0.0)
    first, second, third = said(capsys, "egress", *at).splitlines()
    assert first.endswith(
        "  r1  kim (escalation operator, approval 3)  opus at a  99 bytes, 2 taken out, 12+6 "
        "tokens, 0.000630 USD, 200"
    )
    assert second.endswith(
        "  r2  kim (escalation, approval none)  opus at a  99 bytes, 2 taken out, ?+? tokens, "
        "? USD, ?"
    )
    assert third.endswith("  opus at a  99 bytes, ?+? tokens, 0.000000 USD, not sent")
    found = json.loads(said(capsys, "egress", "--days", "90", "--json", *at))["egress"]
    assert [entry["request_id"] for entry in found] == ["old", "r1", "r2", "r3"]
    assert [entry["sent"] for entry in found] == [True, True, True, False]
    assert found[3]["status"] is None
    assert (found[1]["usd"], found[1]["redacted"], found[1]["status"]) == (0.00063, 2, 200)
    assert "more than 0" in said(capsys, "egress", "--days", "0", *at, code=2)
