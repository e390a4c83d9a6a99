"""The programs that tests need: listed once, installed by CI, required with ``--tools``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from clients import install
from clients.absence import absent
from clients.catalogue import CLIENTS
from support import tools

ROOT = Path(__file__).parents[1]
LISTED = tools.packages(tools.LIST.read_text())


def test_the_list_is_programs_and_their_packages() -> None:
    text = "# program package\n\nnode   nodejs # 20\nsystemd-analyze systemd\n"
    assert tools.packages(text) == {"node": "nodejs", "systemd-analyze": "systemd"}


def test_every_program_of_the_list_is_named_by_a_test() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = {program for client in CLIENTS for program in client.programs}
    assert {program for program in LISTED if f'tools("{program}"' in sources} | named == {*LISTED}


@pytest.mark.parametrize(
    ("marks", "wrong"),
    [
        ([pytest.mark.tools("node", "npm")], []),
        ([pytest.mark.tools("node", "promtool")], ["here: promtool"]),
        ([pytest.mark.tools()], ["here names no program"]),
        ([], []),
    ],
)
def test_a_marker_names_programs_of_the_list(
    marks: list[pytest.MarkDecorator], wrong: list[str], request: pytest.FixtureRequest
) -> None:
    class Item(pytest.Item):
        def runtest(self) -> None: ...

    item = Item.from_parent(request.session, name="x", nodeid="here")
    for mark in marks:
        item.add_marker(mark)
    assert tools.unlisted([item], ["node", "npm"]) == wrong


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (install.Unreachable("no registry"), pytest.skip.Exception),
        (install.Unavailable("node is v18, not 20 or newer"), pytest.fail.Exception),
    ],
)
def test_only_a_registry_that_does_not_answer_is_an_excuse(
    reason: install.Unavailable, outcome: type[BaseException]
) -> None:
    with pytest.raises(outcome, match=f"curl: {reason}"):
        absent(reason, "curl")


def test_what_is_missing_is_found_out() -> None:
    assert tools.missing(["sh", "no-such-program"]) == ["no-such-program"]


@pytest.mark.parametrize(
    ("listed", "asked"),
    [
        ("sh dash\n# no-program none\n\n", []),
        (
            "no-program  some-package\nsh dash\nno-other other-package\n",
            ["update -q", "install -q -y --no-install-recommends some-package other-package"],
        ),
    ],
)
def test_ci_installs_what_is_missing_and_runs_everything(
    listed: str, asked: list[str], tmp_path: Path
) -> None:
    for folder in (".ci", "tests", "bin"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tests" / "tools.txt").write_text(listed)
    scripts = {
        ".ci/run": (ROOT / ".ci" / "run").read_text(),
        "tests/run": '#!/bin/sh\necho "tests/run $*" >>said\n',
        "bin/apt-get": '#!/bin/sh\necho "$*" >>said\n',
        "bin/sudo": '#!/bin/sh\nexec "$@"\n',
    }
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    subprocess.run([".ci/run", "-x"], cwd=tmp_path, env={"PATH": path}, check=True)
    assert (tmp_path / "said").read_text().splitlines() == [*asked, "tests/run --tools -x"]
