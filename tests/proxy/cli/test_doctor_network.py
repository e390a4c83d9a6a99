"""What is wrong with the network: ports, who passes us by, packet filters, certificates."""

from __future__ import annotations

import base64
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from modelsplit_proxy.cli import doctor_network, port_holder
from modelsplit_proxy.cli.doctor_findings import Finding
from support.doctoring import SetClock, causes, look, process, table

ANYWHERE = "00000000:0000"
LISTEN = ("0100007F:2CAB", ANYWHERE, "0A", 0, 5)
ADMIN = ("0100007F:2CAC", ANYWHERE, "0A", 64, 6)
CALL = ("0100007F:C350", "0100007F:2CAA", "01", 1000, 8)
pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the rows are of such a machine")
# openssl req -x509 -newkey ed25519 -nodes -subj /CN=x -days 1, of 2026-11-29 23:45 UTC.
CERTIFICATE = base64.b64decode(
    "MIIBLDCB36ADAgECAhRtkUmApQKL6b9WsCX24ILLxjjSUjAFBgMrZXAwDDEKMAgGA1UEAwwBeDAeFw0yNjExMjky"
    "MzM2MzBaFw0yNjExMzAyMzM2MzBaMAwxCjAIBgNVBAMMAXgwKjAFBgMrZXADIQBfl/DhptAV/oQ/3uHD23E4wtWd"
    "JON7QbP5zOxS9vic7aNTMFEwHQYDVR0OBBYEFJhe7tMse6zAnzVk8OmdlPsRfzAjMB8GA1UdIwQYMBaAFJhe7tMs"
    "e6zAnzVk8OmdlPsRfzAjMA8GA1UdEwEB/wQFMAMBAf8wBQYDK2VwA0EAfA92Y3YYY/AwYhm60CCKWpItJcFBxUN/"
    "7Kv/MVQd887QmOfPxQ0HCMdYgqwtE5M8DG3P545XTjT9WQVuLiL7CA=="
)


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who answers on our ports is no modelsplit."""
    monkeypatch.setattr(port_holder, "is_ours", lambda *_: False)
    monkeypatch.setattr(port_holder, "_is_free", lambda _: True)


def test_a_machine_without_the_tables_cannot_be_looked_at(tmp_path: Path) -> None:
    assert causes([*doctor_network.ports(look(tmp_path))]) == [
        "unseen: this system has no /proc/net/tcp"
    ]
    assert [*doctor_network.direct(look(tmp_path))] == []


@pytest.mark.usefixtures("strangers")
def test_who_has_our_port_is_told(tmp_path: Path) -> None:
    here = look(tmp_path, flags={"--policy": ("mine.json",)})
    table(here.proc, LISTEN, ADMIN)
    process(here.proc, 12, "nginx", 5)
    first, second = doctor_network.ports(here)
    step = "modelsplit serve --policy mine.json --listen 127.0.0.1:11500 --admin 127.0.0.1:11501"
    assert first == Finding("ports", "port 11435 (--listen) is taken by nginx (pid 12)", step)
    assert isinstance(second, Finding)
    assert "port 11436 (--admin) is taken by a process of " in second.cause
    assert second.step == step


@pytest.mark.usefixtures("strangers")
def test_who_has_both_of_our_ports_is_one_finding(tmp_path: Path) -> None:
    here = look(tmp_path)
    table(here.proc, LISTEN, ADMIN)
    process(here.proc, 12, "nginx", 5, 6)
    [finding] = doctor_network.ports(here)
    assert isinstance(finding, Finding)
    assert finding.cause == (
        "ports 11435 (--listen) and 11436 (--admin) are taken by nginx (pid 12)"
    )


@pytest.mark.usefixtures("strangers")
def test_systemd_holds_it_for_us(tmp_path: Path) -> None:
    here = look(tmp_path)
    table(here.proc, LISTEN)
    process(here.proc, 1, "systemd", 5)
    assert [*doctor_network.ports(here)] == []


@pytest.mark.usefixtures("strangers")
def test_who_takes_over_holds_it_for_us(tmp_path: Path) -> None:
    """And both ask Ollama meanwhile. Where nobody drains, it is somebody else's."""
    here = look(tmp_path, stats={"draining": True})
    table(here.proc, LISTEN, CALL)
    process(here.proc, 12, "modelsplit", 5, 8)
    assert [*doctor_network.ports(here), *doctor_network.direct(here)] == []
    served = look(tmp_path, stats={"draining": False})
    [found] = doctor_network.ports(served)
    assert found[1] == "port 11435 (--listen) is taken by modelsplit (pid 12)"


