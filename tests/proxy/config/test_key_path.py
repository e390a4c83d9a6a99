"""Which file of keys is read, if any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.config.key_path import find
from modelsplit_proxy.config.policy_file import PolicyFileError

if TYPE_CHECKING:
    from pathlib import Path


def written(path: Path) -> Path:
    path.write_text("{}")
    return path


def test_without_a_word_keys_are_off(tmp_path: Path) -> None:
    assert find(None, {}) is None
    assert find(None, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) is None


def test_a_named_file_comes_before_systemds_credential(tmp_path: Path) -> None:
    credential = written(tmp_path / "modelsplit-keys")
    named = written(tmp_path / "named.json")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert find(None, environ) == credential
    assert find(named, environ) == named


def test_a_named_file_has_to_exist(tmp_path: Path) -> None:
    with pytest.raises(PolicyFileError, match=r"no such file, but --keys or \$MODELSPLIT_KEYS"):
        find(tmp_path / "keys.json", {})
