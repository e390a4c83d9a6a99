"""``print-unit``, ``print-policy`` and ``completion``: what comes with the program, printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from modelsplit_proxy.cli import print_files
from modelsplit_proxy.cli.main import run
from modelsplit_proxy.config import policy_file, shipped_files


def test_the_unit_starts_this_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["print-unit"], {}) == 0
    told = capsys.readouterr().out
    shipped = shipped_files.read("modelsplit.service").splitlines()
    changed = [line for line in told.splitlines() if line not in shipped]
    assert changed == [f"ExecStart={' '.join(print_files.program())} serve"]
    assert len(told.splitlines()) == len(shipped)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--socket"], "modelsplit.socket"),
        (["--socket", "--user"], "user/modelsplit.socket"),
    ],
)
def test_a_socket_unit_is_as_it_is_shipped(
    words: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["print-unit", *words], {}) == 0
    assert capsys.readouterr().out == shipped_files.read(name)


def test_the_users_unit_asks_for_nothing_that_a_users_manager_may_not_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["print-unit", "--user"], {}) == 0
    keys = {line.partition("=")[0] for line in capsys.readouterr().out.splitlines()}
    assert keys.isdisjoint(
        {
            "DynamicUser",
            "IPAddressDeny",
            "OOMScoreAdjust",
            "CapabilityBoundingSet",
            "StateDirectory",
        }
    )


def test_a_path_is_quoted_as_systemd_reads_it() -> None:
    text = print_files.unit(socket=False, user=False, program=["/opt/50% of it/modelsplit"])
    assert "ExecStart='/opt/50%% of it/modelsplit' serve\n" in text


def test_this_installations_script_lies_beside_its_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, script = tmp_path / "python3", tmp_path / "modelsplit"
    monkeypatch.setattr(sys, "executable", str(python))
    assert print_files.program() == [str(python), "-m", "modelsplit_proxy"]
    script.touch()
    assert print_files.program() == [str(script)]


@pytest.mark.parametrize(
    ("word", "python", "expected"),
    [
        ("/opt/modelsplit/bin/modelsplit", "/usr/bin/python3", None),
        ("/home/a/x/bin/modelsplit", "/usr/bin/python3", "/home/a/x/bin/modelsplit"),
        ("/opt/x/bin/modelsplit", "/root/uv/bin/python3", "/root/uv/bin/python3"),
        ("/homes/x/bin/modelsplit", "/usr/bin/python3", None),
    ],
)
def test_what_the_unit_would_hide_from_itself_is_seen(
    word: str, python: str, expected: str | None
) -> None:
    assert print_files.hidden([word], python) == expected


def test_who_would_be_hidden_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/home/a/venv/bin/python3")
    assert run(["print-unit"], {}) == 0
    assert "/home/a/venv/bin/python3 lies in a home directory" in capsys.readouterr().err
    assert run(["print-unit", "--user"], {}) == 0
    assert capsys.readouterr().err == ""


def test_the_policy_and_its_schema_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["print-policy"], {}) == 0
    assert json.loads(capsys.readouterr().out) == policy_file.shipped()
    assert run(["print-policy", "--schema"], {}) == 0
    assert json.loads(capsys.readouterr().out)["type"] == "object"


def test_both_are_written_as_new_files_that_serve_and_an_editor_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["print-policy", "--into", str(tmp_path)], {}) == 0
    policy, schema = map(Path, capsys.readouterr().out.splitlines())
    assert policy_file.load(policy).digest == policy_file.load(None).digest
    assert policy.parent / json.loads(policy.read_text())["$schema"] == schema
    policy.write_text("{}")
    assert run(["print-policy", "--into", str(tmp_path)], {}) == 1
    assert "is there already" in capsys.readouterr().err
    assert policy.read_text() == "{}"


def test_a_directory_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["print-policy", "--into", str(tmp_path / "no")], {}) == 1
    assert "cannot be made: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "environ", "name"),
    [
        (["bash"], {}, "modelsplit.bash"),
        (["zsh"], {"SHELL": "/bin/bash"}, "_modelsplit"),
        ([], {"SHELL": "/usr/bin/fish"}, "modelsplit.fish"),
    ],
)
def test_a_shells_completion_is_printed(
    words: list[str], environ: dict[str, str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["completion", *words], environ) == 0
    assert capsys.readouterr().out == shipped_files.read(name)


def test_a_shell_that_nobody_knows_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion"], {"SHELL": "/bin/dash"}) == 2
    assert "one of bash, zsh, fish" in capsys.readouterr().err


def test_the_drop_in_of_a_cloud_opens_the_filter(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["print-unit", "--cloud"], {}) == 0
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if not line.startswith("#")]
    assert told == ["[Service]", "IPAddressAllow=any"]
    assert any("LoadCredential=modelsplit-cloud-" in line for line in lines)
