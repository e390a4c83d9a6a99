"""``check-config`` and ``route`` from the inside: what a policy says before anyone runs it."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_proxy.cli import check
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.config.settings import Address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHIPPED_MODELS = ["qwen3:4b", "qwen3:8b", "gemma3:12b", "gpt-oss:20b"]


@contextmanager
def ollama(tags: bytes, show: bytes = b"") -> Iterator[Address]:
    """A server that answers every GET with ``tags``, and every POST with ``show``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(tags)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(show)

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Address("127.0.0.1", server.server_port)
        server.shutdown()
        thread.join()


def installed(*names: str) -> bytes:
    return json.dumps({"models": [{"name": name} for name in names]}).encode()


def checked(
    tags: bytes, capsys: pytest.CaptureFixture[str], show: bytes = b"not JSON"
) -> list[str]:
    with ollama(tags, show) as upstream:
        assert check.config(None, {}, upstream, as_json=True) == 0
    out: dict[str, Any] = json.loads(capsys.readouterr().out)
    # Which the shipped policy has, until a provider is configured.
    return [warning for warning in out["warnings"] if not warning.startswith("CLOUD: ")]


# --- check-config -------------------------------------------------------------------------------


def test_a_good_policy_is_told_with_its_digest(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.config(None, {}, None, as_json=False) == 0
    out = capsys.readouterr()
    assert out.out == f"shipped default: ok ({policy_file.load(None).short_digest})\n"
    assert out.err == ""


def test_a_money_budget_that_cannot_count_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.json"
    path.write_text('{"extends":"default","roles":{"CLOUD":{"primary":"cloud-of-nobody"}}}')
    assert check.config(path, {}, None, as_json=False) == 0
    assert (
        'warning: nobody knows the price of cloud-of-nobody, but budget "cloud" counts money'
        in capsys.readouterr().out
    )


def test_a_bad_policy_is_told_in_full_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.json"
    path.write_text('{"extends":"default","global":{"max_concurrent":0},"load_timeout_ms":"1"}')
    assert check.config(path, {}, None, as_json=False) == 1
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.splitlines() == [
        f"{path}: $.global.max_concurrent: must be at least 1, not 0",
        f'{path}: $.load_timeout_ms: must be a whole number, not "1"',
    ]


def test_as_json_the_problems_are_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.json"
    path.write_text('{"extends":"default","globl":{}}')
    assert check.config(path, {}, None, as_json=True) == 1
    out = json.loads(capsys.readouterr().out)
    assert out["ok"] is False
    assert out["problems"] == [
        {"path": "$.globl", "message": 'unknown key; did you mean "global"?'}
    ]


def test_online_and_everything_installed_there_is_nothing_to_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert checked(installed(*SHIPPED_MODELS, "Llava:latest"), capsys) == []


def test_online_a_cloud_model_that_nobody_serves_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ollama(installed(*SHIPPED_MODELS), b"") as upstream:
        assert check.config(None, {}, upstream, as_json=False) == 0
    assert (
        "warning: CLOUD: claude-3-opus cannot be served: no cloud provider is configured, and it "
        "is none of Ollama's cloud models; name one of those in the policy\n"
    ) in capsys.readouterr().out
    with ollama(installed(*SHIPPED_MODELS, "claude-3-opus"), b"") as upstream:
        assert check.config(None, {}, upstream, as_json=False) == 0
    assert "claude-3-opus" not in capsys.readouterr().out


def test_online_a_missing_model_is_told_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(installed("QWEN3:4B", "qwen3:8b", "gemma3:12b"), capsys) == [
        "HEAVY: gpt-oss:20b is not installed; try `ollama pull gpt-oss:20b`"
    ]


def test_online_a_fallback_that_cannot_stand_in_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The shipped EXECUTOR: its second model cannot serve a call with tools."""
    can = {name: ["completion", "tools"] for name in SHIPPED_MODELS} | {"gemma3:12b": ["vision"]}
    rows = [{"name": name, "capabilities": can[name]} for name in SHIPPED_MODELS]
    executor, heavy = checked(json.dumps({"models": rows}).encode(), capsys)
    assert executor == (
        "EXECUTOR: gemma3:12b lacks completion, tools, which qwen3:8b has; "
        "calls that need it have no second model"
    )
    assert heavy.startswith("HEAVY: gpt-oss:20b lacks vision, which gemma3:12b has; ")


def test_online_an_ollama_whose_list_does_not_say_is_asked_for_each_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{"name": name, "capabilities": ["completion", "tools"]} for name in SHIPPED_MODELS]
    del rows[2]["capabilities"]
    show = b'{"capabilities":["completion"]}'
    [warning] = checked(json.dumps({"models": rows}).encode(), capsys, show)
    assert warning.startswith("EXECUTOR: gemma3:12b lacks tools, which qwen3:8b has")


def test_online_an_alias_that_hides_a_model_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    (warning,) = checked(installed(*SHIPPED_MODELS, "Planner:latest"), capsys)
    assert warning == 'alias "planner" of PLANNER hides the installed model of that name'


@pytest.mark.parametrize("tags", [b"", b"[]", b"null", b'{"models":null}', b'{"models":[{}]}'])
def test_online_an_answer_of_another_shape_is_told(
    tags: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (warning,) = checked(tags, capsys)
    assert warning.endswith("answered /api/tags with something else")


def test_online_without_ollama_the_policy_is_still_checked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert check.config(None, {}, Address("127.0.0.1", port), as_json=False) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("shipped default: ok")
    assert second.startswith(f"warning: Ollama at http://127.0.0.1:{port} cannot be asked: ")


# --- route --------------------------------------------------------------------------------------


def route(
    model: str, role: str, capsys: pytest.CaptureFixture[str], *, as_json: bool = False
) -> tuple[int, str, str]:
    code = check.route(policy_file.load(None), model, role, as_json=as_json)
    out = capsys.readouterr()
    return code, out.out, out.err


def test_a_route_is_told_with_why(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = route("planner", "", capsys)
    assert code == 0
    assert out.splitlines() == [
        'role      PLANNER  ("planner" is an alias of this role)',
        "attempt 1 qwen3:4b  (timeout 15 s)",
        "attempt 2 qwen3:8b  (timeout 30 s)",
        "seats     2",
        "wait      at most 8 s",
    ]


@pytest.mark.parametrize(
    ("model", "seats"),
    [("llava", "seats     the global cap"), ("cloud", "seats     by budget alone")],
)
def test_a_role_without_seats_of_its_own_says_what_bounds_it(
    model: str, seats: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seats in route(model, "", capsys)[1].splitlines()


@pytest.mark.parametrize("model", ["cloud", "glm-4.6:cloud"])
def test_a_route_to_the_cloud_says_that_it_needs_an_approval(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = route(model, "", capsys)
    assert code == 0
    assert err == "modelsplit: it needs an approval in force; see: modelsplit budget show\n"


def test_a_route_as_json_is_data(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = route("mistral", "EXECUTOR", capsys, as_json=True)
    assert code == 0
    assert (
        json.loads(out).items()
        >= {
            "llm_role": "EXECUTOR",
            "llm_context": "EXECUTOR",
            "llm_provider": "LOCAL",
            "requested_model": "mistral",
            "route_reason": "header",
            "candidates": [
                {"model": "mistral", "timeout_s": 60.0},
                {"model": "gemma3:12b", "timeout_s": 60.0},
            ],
            "max_concurrent": 5,
            "max_wait_ms": 8000,
        }.items()
    )


def test_a_call_that_would_be_refused_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = route("x", "BOSS", capsys)
    assert (code, out) == (1, "")
    assert err.startswith('modelsplit: E_BAD_REQUEST: X-LLM-Role "BOSS" is unknown; use one of ')
    code, out, _ = route("x", "BOSS", capsys, as_json=True)
    assert (code, json.loads(out)["error_code"]) == (1, "E_BAD_REQUEST")
