"""The wheel of now over state that older versions left: brought forward, after a copy; and back.

``states`` has a file that each older version wrote itself (``tests/support/older_states.py``).
"""

from __future__ import annotations

import gzip
import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.storage.migrations import SCHEMA_VERSION
from modelsplit_proxy.storage.state_file import FILE_NAME, copy_of, open_state
from support.process import serving, spawned
from support.wheels import Installed

STATES = Path(__file__).parent / "states"
# The first that was ever written to a disk is 2.
OLDER = range(2, SCHEMA_VERSION)
ELSEWHERE = {"PYTHONPATH": ""}
IDS = {"older-0", "older-1", "older-2"}


def put(version: int, folder: Path) -> Path:
    """The state file of an older version, where it is expected."""
    path = folder / FILE_NAME
    path.write_bytes(gzip.decompress((STATES / f"schema-{version}.sqlite3.gz").read_bytes()))
    return path


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        [version] = db.execute("PRAGMA user_version").fetchone()
    return int(version)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [*db.iterdump()]


async def served(installed: Installed, folder: Path) -> None:
    """What is installed starts over that state, and ends."""
    async with serving(
        1, folder, patient=False, env=ELSEWHERE, wrapper=installed.wrapper
    ) as process:
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0


def listed(installed: Installed, folder: Path) -> set[str]:
    done = installed.run("requests", "--state", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    return {call["request_id"] for call in json.loads(done.stdout)}


def test_there_is_a_file_of_every_older_version() -> None:
    missing = [n for n in OLDER if not (STATES / f"schema-{n}.sqlite3.gz").exists()]
    assert not missing, "write it with tests/support/older_states.py, of the commit before the step"


@pytest.mark.parametrize("version", OLDER)
def test_every_older_file_is_brought_forward_and_the_copy_is_as_it_was(
    version: int, tmp_path: Path
) -> None:
    path = put(version, tmp_path)
    before = dump(path)
    state = open_state(tmp_path, SystemClock())
    calls = {name for (name,) in state.db.execute("SELECT request_id FROM calls")}
    state.db.close()
    assert (version_of(path), calls) == (SCHEMA_VERSION, IDS)
    assert dump(copy_of(path, version)) == before


@pytest.mark.parametrize("version", [OLDER[0], OLDER[-1]])
async def test_what_is_installed_keeps_the_state_of_an_older_one(
    version: int, installed: Installed, tmp_path: Path
) -> None:
    path = put(version, tmp_path)
    refused = installed.run("requests", "--state", str(tmp_path))
    assert refused.returncode == 1
    assert "brings older files forward" in refused.stderr
    await served(installed, tmp_path)
    assert listed(installed, tmp_path) == IDS
    assert version_of(copy_of(path, version)) == version


async def test_an_older_one_refuses_a_newer_file_and_the_way_back_is_as_documented(
    installed: Installed, tmp_path: Path
) -> None:
    path = put(OLDER[-1], tmp_path)
    await served(installed, tmp_path)
    # What a next version does to it: a copy of ours, and a schema that we do not know.
    path.with_name(f"{FILE_NAME}.schema-{SCHEMA_VERSION}").write_bytes(path.read_bytes())
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE of_tomorrow (x)")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    newer = dump(path)
    words = ("serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    async with spawned(
        *("modelsplit_proxy", *words, "--state", str(tmp_path)),
        env=ELSEWHERE,
        wrapper=installed.wrapper,
    ) as process:
        code, _, told = await process.outcome()
    copy = copy_of(path, SCHEMA_VERSION)
    assert code == 78
    assert f"was written by a later modelsplit (schema {SCHEMA_VERSION + 1}, this one knows" in told
    assert (
        f"upgrade or use another --state, or go back to how it was before the upgrade: {copy} in"
        in told
    )
    assert dump(path) == newer
    copy.rename(path)
    for rest in ("-wal", "-shm"):
        path.with_name(FILE_NAME + rest).unlink(missing_ok=True)
    await served(installed, tmp_path)
    assert listed(installed, tmp_path) == IDS
