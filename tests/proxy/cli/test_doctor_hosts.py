"""What is wrong with one of several hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelsplit_policy.config.parser import parse
from modelsplit_proxy.cli import doctor_hosts
from modelsplit_proxy.cli.doctor_findings import Finding
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.config.settings import Address, read_settings
from support.doctoring import answer, look

HOSTS = {"big": {"url": "http://10.0.0.7"}, "small": {"url": "http://127.0.0.1:11434"}}


def several(hosts: Any = None) -> Any:
    return parse(
        policy_file.merge(policy_file.shipped(), {"hosts": HOSTS if hosts is None else hosts})
    )


def test_hosts_that_are_there_are_fine_and_so_is_the_one_upstream(tmp_path: Path) -> None:
    there = dict.fromkeys(HOSTS, answer({"version": "0.33.0"}))
    assert [*doctor_hosts.hosts(look(tmp_path, policy=several(), hosts=there))] == []
    assert [*doctor_hosts.hosts(look(tmp_path))] == []
    assert doctor_hosts.places(None) == {}


def test_one_that_is_away_one_that_is_no_ollama_and_one_that_is_drained(tmp_path: Path) -> None:
    versions = {"big": None, "small": answer({"version": "0.33.0"}, via="1.1 modelsplit")}
    stats = {"hosts": [{"name": "big", "drained": True}, {"name": "small", "drained": False}]}
    found = [*doctor_hosts.hosts(look(tmp_path, policy=several(), hosts=versions, stats=stats))]
    assert found == [
        Finding(
            "fleet",
            "host big: nothing answers at http://10.0.0.7:11434; its calls go to the others",
            "curl http://10.0.0.7:11434/api/version",
        ),
        Finding(
            "fleet",
            "host small: http://127.0.0.1:11434 is a modelsplit, not Ollama",
            "modelsplit check-config",
        ),
        Finding(
            "fleet",
            "host big is drained: it takes no new calls",
            "modelsplit host undrain big",
        ),
    ]


def test_where_no_host_takes_calls_none_is_said_to_take_over(tmp_path: Path) -> None:
    """Both are away; one is away and the other drained."""
    nobody: Any = dict.fromkeys(HOSTS)
    found = [*doctor_hosts.hosts(look(tmp_path, policy=several(), hosts=nobody))]
    assert [str(finding).count("; and no other host takes calls") for finding in found] == [1, 1]
    one = {"big": None, "small": answer({"version": "0.33.0"})}
    stats = {"hosts": [{"name": "small", "drained": True}]}
    [away, shut] = doctor_hosts.hosts(look(tmp_path, policy=several(), hosts=one, stats=stats))
    assert "; and no other host takes calls" in str(away)
    assert "host small is drained: it takes no new calls" in str(shut)


def test_the_first_that_answers_is_looked_at_for_all() -> None:
    settings = read_settings({}, {})
    versions = {"big": None, "small": answer({})}
    found = doctor_hosts.first_that_answers(settings, several(), versions)
    assert found == Address("127.0.0.1", 11434)
    nobody: Any = dict.fromkeys(HOSTS)
    found = doctor_hosts.first_that_answers(settings, several(), nobody)
    assert found == Address("10.0.0.7", 11434)
    assert doctor_hosts.first_that_answers(settings, None, {}) == settings.upstream