def test_another_modelsplit_in_front_of_ollama_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the wrong ``--admin`` is asked: no client is to be pointed anywhere."""
    admin = ("0100007F:560C", ANYWHERE, "0A", 0, 7)
    monkeypatch.setattr(port_holder, "is_admin", lambda at: at.port == 22028)
    here = look(tmp_path)
    table(here.proc, LISTEN, admin, CALL)
    process(here.proc, 12, "modelsplit", 5, 7, 8)
    cause = (
        "another modelsplit (pid 12) is in front of Ollama at 127.0.0.1:11434: neither knows of "
        "the other's calls"
    )
    step = "modelsplit status --admin 127.0.0.1:22028"
    assert [*doctor_network.direct(here)] == [Finding("direct", cause, step)]
    monkeypatch.setattr(port_holder, "is_admin", lambda _: False)
    assert [*doctor_network.direct(here)] == [Finding("direct", cause, "ps -o args= -p 12")]


def test_our_own_process_has_it_rightly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_holder, "is_ours", lambda *_: True)
    here = look(tmp_path)
    table(here.proc, LISTEN, ADMIN)
    assert [*doctor_network.ports(here)] == []


def test_who_talks_to_ollama_itself_is_told_once(tmp_path: Path) -> None:
    here = look(tmp_path, stats={})
    ours = ("0100007F:C352", "0100007F:2CAA", "01", 64, 9)
    again = ("0100007F:C353", "0100007F:2CAA", "01", 1000, 10)
    elsewhere = ("0100007F:C354", "0900000A:2CAA", "01", 1000, 11)
    table(here.proc, ADMIN, CALL, ours, again, elsewhere)
    process(here.proc, 12, "python3", 8, 10)
    process(here.proc, 13, "modelsplit", 6, 9)
    [found] = doctor_network.direct(here)
    assert isinstance(found, Finding)
    assert found.cause.startswith("python3 (pid 12) talks to Ollama at 127.0.0.1:11434 itself")
    assert found.step == "export OLLAMA_HOST=http://127.0.0.1:11435   # there"


def test_without_rights_it_is_told_by_user(tmp_path: Path) -> None:
    here = look(tmp_path, stats={})
    ours = ("0100007F:C352", "0100007F:2CAA", "01", 64, 9)
    table(here.proc, ADMIN, (*CALL[:3], 4000000000, 8), ours)
    [found] = doctor_network.direct(here)
    assert found[1].startswith("a process of user 4000000000 talks to Ollama")


@pytest.mark.parametrize(
    ("told", "upstream", "count"),
    [
        ("IPAddressAllow=127.0.0.0/8 ::1/128\nIPAddressDeny=::/0 0.0.0.0/0\n", "10.0.0.9", 1),
        ("IPAddressAllow=10.0.0.0/8\nIPAddressDeny=::/0 0.0.0.0/0\n", "10.0.0.9", 0),
        ("IPAddressAllow=127.0.0.0/8\nIPAddressDeny=::/0 0.0.0.0/0\n", "127.0.0.1", 0),
        ("IPAddressAllow=\nIPAddressDeny=\n", "10.0.0.9", 0),
        (None, "10.0.0.9", 0),
    ],
)
def test_a_filter_that_blocks_the_upstream_is_told(
    told: str | None, upstream: str, count: int, tmp_path: Path
) -> None:
    programs: dict[str, Any] = {"systemctl": told}
    flags = {"upstream": f"http://{upstream}:11434", "otlp-endpoint": "http://127.0.0.1:4318"}
    found = [*doctor_network.filters(look(tmp_path, programs=programs, settings=flags))]
    assert len(found) == count
    assert all("no IPAddressAllow= for Ollama at 10.0.0.9" in item[1] for item in found)


END = datetime(2026, 11, 30, 23, 45, tzinfo=UTC).timestamp()


def test_the_end_of_a_certificate_is_read() -> None:
    end = doctor_network.ends_at(CERTIFICATE)
    assert end is not None
    assert abs(end - END) < 3600
    assert doctor_network.ends_at(CERTIFICATE[:40]) is None
    assert doctor_network.ends_at(b"") is None


@pytest.mark.parametrize(
    ("before_s", "verb"), [(30 * 86400.0, None), (86400.0, " ends at "), (-86400.0, " ended at ")]
)
def test_a_certificate_near_its_end_is_told(
    before_s: float, verb: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_network, "_certificate", lambda *_: CERTIFICATE)
    flags: dict[str, Any] = {"allow-host": ["gpu.example", "10.0.0.9"]}
    here = look(tmp_path, settings=flags, clock=SetClock(END - before_s))
    found = causes([*doctor_network.certificates(here)])
    assert len(found) == (verb is not None)
    assert all(text.startswith(f"the certificate of gpu.example{verb}2026-11-30") for text in found)


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (ConnectionRefusedError(), []),
        (OSError("no route"), ["unseen: gpu.example, port 443 of this machine: no route"]),
    ],
)
def test_where_nobody_does_tls_there_is_nothing_to_tell(
    error: OSError, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bytes:
        raise error

    monkeypatch.setattr(doctor_network, "_certificate", refuse)
    flags: dict[str, Any] = {"allow-host": ["gpu.example"]}
    assert causes([*doctor_network.certificates(look(tmp_path, settings=flags))]) == found
