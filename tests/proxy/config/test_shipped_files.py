"""The files that come with the program: named once, carried by the wheel, edited in a checkout."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from modelsplit_proxy.config import shipped_files

ROOT = Path(__file__).parents[3]
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
    "wheel"
]


@pytest.mark.parametrize("name", shipped_files.FILES)
def test_a_checkout_has_each_where_it_is_edited(name: str) -> None:
    assert shipped_files.read(name) == (ROOT / shipped_files.FILES[name]).read_text()


def test_a_wheel_carries_each_as_package_data() -> None:
    packaged = {f"modelsplit_proxy/data/{name}": path for name, path in shipped_files.FILES.items()}
    assert {place: path for path, place in WHEEL["force-include"].items()}.items() >= (
        packaged.items()
    )


def test_a_wheel_puts_what_others_look_for_below_share() -> None:
    places = [place for place in WHEEL["shared-data"].values() if "share/modelsplit/" not in place]
    assert sorted(places) == [
        "share/bash-completion/completions/modelsplit",
        "share/fish/vendor_completions.d/modelsplit.fish",
        "share/man/man1/modelsplit.1",
        "share/zsh/site-functions/_modelsplit",
    ]
    assert all((ROOT / path).exists() for path in WHEEL["shared-data"])


def test_a_wheel_carries_all_that_stands_beside_the_program() -> None:
    beside = {path.name for path in (ROOT / "contrib").iterdir()} - {"completions"}
    shared = {path.removeprefix("contrib/") for path in WHEEL["shared-data"]}
    assert beside <= shared


def test_what_is_installed_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modelsplit.socket").write_text("[Socket]\n")
    monkeypatch.setattr(shipped_files, "_DATA", tmp_path)
    assert shipped_files.read("modelsplit.socket") == "[Socket]\n"
