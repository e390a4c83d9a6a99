"""The file of settings: where it is looked for, and what its lines mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelsplit_proxy.config import settings_file
from modelsplit_proxy.config.settings import SettingError, read_settings, where_said
from modelsplit_proxy.config.settings_file import SettingsFileError, load


@pytest.fixture(name="environ")
def _environ(tmp_path: Path) -> dict[str, str]:
    return {"CONFIGURATION_DIRECTORY": str(tmp_path), "HOME": "/home/me"}


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_without_a_file_there_is_none(environ: dict[str, str]) -> None:
    assert load(environ) is None


def test_values_are_what_the_command_line_would_say(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    path = write(
        tmp_path, 'drain = 60\ntake-over = true\nallow-host = ["a", "b"]\nlisten = "127.0.0.1:1"\n'
    )
    found = load(environ)
    assert found is not None
    assert found.path == path
    assert found.values == {
        "drain": ("60",),
        "take-over": ("yes",),
        "allow-host": ("a", "b"),
        "listen": ("127.0.0.1:1",),
    }


def test_flag_then_variable_then_file_then_default(tmp_path: Path, environ: dict[str, str]) -> None:
    path = write(tmp_path, 'drain = "60s"\nstall-timeout = "9s"\nadmin = "127.0.0.1:3"\n')
    environ |= {"MODELSPLIT_DRAIN": "50s", "MODELSPLIT_STALL_TIMEOUT": "8s"}
    flags = {"drain": "40s"}
    settings = read_settings(flags, environ)
    assert (settings.drain_s, settings.stall_timeout_s, settings.admin.port) == (40.0, 8.0, 3)
    said = where_said(flags, environ)
    names = ("drain", "stall-timeout", "admin", "listen")
    assert [said[name].origin for name in names] == [
        "--drain",
        "MODELSPLIT_STALL_TIMEOUT",
        str(path),
        "default",
    ]


def test_the_named_file_comes_first_and_must_be_there(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "drain = 1\n")
    other = tmp_path / "other.toml"
    environ["MODELSPLIT_SETTINGS"] = str(other)
    with pytest.raises(SettingsFileError, match="No such file"):
        load(environ)
    other.write_text("drain = 2\n")
    found = load(environ)
    assert found is not None
    assert found.path == other
    monkeypatch.setattr(settings_file, "ETC", other)
    found = load({})
    assert found is not None
    assert found.path == other


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("drain = ", "cannot be read"),
        ("drain = {}", "drain must be text, a number, true or false, or a list of text"),
        ("rolls = 1", "rolls is no setting; see `modelsplit serve --help`"),
        ('allow_host = "x"', r"allow_host is no setting; did you mean allow-host\?"),
        ("MODELSPLIT_DRIAN = 1", r"MODELSPLIT_DRIAN is no setting; did you mean drain\?"),
        ('drain = ["1s", "2s"]', "drain takes one value"),
        ('drain = "soon"', '--drain "soon" is not a duration'),
    ],
)
def test_what_is_wrong_is_told(
    text: str, told: str, tmp_path: Path, environ: dict[str, str]
) -> None:
    write(tmp_path, text)
    with pytest.raises(SettingError, match=told):
        read_settings({}, environ)
