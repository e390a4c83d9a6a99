"""The arguments of ``modelsplit simulate``, and what they may not say together."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelsplit_proxy.cli.main import run


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "say what to replay: one of --trace, --last, --workload and --azure"),
        (
            ["--workload", "mission", "--last", "1h"],
            "--last and --workload both say what to replay",
        ),
        (["--workload", "day"], 'nothing is shipped as "day"; workloads: burst, '),
        (["--workload", "swap", "--seeds", "0"], "--seeds 0 is less than 1"),
        (["--workload", "swap", "--load", "0"], "--load 0 is not above 0"),
        (["--workload", "swap", "--retries", "11"], "--retries 11 is not between 0 and 10"),
        (["--workload", "swap", "--host-model", "laptop"], 'nothing is shipped as "laptop"'),
        (["--workload", "swap", "--host-model", "no.json"], "no.json cannot be read: No such"),
        (["--trace", "no.jsonl"], "no.jsonl cannot be read: No such file"),
        (["--workload", "swap", "--fit"], "--fit reads records: it goes with --trace or --last"),
        (["--workload", "swap", "--capacity", "--check"], "--check goes with a replay"),
        (["--workload", "swap", "--advise", "--html", "x"], "and --advise is none"),
        (["--workload", "swap", "--advise", "--write", "no/x"], "there is no folder no"),
        (["--workload", "swap", "--html", "no/x"], "no/x cannot be written"),
        (["--workload", "swap", "--thin", "2"], "--thin N keeps every N-th arrival"),
        (["--azure", "a.csv=planner"], "--azure needs --host-model"),
        (["--workload", "swap", "--fit", "--advise"], "one at a time"),
        (["--workload", "swap", "--keep", "host"], "--keep goes with --advise"),
        (["--workload", "swap", "--advise", "--budget", "9"], "--budget 9 is less than 30"),
        (["--workload", "swap", "--advise", "--minutes", "0"], "--minutes 0 is not above 0"),
        (["--workload", "swap", "--advise", "--against", "direct"], "--against is not used"),
        (["--trace", "no.jsonl", "--load", "2"], "--load goes with --workload"),
        (
            ["--workload", "swap", "--policy", "no.json"],
            "no such file, but --policy or $MODELSPLIT_POLICY names it",
        ),
        (["--workload", "swap", "--against", "no.json"], "no such file, but --against names it"),
    ],
)
def test_what_cannot_be_simulated_is_wrong_usage(
    flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["simulate", *flags], {}) == 2
    assert says in capsys.readouterr().err


def test_help_names_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["simulate", "--help"], {})
    text = " ".join(capsys.readouterr().out.split())
    assert "Exit 0: replayed; 1: with --check, a gate breaks; 2: wrong usage" in text


def test_other_commands_do_not_load_the_simulation() -> None:
    source = (Path(__file__).parents[3] / "proxy/modelsplit_proxy/cli/commands.py").read_text()
    assert "simulate_command" in source
    assert "import simulate\n" not in source
