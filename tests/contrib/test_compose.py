"""``contrib/compose.yaml``: sound by the Compose specification, and of parts that fit together."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from clients import install
from clients.absence import absent
from modelsplit_proxy.cli.commands import COMMANDS
from modelsplit_proxy.cli.main import build_parser
from support.harness import running

FOLDER = Path(__file__).parent
CONTRIB = FOLDER.parents[1] / "contrib"
FILE = CONTRIB / "compose.yaml"
TEXT = FILE.read_text()
PROMETHEUS = (CONTRIB / "prometheus" / "prometheus.yml").read_text()
# Ollama is wanted as new as it is.
WITHOUT_A_VERSION = "service-image-require-explicit-tag"


def errors(linter: Path, file: Path) -> list[tuple[str, str]]:
    """What dclint, which has the specification's schema, finds wrong: rule and words."""
    done = subprocess.run(
        ["node", linter, "-f", "json", file], capture_output=True, text=True, check=False
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return [
        (row["rule"], row["message"])
        for judged in found
        for row in judged["messages"]
        if row["type"] == "error"
    ]


@pytest.mark.tools("node", "npm")
def test_it_is_as_the_specification_has_it(tmp_path: Path) -> None:
    try:
        modules = install.node_packages(
            "contrib", FOLDER / "package.json", FOLDER / "package-lock.json"
        )
    except install.Unavailable as reason:
        absent(reason, "dclint")
    linter = modules / "dclint" / "bin" / "dclint.cjs"
    rules = [rule for rule, _ in errors(linter, FILE)]
    assert rules == [WITHOUT_A_VERSION]
    # It would know.
    wrong = shutil.copy(FILE, tmp_path / "compose.yaml")
    Path(wrong).write_text(TEXT.replace("stop_grace_period: 40s", "stop_grace: 40s"))
    assert "invalid-schema" in [rule for rule, _ in errors(linter, Path(wrong))]


def test_what_it_mounts_is_there_and_is_published_on_loopback_alone() -> None:
    mounts = re.findall(r"(\./[\w./-]+):/", TEXT)
    assert mounts
    for mount in mounts:
        assert (CONTRIB / mount).exists(), mount
    for ports in re.findall(r"ports: \[(.*)\]", TEXT):
        for port in ports.split(", "):
            assert port.startswith("'127.0.0.1:"), port


def test_grafana_finds_the_dashboard_and_its_prometheus() -> None:
    provisioning = CONTRIB / "grafana" / "provisioning"
    provider = (provisioning / "dashboards" / "modelsplit.yml").read_text()
    folder = re.search(r"path: ([\w/]+)", provider)
    assert folder is not None
    assert f"./grafana/modelsplit.json:{folder[1]}/modelsplit.json:ro" in TEXT
    source = (provisioning / "datasources" / "prometheus.yml").read_text()
    assert "url: http://prometheus:9090" in source
    assert re.search(r"^  prometheus:$", TEXT, re.MULTILINE)
    assert "127.0.0.1:9090:9090" in TEXT
    board = json.loads((CONTRIB / "grafana" / "modelsplit.json").read_text())
    assert f"http://127.0.0.1:3000/d/{board['uid']}" in TEXT


def test_modelsplit_is_started_by_words_that_it_knows() -> None:
    command = re.search(r"command: \[(.*)\]", TEXT)
    assert command is not None
    words = [word.strip("' ") for word in command[1].split(",")]
    args = build_parser(COMMANDS).parse_args(words)
    assert (args.listen, args.admin) == ("0.0.0.0:11435", "0.0.0.0:11436")
    ports = re.findall(r"'127\.0\.0\.1:(\d+):(\d+)'", TEXT)
    assert {inside for _, inside in ports} == {"11435", "11436", "9090", "3000"}


async def test_prometheus_is_answered_under_the_name_that_it_asks_for() -> None:
    target = re.search(r"targets: \['(.*)'\]", PROMETHEUS)
    assert target is not None
    name, _, port = target[1].partition(":")
    assert (name, port) == ("modelsplit", "11436")
    assert f"--allow-host, {name}," in TEXT
    for allowed, status in (((name,), 200), ((), 403)):
        async with running(allow_hosts=allowed) as up, up.admin() as admin:
            answer = await admin.request("GET", "/metrics", None, {"Host": target[1]})
            assert answer.status == status
