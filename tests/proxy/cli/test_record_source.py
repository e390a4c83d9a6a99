"""Where commands read what is kept: what there is none of is said, see ``test_requests`` too."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.cli import admin_client
from modelsplit_proxy.cli.output import CommandError, ExitCode
from modelsplit_proxy.cli.record_source import AdminSource, opened
from modelsplit_proxy.config.settings import Address
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.storage.state_file import StoreError
from support import stores

if TYPE_CHECKING:
    from pathlib import Path


def test_nobody_to_ask() -> None:
    source = AdminSource(Address("127.0.0.1", 1))
    for ask in (source.json, lambda target: list(source.pieces(target))):
        with pytest.raises(CommandError, match="--state DIR reads its file") as refused:
            ask("/jobs")
        assert refused.value.code is ExitCode.NOT_RUNNING


def test_one_that_hangs_is_not_waited_for_as_long_as_an_answer_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admin_client, "_TIMEOUT_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        source = AdminSource(Address(*listener.getsockname()))
        with pytest.raises(CommandError, match=r"does not answer: it hangs.* --state DIR") as told:
            source.json("/requests")
    assert told.value.code is ExitCode.NOT_RUNNING


def test_a_file_is_read_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no state file there"):
        opened(tmp_path, SystemClock())
    with stores.opened(tmp_path):
        pass
    assert opened(tmp_path, SystemClock())("SELECT count(*) FROM jobs", ()) == [(0,)]
