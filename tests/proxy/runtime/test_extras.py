"""How an optional package is added to this very installation."""

from __future__ import annotations

import os
import shlex
from importlib.metadata import requires
from pathlib import Path

import pytest

from modelsplit_proxy.runtime import extras

RANGE = extras.brought_by("redis", requires("modelsplit") or ())


def adding(folder: Path) -> list[str]:
    return shlex.split(extras.adding("redis", str(folder), "/opt/x/bin/python"))


def test_what_an_extra_brings_stands_in_the_metadata() -> None:
    required = ['a<2; extra == "one"', "b; extra == 'other'", "c>=1", "d[e] >=1 ; extra == 'one'"]
    assert extras.brought_by("one", required) == ["a<2", "d[e] >=1"]
    [only] = RANGE
    assert only.startswith("redis")


def test_an_environment_with_pip_is_added_to_with_it(tmp_path: Path) -> None:
    assert adding(tmp_path) == ["/opt/x/bin/python", "-m", "pip", "install", *RANGE]


def test_one_without_pip_with_somebody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    assert adding(tmp_path) == ["pip", "--python", "/opt/x/bin/python", "install", *RANGE]


def test_one_of_pipx_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "modelsplit_2"
    folder.mkdir()
    (folder / "pipx_metadata.json").write_text("{}")
    assert adding(folder) == ["pipx", "inject", "modelsplit_2", *RANGE]


@pytest.mark.parametrize(
    ("requirements", "rest"),
    [
        ('[{ name = "modelsplit" }]', ["modelsplit"]),
        ('[{ name = "modelsplit", path = "/w/m.whl" }]', ["/w/m.whl"]),
        (
            '[{name="modelsplit", url="/s"}, {name="b", specifier="<2"}, {name="x", path="/x"}]',
            ["--with", "b<2", "--with", "/x", "/s"],
        ),
    ],
)
def test_one_of_uv_with_what_it_was_made_of(
    requirements: str, rest: list[str], tmp_path: Path
) -> None:
    (tmp_path / "uv-receipt.toml").write_text(f"[tool]\nrequirements = {requirements}\n")
    assert adding(tmp_path) == ["uv", "tool", "install", "--with", *RANGE, *rest]


def test_an_upgrade_is_that_of_whoever_installed(tmp_path: Path) -> None:
    def upgrading(folder: Path) -> str:
        return extras.upgrading(str(folder), "/x/python")

    assert upgrading(tmp_path) == "/x/python -m pip install --upgrade WHEEL"
    (tmp_path / "pipx_metadata.json").touch()
    assert upgrading(tmp_path) == f"pipx upgrade {tmp_path.name}"
    (tmp_path / "uv-receipt.toml").touch()
    assert upgrading(tmp_path) == "uv tool upgrade modelsplit"


def test_who_may_not_write_there_is_told_to_be_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert extras.adding("top").startswith("sudo ")
