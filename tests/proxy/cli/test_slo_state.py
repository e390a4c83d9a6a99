"""Where the state is that commands about objectives read."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from pathlib import Path

import pytest

from modelsplit_proxy.cli.output import CommandError
from modelsplit_proxy.cli.slo_state import SloState, directory_of
from modelsplit_proxy.config.settings import read_settings
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.storage.state_file import FILE_NAME
from support.harness import running
from support.stores import opened


async def test_the_flag_wins_over_the_running_proxy_and_that_over_the_setting(
    tmp_path: Path,
) -> None:
    async with running() as up:
        admin = f"127.0.0.1:{up.admin_port}"
        settings = read_settings({"admin": admin}, {"MODELSPLIT_STATE": str(tmp_path)})
        named = Namespace(state=Path("/elsewhere"))
        assert directory_of(named, settings) == Path("/elsewhere")
        found = await asyncio.to_thread(directory_of, Namespace(state=None), settings)
        assert found == up.app.store.path.parent
    settings = read_settings({"admin": "127.0.0.1:1"}, {"MODELSPLIT_STATE": str(tmp_path)})
    assert directory_of(Namespace(state=None), settings) == tmp_path


def test_a_file_that_is_there_is_read(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    assert SloState(tmp_path, SystemClock()).read("SELECT count(*) FROM calls", ()) == [(0,)]


def test_what_cannot_be_read_is_not_enough_data(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no state file there") as caught:
        SloState(tmp_path, SystemClock())
    assert caught.value.code == 3
    with opened(tmp_path):
        pass
    state = SloState(tmp_path, SystemClock())
    with pytest.raises(CommandError, match="no such table") as caught:
        state.read("SELECT * FROM nowhere", ())
    assert caught.value.code == 3
    (tmp_path / FILE_NAME).write_bytes(b"x" * 5000)
    with pytest.raises(CommandError) as caught:
        SloState(tmp_path, SystemClock())
    assert caught.value.code == 3
