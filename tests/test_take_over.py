"""``contrib/take-over-11434``: the order of its steps, its checks, and that a failure undoes all.

systemd and curl are stand-ins here: who answers on a port follows from the drop-ins that are there.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "contrib" / "take-over-11434"
SYSTEMCTL = """#!/bin/sh
echo "systemctl $*" >>"$LOG"
case "$*" in
"$BREAKS") exit 1 ;;
esac
"""
# Ollama listens where its drop-in says, modelsplit where its socket's does.
CURL = """#!/bin/sh
for url; do :; done
port=${url#http://127.0.0.1:}; port=${port%%/*}
[ "$port" != "$SILENT" ] || exit 7
moved=no; taken=no
[ ! -e "$SYSTEMD_UNITS/ollama.service.d/zz-modelsplit.conf" ] || moved=yes
[ ! -e "$SYSTEMD_UNITS/modelsplit.socket.d/zz-11434.conf" ] || taken=yes
case "$port $moved $taken" in
"11434 no "*|"11433 yes "*) printf 'HTTP/1.1 200 OK\\r\\n\\r\\n{}' ;;
"11434 yes yes"|"11435 "*" no") printf 'HTTP/1.1 200 OK\\r\\nVia: 1.1 modelsplit\\r\\n\\r\\n{}' ;;
*) exit 7 ;;
esac
"""
DROP_INS = {
    "ollama.service.d/zz-modelsplit.conf": "Environment=OLLAMA_HOST=127.0.0.1:11433",
    "modelsplit.service.d/zz-11434.conf": "Environment=MODELSPLIT_UPSTREAM=http://127.0.0.1:11433",
    "modelsplit.socket.d/zz-11434.conf": "ListenStream=\nListenStream=127.0.0.1:11434",
}


class Machine:
    """A folder for units, and what was asked of systemd."""

    def __init__(self, folder: Path) -> None:
        self.units = folder / "units"
        self.units.mkdir()
        self._log = folder / "log"
        self._bin = folder / "bin"
        self._bin.mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("curl", CURL)):
            (self._bin / name).write_text(text)
            (self._bin / name).chmod(0o755)

    def __call__(self, *words: str, breaks: str = "", silent: str = "") -> tuple[int, str]:
        """Run it; ``breaks``: what systemctl cannot do. ``silent``: a port on which nobody is."""
        self._log.write_text("")
        environ = {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "SYSTEMD_UNITS": str(self.units),
            "LOG": str(self._log),
            "BREAKS": breaks or "nothing",
            "SILENT": silent,
            "TRIES": "1",
        }
        done = subprocess.run(
            [str(SCRIPT), *words], env=environ, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def drop_ins(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.units)): path.read_text().partition("]\n")[2].strip()
            for path in self.units.rglob("*.conf")
        }

    def asked(self) -> list[str]:
        """What systemd was asked to do."""
        lines = self._log.read_text().splitlines()
        return [line.removeprefix("systemctl ") for line in lines if " cat " not in line]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_ollama_moves_first_and_then_its_port_is_taken(machine: Machine) -> None:
    code, told = machine()
    assert code == 0, told
    assert machine.drop_ins() == DROP_INS
    assert machine.asked() == [
        "daemon-reload",
        "restart ollama.service",
        "daemon-reload",
        "stop modelsplit.service modelsplit.socket",
        "start modelsplit.socket modelsplit.service",
    ]


def test_again_there_is_nothing_to_do_and_back_leaves_nothing(machine: Machine) -> None:
    assert machine()[0] == 0
    assert machine() == (0, "take-over-11434: modelsplit has port 11434 already\n")
    assert machine.asked() == []
    code, told = machine("--back")
    assert code == 0, told
    assert machine.asked() == [
        "stop modelsplit.service modelsplit.socket",
        "daemon-reload",
        "restart ollama.service",
        "start modelsplit.socket modelsplit.service",
    ]
    assert [*machine.units.iterdir()] == []
    assert machine("--back") == (0, "take-over-11434: nothing was taken over\n")


@pytest.mark.parametrize(
    "breaks", ["restart ollama.service", "start modelsplit.socket modelsplit.service"]
)
def test_a_unit_that_does_not_start_undoes_all(breaks: str, machine: Machine) -> None:
    code, told = machine(breaks=breaks)
    assert code == 1
    assert "undoing everything" in told
    assert machine.drop_ins() == {}
    assert "restart ollama.service" in machine.asked()


@pytest.mark.parametrize(
    ("silent", "cause"),
    [
        ("11433", "Ollama does not answer on port 11433; undoing everything"),
        ("11434", "Ollama does not answer on port 11434; nothing was changed"),
    ],
)
def test_a_port_on_which_nobody_answers_is_no_success(
    silent: str, cause: str, machine: Machine
) -> None:
    code, told = machine(silent=silent)
    assert code == 1
    assert cause in told
    assert machine.drop_ins() == {}


def test_without_one_of_the_units_nothing_is_touched(machine: Machine) -> None:
    code, told = machine(breaks="cat modelsplit.socket")
    assert (code, told) == (
        1,
        "take-over-11434: there is no modelsplit.socket; nothing was changed\n",
    )
    assert machine.asked() == []


def test_what_it_would_do_is_only_said(machine: Machine) -> None:
    code, told = machine("--dry-run")
    assert code == 0
    assert "OLLAMA_HOST=127.0.0.1:11433" in told
    assert (machine.drop_ins(), machine.asked()) == ({}, [])
    assert machine("--help")[0] == 2
