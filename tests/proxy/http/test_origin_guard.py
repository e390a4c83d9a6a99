"""Who may speak to the proxy: Host and Origin, as a page the user happens to visit would send."""

from __future__ import annotations

import pytest

from modelsplit_policy.failures import Reason
from modelsplit_proxy.http.origin_guard import OriginGuard

LOOPBACK = OriginGuard("127.0.0.1", ("box.lan", "Proxy.Lan:11435"), ("https://ui.example/",))
WILDCARD = OriginGuard("0.0.0.0", (), ())


def denied(guard: OriginGuard, host: str | None = None, origin: str | None = None) -> Reason | None:
    failure = guard.check(host, origin)
    return None if failure is None else failure.reason


# --- Host -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "localhost",
        "LocalHost:11435",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.1.2.3:11435",
        "[::1]",
        "[::1]:11435",
        "[0:0:0:0:0:0:0:1]:11435",
        "app.localhost:3000",
        "box.lan",
        "BOX.LAN:11435",
        "proxy.lan",
        "proxy.lan:11435",
    ],
)
def test_loopback_names_and_allowed_ones_pass(host: str | None) -> None:
    assert denied(LOOPBACK, host) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:11435",
        "localhost.evil.example",
        "localhost.evil.example:11435",
        "evil-localhost",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io:11435",
        "box.lan.evil.example",
        "localhost.",  # Ollama refuses it too
        "notbox.lan",
        "8.8.8.8",
        "10.0.0.7:11435",
        "[2001:db8::1]:11435",
        "2001:db8::1",
        "2130706433",
        "127.1",
        "0x7f.1",
        "\u0661\u0662\u0667.\u0660.\u0660.\u0661",  # Arabic digits
        "127.0.0.1%.evil.example",
        "%6c%6f%63%61%6c%68%6f%73%74",
        " ",
        "[",
        ":11435",
    ],
)
def test_every_other_name_or_address_is_denied_on_loopback(host: str) -> None:
    assert denied(LOOPBACK, host) is Reason.HOST_DENIED


@pytest.mark.parametrize("listen", ["0.0.0.0", "::", "10.0.0.7", "box.lan"])
@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("10.0.0.7:11435", None),
        ("[2001:db8::1]:11435", None),
        ("localhost:11435", None),
        ("evil.example", Reason.HOST_DENIED),
        ("localhost.evil.example", Reason.HOST_DENIED),
        ("10.0.0.7.evil.example", Reason.HOST_DENIED),
    ],
)
def test_beyond_loopback_any_address_passes_but_names_must_be_allowed(
    listen: str, host: str, reason: Reason | None
) -> None:
    """Rebinding needs a name; an address in Host was typed by whoever sends it."""
    assert denied(OriginGuard(listen, (), ()), host) is reason


def test_what_has_passed_is_remembered_within_bounds() -> None:
    guard = OriginGuard("127.0.0.1", (), ())
    for number in range(100):
        assert guard.check(f"h{number}.localhost", None) is None
    assert len(guard._passed) <= 64
    long = "x" * 300 + ".localhost"
    assert OriginGuard("127.0.0.1", (), ()).check(long, None) is None
    assert guard.check("evil.example", None) is not None
    assert not {long, "evil.example"} & guard._passed


def test_the_name_we_listen_on_passes() -> None:
    assert denied(OriginGuard("Box.Lan", (), ()), "box.lan:11435") is None


@pytest.mark.parametrize("allowed", ["[2001:db8::1]:11435", "[2001:db8::1]", "2001:db8::1"])
def test_an_allowed_address_passes_however_it_was_written(allowed: str) -> None:
    guard = OriginGuard("127.0.0.1", (allowed,), ())
    assert denied(guard, "[2001:db8::1]:11435") is None
    assert denied(guard, "[2001:db8::2]:11435") is Reason.HOST_DENIED
    assert denied(guard, "[") is Reason.HOST_DENIED


