"""Where the clients' packages come from, and why they may be missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from clients import install
from clients.catalogue import CLIENTS, Language


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "modelsplit"


def test_it_is_installed_once_for_the_same_lock(tmp_path: Path) -> None:
    installed: list[Path] = []
    lock = tmp_path / "lock"
    for text in ("one", "one", "two"):
        lock.write_text(text)
        install._kept("clients-test", [lock], installed.append)
    assert len(installed) == len(set(installed)) == 2


def test_half_an_installation_is_done_again(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("one")

    def breaks(folder: Path) -> None:
        (folder / "half").touch()
        raise install.Unavailable("the line is down")

    with pytest.raises(install.Unavailable):
        install._kept("clients-test", [lock], breaks)
    folder = install._kept("clients-test", [lock], lambda folder: (folder / "whole").touch())
    assert {path.name for path in folder.iterdir()} == {"whole", "complete"}


def test_without_node_its_clients_are_missing_for_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(install, "python", lambda: Path(sys.executable))
    places = install.places()
    assert places.found == {Language.PYTHON: Path(sys.executable)}
    assert {language: str(why) for language, why in places.missing.items()} == {
        Language.NODE: "node and npm are not installed"
    }


def test_an_old_node_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("node", "npm"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho v18.20.4\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(install.Unavailable, match="not 20 or newer"):
        install.node()


def test_without_a_place_to_keep_them_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(install.Unavailable, match="cannot be made"):
        install._kept("clients-test", [], lambda _: None)


@pytest.mark.parametrize(
    ("said", "raised"),
    [
        ("npm error code EAI_AGAIN", install.Unreachable),
        ("Failed to establish a new connection: NewConnectionError", install.Unreachable),
        ("npm error code EINTEGRITY", RuntimeError),
        ("ERROR: No matching distribution found", RuntimeError),
    ],
)
def test_only_a_silent_registry_is_an_excuse(
    said: str, raised: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(raised):
        install._call(["sh", "-c", f"echo '{said}'; exit 1"], tmp_path)


def test_the_node_clients_have_exact_versions_that_the_lock_names() -> None:
    wanted = json.loads(install.PACKAGE.read_text())["dependencies"]
    packages = json.loads(install.PACKAGE_LOCK.read_text())["packages"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    used = {name for one in CLIENTS if one.language is Language.NODE for name in one.packages}
    assert used == set(wanted)
