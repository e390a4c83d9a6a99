"""``keys new`` and ``keys check``, as an operator uses them one after the other."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from modelsplit_policy.config.problems import PolicyError
from modelsplit_proxy.cli import keys
from modelsplit_proxy.config import key_file, key_path
from modelsplit_proxy.config.settings import SettingError
from modelsplit_proxy.limits.client_keys import digest_of

if TYPE_CHECKING:
    from pathlib import Path

Capture = pytest.CaptureFixture[str]


def test_a_new_key_and_its_entry_belong_together(capsys: Capture) -> None:
    assert keys.new("laptop", "planner, CHAT", manage_models=True, as_json=False) == 0
    said = capsys.readouterr()
    key, entry = (line.split(maxsplit=1)[1] for line in said.out.splitlines())
    assert json.loads(entry) == {
        "name": "laptop",
        "sha256": digest_of(key).hex(),
        "roles": ["PLANNER", "CHAT"],
        "manage_models": True,
    }
    assert len(key) >= 43
    assert "shown this once" in said.err
    assert key not in said.err


def test_no_two_keys_are_the_same(capsys: Capture) -> None:
    for _ in range(9):
        keys.new("a", None, manage_models=False, as_json=True)
    made = json.loads("[" + capsys.readouterr().out.replace("}\n{", "},{") + "]")
    assert len({one["key"] for one in made}) == 9
    assert {tuple(one["entry"]) for one in made} == {("name", "sha256")}


def test_a_name_or_a_role_that_cannot_be(capsys: Capture) -> None:
    with pytest.raises(SettingError, match=r"\$\.name: must be .*; \$\.roles\[0\]: must be "):
        keys.new("a b", "boss", manage_models=False, as_json=False)
    assert capsys.readouterr().out == ""


def test_no_role_is_not_every_role(capsys: Capture) -> None:
    with pytest.raises(SettingError, match=r"\$\.roles\[0\]: must be "):
        keys.new("laptop", "", manage_models=False, as_json=False)
    assert capsys.readouterr().out == ""


@pytest.fixture
def file(tmp_path: Path, capsys: Capture) -> Path:
    """Two keys as ``keys new`` made them, one with limits added by hand."""
    keys.new("laptop", None, manage_models=True, as_json=True)
    laptop = json.loads(capsys.readouterr().out)["entry"]
    keys.new("batch", "heavy,chat", manage_models=False, as_json=True)
    batch = json.loads(capsys.readouterr().out)["entry"]
    batch |= {"rate_per_s": None, "max_concurrent": 2}
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"version": 1, "keys": [laptop, batch]}))
    return path


def test_what_a_file_allows(file: Path, capsys: Capture) -> None:
    assert keys.check(file, {}, as_json=False) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: ok (2)",
        "  laptop           all roles; manages models",
        "  batch            CHAT, HEAVY; max_concurrent 2; rate_per_s none",
    ]


def test_what_a_file_allows_as_json(file: Path, capsys: Capture) -> None:
    assert keys.check(file, {}, as_json=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["source"]) == (True, str(file))
    assert said["keys"][1] == {
        "name": "batch",
        "roles": ["CHAT", "HEAVY"],
        "manage_models": False,
        "rate_per_s": None,
        "max_concurrent": 2,
    }


def test_what_is_wrong_with_a_file(file: Path, capsys: Capture) -> None:
    file.write_text('{"version":1,"keys":[],"kyes":[]}')
    with pytest.raises(PolicyError, match=r"keys.json: \$\.kyes: unknown key; did you mean"):
        keys.check(file, {}, as_json=False)
    assert keys.check(file, {}, as_json=True) == 1
    out = capsys.readouterr()
    said = json.loads(out.out)
    assert (said["ok"], out.err) == (False, "")
    assert {"path": "$.kyes", "message": 'unknown key; did you mean "keys"?'} in said["problems"]


def test_the_file_that_serve_would_use(file: Path, capsys: Capture) -> None:
    credential = file.with_name(key_path.CREDENTIAL)
    file.rename(credential)
    environ = {"CREDENTIALS_DIRECTORY": str(credential.parent)}
    assert keys.check(None, environ, as_json=False) == 0
    assert str(credential) in capsys.readouterr().out


def test_no_file_at_all() -> None:
    with pytest.raises(SettingError, match="no file of keys is given"):
        keys.check(None, {}, as_json=False)


def test_a_key_can_be_put_into_a_file_that_serve_can_be_given(
    tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "keys.json"
    for name in ("laptop", "server"):
        assert keys.new(name, "planner", manage_models=False, as_json=True, into=path) == 0
    first, second = json.loads("[" + capsys.readouterr().out.replace("}\n{", "},{") + "]")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [key.name for key in key_file.load(path, {}).keys] == ["laptop", "server"]
    assert json.loads(path.read_text())["keys"] == [first["entry"], second["entry"]]
    assert list(tmp_path.iterdir()) == [path]
    assert keys.new("phone", None, manage_models=False, as_json=False, into=path) == 0
    assert f"the entry is in {path}, which is read at the start: serve --keys {path}" in (
        capsys.readouterr().err
    )


def test_a_name_twice_and_a_file_that_is_no_good_change_nothing(
    tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "keys.json"
    keys.new("laptop", None, manage_models=False, as_json=True, into=path)
    before = path.read_bytes()
    with pytest.raises(SettingError, match='has a key named "laptop" already'):
        keys.new("laptop", None, manage_models=False, as_json=True, into=path)
    assert path.read_bytes() == before
    path.write_bytes(b'{"keys": [{"name": "a b"}]}')
    with pytest.raises(PolicyError):
        keys.new("phone", None, manage_models=False, as_json=True, into=path)
    with pytest.raises(SettingError, match=r"cannot be written: No such file or directory"):
        keys.new("phone", None, manage_models=False, as_json=True, into=tmp_path / "no" / "keys")
    capsys.readouterr()
