"""The image and the machines around it, as far as they can be read: neither is run here."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelsplit_proxy.cli.commands import COMMANDS
from modelsplit_proxy.cli.main import build_parser

ROOT = Path(__file__).parents[2]
IMAGE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "contrib" / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def lines(word: str, last_stage: bool = True) -> list[str]:
    """What stands behind that instruction of the image."""
    text = IMAGE[IMAGE.rindex("\nFROM ") :] if last_stage else IMAGE
    return re.findall(rf"^{word}\s+(.*)$", text, re.MULTILINE)


def test_the_command_line_is_on_the_path_of_the_image() -> None:
    [environment] = lines("ENV")
    values = dict(word.split("=", 1) for word in shlex.split(environment))
    assert values["PATH"].split(":")[0] == "/opt/modelsplit/bin"
    assert lines("ENTRYPOINT") == ['["/opt/modelsplit/bin/modelsplit"]']


def test_it_serves_as_nobody_in_particular_with_a_volume_for_its_state() -> None:
    [user] = lines("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    [words] = map(json.loads, lines("CMD"))
    args = build_parser(COMMANDS).parse_args(words)
    assert (args.command, args.listen, args.admin) == ("serve", "0.0.0.0:11435", None)
    assert [str(args.state)] == lines("VOLUME")


def test_a_platform_without_ready_wheels_fails_with_a_name() -> None:
    assert any("--only-binary=:all:" in line for line in lines("RUN", last_stage=False))
    assert "pip" not in " ".join(lines("RUN"))


def test_its_health_is_asked_on_its_own_loopback() -> None:
    [check] = lines("HEALTHCHECK")
    assert "http://127.0.0.1:11436/healthz" in check


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_of_the_composition_is_published_beyond_this_machine(name: str) -> None:
    ports = [str(port) for port in SERVICES[name].get("ports", ())]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_what_the_composition_mounts_of_ours_is_there() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", ())]
    ours = [mount.partition(":")[0] for mount in mounts if mount.startswith(("./", "../"))]
    assert ours
    assert [path for path in ours if not (ROOT / "contrib" / path).exists()] == []


def test_the_composition_gives_a_drain_its_time() -> None:
    assert SERVICES["modelsplit"]["stop_grace_period"] == "40s"
