"""Where a file of ours is looked for that nobody has named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_proxy.config import usual_place

if TYPE_CHECKING:
    from pathlib import Path


def test_the_service_managers_directories_come_before_etc(tmp_path: Path) -> None:
    first, second, etc = (tmp_path / name for name in ("first", "second", "etc"))
    for place in (first, second, etc):
        place.mkdir()
    environ = {"CONFIGURATION_DIRECTORY": f"{first}:{second}"}
    file = etc / "settings.toml"
    assert usual_place.find(environ, file.name, file) is None
    file.touch()
    assert usual_place.find(environ, file.name, file) == file
    (second / "settings.toml").touch()
    assert usual_place.find(environ, file.name, file) == second / "settings.toml"
    assert usual_place.find({}, file.name, file) == file


def test_a_link_to_nowhere_lies_there_and_a_file_that_is_no_folder_holds_nothing(
    tmp_path: Path,
) -> None:
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(tmp_path / "nowhere")
    file.touch()
    assert usual_place.is_there(link)
    assert not usual_place.is_there(file / "below")
