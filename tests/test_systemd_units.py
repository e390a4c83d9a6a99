"""The unit files: read as text always, judged by systemd itself with ``--tools``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.units import UNITS, Unit, read

EXPOSURE_AT_MOST = 15  # tenths: systemd's own judgement of a service, 0 (safe) to 100


def seconds(text: str) -> float:
    """Read ``40``, ``30s`` or ``1min``, the spans these units use."""
    for unit, factor in (("min", 60), ("s", 1)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)


@pytest.fixture(name="service")
def _service() -> Unit:
    return read("modelsplit.service")


@pytest.fixture(name="listener")
def _listener() -> Unit:
    return read("modelsplit.socket")


def test_it_starts_the_server_and_notifies(service: Unit) -> None:
    [command] = service["Service.ExecStart"]
    program, *arguments = command.split()
    assert Path(program).is_absolute()
    assert Path(program).name == "modelsplit"
    assert arguments[0] == "serve"
    assert service["Service.Type"] == ["notify"]
    assert service["Service.WatchdogSec"] == ["10"]


def test_what_is_large_is_given_back_to_the_system_at_once(service: Unit) -> None:
    assert "MALLOC_MMAP_THRESHOLD_=131072" in service["Service.Environment"]


def test_systemd_waits_longer_than_the_drain(service: Unit) -> None:
    environment = dict(line.split("=", 1) for line in service["Service.Environment"])
    [stop] = service["Service.TimeoutStopSec"]
    assert seconds(stop) >= seconds(environment["MODELSPLIT_DRAIN"]) + 10
    assert service["Service.KillMode"] == ["mixed"]


def test_every_end_but_a_wrong_configuration_is_a_new_start(service: Unit) -> None:
    assert service["Service.Restart"] == ["always"]
    assert service["Service.RestartPreventExitStatus"] == ["2 78"]
    # A crash loop must not run into the limit that is meant for the socket's attempts.
    restarts = seconds(service["Unit.StartLimitIntervalSec"][0]) / seconds(
        service["Service.RestartSec"][0]
    )
    assert restarts < int(service["Unit.StartLimitBurst"][0])


def test_it_boots_without_ollama(service: Unit) -> None:
    assert service["Unit.Wants"] == ["ollama.service"]
    assert "ollama.service" in service["Unit.After"]
    assert service["Unit.Requires"] == ["modelsplit.socket"]
    assert not any("network-online" in value for values in service.values() for value in values)


def test_it_reads_its_policy_and_keeps_its_state_in_the_promised_places(service: Unit) -> None:
    assert service["Service.DynamicUser"] == ["yes"]
    assert service["Service.ConfigurationDirectory"] == ["modelsplit"]
    assert service["Service.StateDirectory"] == ["modelsplit"]
    assert service["Service.UMask"] == ["0077"]


def test_a_policy_is_never_reloaded(service: Unit) -> None:
    assert "Service.ExecReload" not in service


def test_the_socket_is_the_proxys_port_on_loopback(listener: Unit) -> None:
    assert listener["Socket.ListenStream"] == ["127.0.0.1:11435"]
    assert listener["Socket.Backlog"] == ["4096"]
    assert listener["Socket.NoDelay"] == ["true"]
    assert listener["Socket.FileDescriptorName"] == ["proxy"]


def test_both_units_keep_to_loopback(service: Unit, listener: Unit) -> None:
    for unit, section in ((service, "Service"), (listener, "Socket")):
        assert unit[f"{section}.IPAddressDeny"] == ["any"]
        assert unit[f"{section}.IPAddressAllow"] == ["localhost"]


def test_both_units_are_installed_together(service: Unit, listener: Unit) -> None:
    assert service["Install.Also"] == ["modelsplit.socket"]
    assert listener["Install.WantedBy"] == ["sockets.target"]


@pytest.mark.parametrize(
    ("text", "expected"), [("40", 40), ("30s", 30), ("1min", 60)], ids=["bare", "s", "min"]
)
def test_spans_are_read(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("kind", ["service", "socket"])
def test_a_users_unit_serves_as_the_systems_does(kind: str) -> None:
    """What is the same in both, key by key."""
    system, user = read(f"modelsplit.{kind}"), read(f"user/modelsplit.{kind}")
    own = {"Service.ExecStart", "Install.WantedBy", "Unit.After"}
    others = {key: values for key, values in user.items() if key not in own}
    assert {key: values for key, values in others.items() if not {*values} <= {*system[key]}} == {}


class Analyze:
    """``systemd-analyze`` on copies whose ExecStart exists here."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self.folder = folder
        for unit in UNITS.glob("modelsplit.*"):
            text = unit.read_text().replace("/opt/modelsplit/bin/modelsplit", sys.executable)
            (folder / unit.name).write_text(text)

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Exit status, and everything it printed."""
        units = sorted(str(unit) for unit in self.folder.iterdir())
        if arguments[0] == "security":
            units = [unit for unit in units if unit.endswith(".service")]
        done = subprocess.run(
            [self._program, *arguments, *units],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.fixture
def analyze(tmp_path: Path) -> Analyze:
    return Analyze("systemd-analyze", tmp_path)


@pytest.mark.tools("systemd-analyze")
def test_systemd_understands_every_line(analyze: Analyze) -> None:
    # An unknown key is a warning with status 0: silence is the proof.
    assert analyze("verify") == (0, "")


@pytest.mark.tools("systemd-analyze")
def test_the_users_systemd_understands_every_line(tmp_path: Path) -> None:
    for unit in (UNITS / "user").iterdir():
        text = unit.read_text().replace("%h/.local/bin/modelsplit", sys.executable)
        (tmp_path / unit.name).write_text(text)
    units = sorted(map(str, tmp_path.iterdir()))
    runtime = tmp_path / "run"
    runtime.mkdir()
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", *units],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(runtime)},
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.tools("systemd-analyze")
def test_systemd_would_have_said_so(analyze: Analyze) -> None:
    with (analyze.folder / "modelsplit.service").open("a") as unit:
        unit.write("\n[Service]\nProtectEverything=yes\n")
    assert "ProtectEverything" in analyze("verify")[1]


@pytest.mark.tools("systemd-analyze")
def test_the_service_is_hardened(analyze: Analyze) -> None:
    code, report = analyze(
        "security", "--offline=true", f"--threshold={EXPOSURE_AT_MOST}", "--no-pager"
    )
    print(report.splitlines()[-1])
    assert code == 0, report


@pytest.mark.tools("systemd-analyze")
def test_the_threshold_is_one_that_can_fail(analyze: Analyze) -> None:
    bare = "[Service]\nType=notify\nExecStart=/bin/true\n"
    (analyze.folder / "modelsplit.service").write_text(bare)
    code, _ = analyze("security", "--offline=true", f"--threshold={EXPOSURE_AT_MOST}", "--no-pager")
    assert code != 0