def test_a_denied_host_is_told_what_to_do() -> None:
    failure = LOOPBACK.check("evil.example\udcff" + "x" * 500, None)
    assert failure is not None
    assert failure.status == 403
    assert failure.message.startswith('Host "evil.example\ufffdxxx')
    assert failure.message.endswith("start modelsplit with --allow-host to add it")
    assert len(failure.message.encode()) < 220


MACHINE = OriginGuard("127.0.0.1", (), (), machine="Box")


@pytest.mark.parametrize(
    "host",
    [
        "box",
        "BOX:11435",
        "host.docker.internal:11435",
        "box.local",
        "app.localhost",
        "192.168.1.5:11435",
        "10.0.0.7",
        "0.0.0.0:11435",
        "127.0.0.1",
        None,
    ],
)
def test_told_the_machines_name_it_answers_to_what_ollama_answers_to(host: str | None) -> None:
    assert denied(MACHINE, host) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example", "box.example", "internal", "local", "evilbox", "8.8.8.8", "x.local."],
)
def test_and_to_nothing_else(host: str) -> None:
    assert denied(MACHINE, host) is Reason.HOST_DENIED


# --- Origin -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "http://localhost",
        "http://localhost:3000",
        "HTTPS://LOCALHOST:3000",
        "http://127.0.0.1:8080",
        "http://0.0.0.0",
        "http://[::1]:3000",
        "app://x",
        "file://",
        "tauri://localhost",
        "vscode-webview://abc",
        "vscode-file://vscode-app",
        "https://ui.example",
        "https://UI.example/",
    ],
)
def test_local_pages_desktop_shells_and_allowed_origins_pass(origin: str | None) -> None:
    assert denied(LOOPBACK, "localhost", origin) is None


@pytest.mark.parametrize(
    ("allowed", "origin", "passes"),
    [
        ("chrome-extension://*", "chrome-extension://abcdef", True),
        ("https://*.ui.example", "https://a.b.ui.example", True),
        ("https://*.ui.example", "https://ui.example", False),
        ("https://*.ui.example", "https://a.ui.example.evil.example", False),
        ("http://10.0.0.7:*", "http://10.0.0.7:3000", True),
        ("http://10.0.0.7:*", "http://10.0.0.70", False),
        ("https://ab*ba.example", "https://aba.example", False),
        ("*", "https://anything.example", True),
        ("*", "null", True),
    ],
)
def test_a_star_stands_for_any_text_as_in_ollama_origins(
    allowed: str, origin: str, *, passes: bool
) -> None:
    reason = denied(OriginGuard("127.0.0.1", (), (allowed,)), "localhost", origin)
    assert reason is (None if passes else Reason.ORIGIN_DENIED)


@pytest.mark.parametrize("guard", [LOOPBACK, WILDCARD])
@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "https://evil.example",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://evil.example:3000",
        "http://localhost@evil.example",
        "http://evil.example#localhost",
        "http://evil.example/localhost",
        "ws://localhost",
        "ftp://localhost",
        "chrome-extension://abcdef",
        "http://[::1",
        "http://10.0.0.7",
        "https://ui.example.evil.example",
        "http://ui.example",
        "https://ui.example:444",
        "localhost",
        "//localhost",
    ],
)
def test_every_other_page_is_denied(guard: OriginGuard, origin: str) -> None:
    assert denied(guard, "localhost", origin) is Reason.ORIGIN_DENIED


def test_a_page_that_rebound_its_name_is_denied_by_its_host_first() -> None:
    rebound = denied(LOOPBACK, "evil.example:11435", "http://evil.example:11435")
    assert rebound is Reason.HOST_DENIED


def test_a_denied_origin_is_told_what_to_do() -> None:
    failure = LOOPBACK.check("localhost", "https://evil.example")
    assert failure is not None
    assert failure.message == (
        'Origin "https://evil.example" is not allowed here; '
        "start modelsplit with --allow-origin to add it"
    )
