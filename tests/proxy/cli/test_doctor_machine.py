"""What is wrong with this machine: SQLite, the policy file, the clock, the state."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelsplit_proxy.cli import doctor_machine
from modelsplit_proxy.cli.doctor_findings import Finding
from modelsplit_proxy.storage.migrations import SCHEMA_VERSION
from modelsplit_proxy.storage.state_file import FILE_NAME, open_state
from support.doctoring import NOON, SetClock, causes, look


def state_file(folder: Path) -> sqlite3.Connection:
    return open_state(folder / "state", SetClock()).db


def test_a_fresh_machine_is_fine(tmp_path: Path) -> None:
    here = look(tmp_path)
    for check in (
        *(doctor_machine.sqlite, doctor_machine.policy, doctor_machine.clock),
        *(doctor_machine.state, doctor_machine.schema),
    ):
        assert [*check(here)] == []


def test_an_old_sqlite_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    [found] = doctor_machine.sqlite(look(tmp_path))
    assert "is older than 3.38.0" in found[1]


def test_a_bad_policy_file_is_one_finding_however_much_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text('{"extends": "default", "rolls": {}, "globe": {}}')
    [found] = doctor_machine.policy(look(tmp_path, settings={"policy": str(path)}))
    assert isinstance(found, Finding)
    assert found.cause.startswith(f"{path}: $.globe: unknown key")
    assert found.cause.endswith(" (and 1 more)")
    assert found.step == f"modelsplit check-config {path}"


def test_a_clock_that_was_set_back_is_told(tmp_path: Path) -> None:
    with closing(state_file(tmp_path)) as db:
        db.execute(
            "INSERT INTO calls (started_us, total_us, request_id, outcome) VALUES (?, 1, ?, ?)",
            (int(NOON * 1e6), "a", "ok"),
        )
    assert [*doctor_machine.clock(look(tmp_path))] == []
    [found] = doctor_machine.clock(look(tmp_path, clock=SetClock(NOON - 3600)))
    assert "is behind 2026-11-18" in found[1]
    assert "; records are out of order until it is past that, budgets are not" in found[1]
    assert "which it has shown before: it is wrong, or was then" in found[1]


def test_a_clock_that_was_never_set_is_told(tmp_path: Path) -> None:
    [found] = doctor_machine.clock(look(tmp_path, clock=SetClock(86400.0)))
    assert "is behind 2025-01-01 00:00 UTC;" in found[1]


def test_a_state_directory_of_another_user_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    [found] = doctor_machine.state(look(tmp_path))
    assert isinstance(found, Finding)
    assert found.cause == f"the state directory {tmp_path / 'state'} cannot be written by this user"
    # What is above one that is not there yet stays whose it is.
    made = (
        f"sudo install -d -m 700 -o $USER {tmp_path / 'state'}   # or modelsplit serve --state DIR"
    )
    assert found.step == made
    (tmp_path / "state").mkdir()
    [found] = doctor_machine.state(look(tmp_path))
    assert isinstance(found, Finding)
    assert found.step.startswith(f"sudo chown -R $USER {tmp_path / 'state'} ")
    # A service's own is the service's to write: what it says counts.
    assert [*doctor_machine.state(look(tmp_path, stats={"ledger": {"error": None}}))] == []
    [found] = doctor_machine.state(look(tmp_path, stats={"ledger": {"error": "disk full"}}))
    assert found[1] == "the running proxy cannot write its state: disk full"


def test_a_read_only_disk_is_told_as_that_and_not_as_a_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed: Any = SimpleNamespace(f_bavail=0, f_frsize=2**20, f_flag=os.ST_RDONLY)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(os, "statvfs", lambda _: sealed)
    assert [*doctor_machine.state(look(tmp_path))] == [
        Finding(
            "state",
            f"the state directory {tmp_path / 'state'} is on a file system that is read-only",
            f"findmnt -T {tmp_path}   # or modelsplit serve --state DIR",
        )
    ]


def test_a_state_directory_below_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    [found] = doctor_machine.state(look(tmp_path))
    assert isinstance(found, Finding)
    assert found.cause.endswith(f"cannot be: {tmp_path / 'state'} is a file")
    assert found.step == "modelsplit serve --state DIR"


def test_a_disk_that_is_nearly_full_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearly: Any = SimpleNamespace(f_bavail=100, f_frsize=2**20)
    monkeypatch.setattr(os, "statvfs", lambda _: nearly)
    [found] = doctor_machine.state(look(tmp_path))
    assert "has 100 MiB left" in found[1]


@pytest.mark.parametrize(("kind", "told"), [("nfs4", True), ("ext4", False)])
def test_a_network_disk_is_told(kind: str, told: bool, tmp_path: Path) -> None:
    here = look(tmp_path)
    mounted = str(tmp_path).replace(" ", "\\040")
    (here.proc / "mounts").write_text(
        f"/dev/sda / ext4 rw 0 0\nserver:/x {mounted} {kind} rw 0 0\n"
    )
    found = causes([*doctor_machine.state(here)])
    assert [text.partition(":")[0] for text in found] == [f"{tmp_path / 'state'} is on nfs4"] * told


def test_a_file_of_a_later_version_is_told(tmp_path: Path) -> None:
    with closing(state_file(tmp_path)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    [found] = doctor_machine.schema(look(tmp_path))
    assert isinstance(found, Finding)
    assert f"is of schema {SCHEMA_VERSION + 1}, this modelsplit knows {SCHEMA_VERSION}" in (
        found.cause
    )


def test_a_file_that_cannot_be_read_is_no_finding_of_that_kind(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / FILE_NAME).write_bytes(b"no database, and long enough to be none" * 99)
    [found] = doctor_machine.schema(look(tmp_path))
    assert "file is not a database; try with sudo" in found[1]
