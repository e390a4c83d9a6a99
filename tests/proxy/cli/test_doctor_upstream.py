"""What is wrong with an Ollama, told with the command that mends it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from modelsplit_policy.config.parser import parse
from modelsplit_proxy.cli import doctor_upstream
from modelsplit_proxy.cli.doctor import examine
from modelsplit_proxy.cli.doctor_findings import Finding, Unseen
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.runtime.clock import SystemClock
from modelsplit_proxy.storage.state_file import open_state
from support.clouds import approve
from support.doctoring import answer, causes, look, models, process, table

LISTENS = ("0100007F:2CAA", "00000000:0000", "0A", 0, 7)
little = pytest.mark.skipif(sys.byteorder != "little", reason="the rows are of such a machine")


MAX_LOADED = (
    "OLLAMA_MAX_LOADED_MODELS=1, and the roles' first models are 2: a call of one has another "
    "unloaded"
)


def policy(**changes: Any) -> Any:
    whole = policy_file.merge(policy_file.shipped(), changes)
    return parse(whole)


UNIT = {"systemctl": "[Service]\n"}


def test_a_healthy_one_is_fine(tmp_path: Path) -> None:
    here = look(tmp_path)
    for check in (
        *(doctor_upstream.presence, doctor_upstream.address, doctor_upstream.models),
        *(doctor_upstream.memory, doctor_upstream.parallel, doctor_upstream.keep_alive),
    ):
        assert [*check(here)] == []


def test_one_that_is_away_is_started_here_and_asked_elsewhere(tmp_path: Path) -> None:
    [found] = doctor_upstream.presence(look(tmp_path, version=None, programs=UNIT))
    cause = "nothing answers at http://127.0.0.1:11434"
    assert found == Finding("Ollama", cause, "sudo systemctl start ollama")
    [found] = doctor_upstream.presence(look(tmp_path, version=None))
    assert found == Finding("Ollama", cause, "ollama serve")
    other = look(tmp_path, version=None, settings={"upstream": "http://10.0.0.9:11434"})
    [found] = doctor_upstream.presence(other)
    assert isinstance(found, Finding)
    assert found.step == "curl -m 5 http://10.0.0.9:11434/api/version"


def test_one_that_hangs_is_started_anew(tmp_path: Path) -> None:
    cause = "Ollama at http://127.0.0.1:11434 takes connections and does not answer: it hangs"
    hung = look(tmp_path, version=None, hangs=True, programs=UNIT)
    [found] = doctor_upstream.presence(hung)
    assert found == Finding("Ollama", cause, "sudo systemctl restart ollama")
    [found] = doctor_upstream.presence(look(tmp_path, version=None, hangs=True))
    step = "curl -m 5 http://127.0.0.1:11434/api/version   # answers once Ollama is restarted"
    assert found == Finding("Ollama", cause, step)


def test_a_pull_names_an_ollama_that_is_elsewhere(tmp_path: Path) -> None:
    there = look(tmp_path, installed=models({}), settings={"upstream": "http://10.0.0.9:11434"})
    steps = [found.step for found in doctor_upstream.models(there) if isinstance(found, Finding)]
    assert "OLLAMA_HOST=http://10.0.0.9:11434 ollama pull qwen3:4b" in steps


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ({"version": "0.6.3"}, "Ollama 0.6.3 is older than 0.6.4"),
        ({"version": "0.6.4-rc1"}, None),
        ({"version": "0.0.0"}, None),
        ({"other": 1}, "what answers at http://127.0.0.1:11434 does not say that it is Ollama"),
        (None, "what answers at http://127.0.0.1:11434 does not say that it is Ollama"),
    ],
)
def test_one_that_is_too_old_or_another_is_told(
    body: Any, cause: str | None, tmp_path: Path
) -> None:
    found = [*doctor_upstream.presence(look(tmp_path, version=answer(body)))]
    assert causes(found) == ([] if cause is None else [cause])


@little
def test_who_has_ollamas_port_is_told_and_what_hangs_on_ollama_is_not_called_fine(
    tmp_path: Path,
) -> None:
    here = look(tmp_path, version=answer(None), installed=answer(None), loaded=answer(None))
    table(here.proc, LISTENS)
    process(here.proc, 12, "python3", 7)
    report = examine(here, "the shipped policy")
    [found] = (finding for finding in report.findings if finding.check == "Ollama")
    cause = "what answers at http://127.0.0.1:11434 does not say that it is Ollama"
    assert found.cause == f"{cause}: python3 (pid 12) listens there"
    why = "Ollama does not answer"
    assert report.skipped[why] == ["models", "memory", "parallel", "keep-alive"]


def test_an_upstream_that_is_a_modelsplit_is_a_loop(tmp_path: Path) -> None:
    version = answer({"version": "0.33.0"}, via="1.1 modelsplit")
    flags = {"--upstream": ("localhost:11434",), "--state": ("/srv/a b",)}
    [found] = doctor_upstream.presence(look(tmp_path, version=version, flags=flags))
    assert isinstance(found, Finding)
    assert found.check == "loop"
    assert found.step == "modelsplit serve --upstream http://127.0.0.1:11433 --state '/srv/a b'"


@little
def test_an_ollama_that_was_told_to_listen_on_our_port_is_a_loop(tmp_path: Path) -> None:
    here = look(tmp_path)
    table(here.proc, LISTENS)
    process(here.proc, 12, "ollama", 7, OLLAMA_HOST="0.0.0.0:11435")
    [found] = doctor_upstream.address(here)
    assert "OLLAMA_HOST=0.0.0.0:11435 tells Ollama to listen on our own port" in found[1]


def test_its_environment_is_asked_of_systemd_where_it_cannot_be_seen(tmp_path: Path) -> None:
    programs = {"systemctl": "OLLAMA_HOST=127.0.0.1:11434 OLLAMA_KEEP_ALIVE=1m\n"}
    environ = doctor_upstream.ollama_environ(look(tmp_path, programs=programs))
    assert environ == {"OLLAMA_HOST": "127.0.0.1:11434", "OLLAMA_KEEP_ALIVE": "1m"}
    assert doctor_upstream.ollama_environ(look(tmp_path)) is None
    other = look(tmp_path, programs=programs, settings={"upstream": "http://10.0.0.9:11434"})
    assert doctor_upstream.ollama_environ(other) is None


def test_missing_models_are_told_with_their_roles_and_the_pull(tmp_path: Path) -> None:
    installed = models({"qwen3:4b": 3, "planner": 1, "gemma3:12b": 8, "gpt-oss:20b": 9})
    found = [*doctor_upstream.models(look(tmp_path, installed=installed))]
    assert found == [
        Finding("models", "PLANNER, EXECUTOR: qwen3:8b is not installed", "ollama pull qwen3:8b"),
        Finding(
            "models",
            'alias "planner" of PLANNER hides the installed model of that name',
            "ollama cp planner my-planner && ollama rm planner",
        ),
    ]


def test_a_list_that_is_none_cannot_be_looked_at(tmp_path: Path) -> None:
    found = [*doctor_upstream.models(look(tmp_path, installed=answer({"models": 3})))]
    assert causes(found) == ["unseen: Ollama does not say what is installed"]


def test_what_a_host_that_does_not_answer_may_have_is_not_said_to_be_missing(
    tmp_path: Path,
) -> None:
    here = look(tmp_path, installed=models({"qwen3:4b": 3}), hosts={"big": None})
    assert [*doctor_upstream.models(here)] == [Unseen("models", "big does not answer")]


def test_without_a_policy_there_are_no_models_to_look_for(tmp_path: Path) -> None:
    assert [*doctor_upstream.models(look(tmp_path, policy=None))] == []


def test_a_cloud_model_that_nobody_serves_matters_once_it_is_approved(tmp_path: Path) -> None:
    approved = {"spending": {"approvals": 1}}
    [found] = doctor_upstream.models(look(tmp_path, stats=approved))
    assert found[1].startswith("CLOUD: claude-3-opus cannot be served")


def test_a_cloud_approved_in_the_file_matters_while_nothing_runs(tmp_path: Path) -> None:
    here = look(tmp_path)
    assert [*doctor_upstream.models(here)] == []
    open_state(here.state, SystemClock()).db.close()
    assert [*doctor_upstream.models(here)] == []
    approve(here.state)
    [found] = doctor_upstream.models(here)
    assert found[1].startswith("CLOUD: claude-3-opus cannot be served")


def test_another_model_of_the_cloud_is_named_in_the_policy_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    approved = {"spending": {"approvals": 1}}
    what = "roles.CLOUD.primary: a model that is served; then restart"
    [found] = doctor_upstream.models(look(tmp_path, stats=approved))
    step = f"modelsplit print-policy --into .   # {what} with --policy model-policy.json"
    assert found[2:] == (step,)
    # One that was written here, and that nobody serves with yet: `print-policy` leaves it alone.
    Path("model-policy.json").write_text("{}")
    [found] = doctor_upstream.models(look(tmp_path, stats=approved))
    assert found[2:] == (
        f"${{EDITOR:-vi}} model-policy.json   # {what} with --policy model-policy.json",
    )
    mine = tmp_path / "my policy.json"
    mine.write_text("{}")
    [found] = doctor_upstream.models(look(tmp_path, stats=approved, settings={"policy": mine}))
    assert found[2:] == (f"${{EDITOR:-vi}} '{mine}'   # {what}",)


def test_models_that_do_not_fit_together_are_told(tmp_path: Path) -> None:
    here = look(tmp_path, programs={"nvidia-smi": "8192\n"})
    found = causes([*doctor_upstream.memory(here)])
    end = " of 8.6 GB of video memory: a call of one has the other unloaded"
    assert [text.removesuffix(end) for text in found] == [
        "PLANNER (qwen3:4b) and EXECUTOR (qwen3:8b) need about 9.6 GB",
        "PLANNER (qwen3:4b) and HEAVY (gemma3:12b) need about 13.2 GB",
        "EXECUTOR (qwen3:8b) and HEAVY (gemma3:12b) need about 15.6 GB",
    ]
    assert [
        *doctor_upstream.memory(look(tmp_path, programs={"nvidia-smi": "12288\n12288\n"}))
    ] == []


def test_without_a_card_it_is_the_machines_memory(tmp_path: Path) -> None:
    here = look(tmp_path)
    (here.proc / "meminfo").write_text("MemTotal:       16000000 kB\nMemFree: 1 kB\n")
    assert doctor_upstream.memory_bytes(here) == (16_384_000_000, "memory")


def test_a_model_that_is_loaded_counts_as_it_was_measured(tmp_path: Path) -> None:
    here = look(
        tmp_path,
        programs={"nvidia-smi": "16384\n"},
        loaded=models({"gemma3:12b": 16}, size_vram=4 * 10**9),
    )
    found = causes([*doctor_upstream.memory(here)])
    assert found[0] == ("gemma3:12b is 25% in video memory, the rest computes on the processor")
    assert [text[:34] for text in found[1:]] == [
        "PLANNER (qwen3:4b) and HEAVY (gemm",
        "EXECUTOR (qwen3:8b) and HEAVY (gem",
    ]


def test_pinned_parallelism_that_ollama_does_not_have_is_told(tmp_path: Path) -> None:
    pinned = policy(models={"qwen3:4b": {"parallel": 4}})
    programs = {"systemctl": "OLLAMA_NUM_PARALLEL=2 OLLAMA_MAX_LOADED_MODELS=1\n"}
    found = [*doctor_upstream.parallel(look(tmp_path, policy=pinned, programs=programs))]
    assert causes(found) == [
        "the policy says that Ollama computes 4 calls of qwen3:4b together, it computes 2",
        MAX_LOADED,
    ]


@pytest.mark.parametrize(("basis", "count"), [("start", 0), ("learned", 1)])
def test_so_is_what_the_proxy_has_learned(basis: str, count: int, tmp_path: Path) -> None:
    stats = {"parallelism": {"basis": basis, "slots": {"qwen3:4b": 1}}}
    pinned = policy(models={"qwen3:4b": {"parallel": 4}})
    found = [*doctor_upstream.parallel(look(tmp_path, policy=pinned, stats=stats))]
    assert len(found) == count


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0", True),
        ("90s", True),
        ("1m", True),
        ("5m", False),
        ("-1", False),
        ("24h", False),
        ("", False),
        ("long", False),
    ],
)
def test_a_keep_alive_that_unloads_the_planner_is_told(
    text: str, told: bool, tmp_path: Path
) -> None:
    here = look(tmp_path, programs={"systemctl": f"OLLAMA_KEEP_ALIVE={text}\n"})
    assert bool([*doctor_upstream.keep_alive(here)]) is told
