"""Every setting as ``serve`` would have it, and where it comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelsplit_proxy.cli.config_show import fields
from modelsplit_proxy.cli.main import run
from modelsplit_proxy.config.settings import OPTIONS


def test_every_setting_is_shown_with_its_origin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "settings.toml").write_text('allow-host = ["a", "b"]\n')
    environ = {
        "CONFIGURATION_DIRECTORY": str(tmp_path),
        "MODELSPLIT_ADMIN": "127.0.0.1:1",
        "STATE_DIRECTORY": "/var/lib/modelsplit",
    }
    assert run(["config", "show", "--origin", "--drain", "5s"], environ) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "VALUE", "ORIGIN"]
    rows = dict(zip((line.split()[0] for line in lines), lines, strict=True))
    assert list(rows) == [option.name for option in OPTIONS]
    assert rows["drain"].split()[1:] == ["5s", "--drain"]
    assert rows["admin"].split()[1:] == ["127.0.0.1:1", "MODELSPLIT_ADMIN"]
    assert rows["allow-host"].split()[1:] == ["a,b", str(tmp_path / "settings.toml")]
    assert rows["listen"].split()[1:] == ["127.0.0.1:11435", "default"]
    assert rows["state"].split()[1:] == ["/var/lib/modelsplit", "default"]
    assert rows["keys"].split()[1:] == ["-", "default"]


def test_as_data_and_without_origins(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show"], {}) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["NAME", "VALUE"]
    assert run(["config", "show", "--json"], {}) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"name": "drain", "value": "30s", "origin": "default"} in rows


def test_a_setting_that_cannot_be_read_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", "--drain", "soon"], {}) == 2
    assert "--drain" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://team:s3cret@h:6379/0", "redis://team:***@h:6379/0"),
        ("redis://:s3cret@h", "redis://:***@h"),
        ("redis://team:s3@cret@h", "redis://team:***@h"),
        ("unix://team:s3cret@/run/redis.sock", "unix://team:***@/run/redis.sock"),
        ("rediss://h?password=s3cret&ssl_ca_certs=/x", "rediss://h?password=***&ssl_ca_certs=/x"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("redis://team@h:6379", "redis://team@h:6379"),
    ],
)
def test_a_password_is_not_shown(url: str, shown: str) -> None:
    rows = fields({}, {"MODELSPLIT_SHARED": url})
    assert [row["value"] for row in rows if row["name"] == "shared"] == [shown]
