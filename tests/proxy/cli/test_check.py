"""``check-config`` and ``route`` from the inside: what a policy says before anyone runs it."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_proxy.cli import check, main
from modelsplit_proxy.cli.check import RouteAsked
from modelsplit_proxy.cli.output import CommandError, ExitCode
from modelsplit_proxy.config import policy_file
from modelsplit_proxy.config.settings import Address
from modelsplit_sim.config import SimConfig
from support.harness import running
from support.ports import kept_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHIPPED_MODELS = ["qwen3:4b", "qwen3:8b", "gemma3:12b", "gpt-oss:20b"]


# What installs a model at the server below.
PULL = "OLLAMA_HOST=… ollama pull"


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
    pull = f"OLLAMA_HOST=http://{upstream} ollama pull"
    # Which the shipped policy has, until a provider is configured.
    return [
        warning.replace(pull, PULL)
        for warning in out["warnings"]
        if not warning.startswith("CLOUD: ")
    ]


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


NO_KEY = "a has no key, so none of its models can be asked: $ANTHROPIC_API_KEY is not set"


def test_online_a_cloud_without_a_key_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.json"
    clouds = {"providers": {"a": {"models": {"claude-3-opus": None}}}}
    path.write_text(json.dumps({"extends": "default", "cloud": clouds}))
    assert check.config(path, {}, None, as_json=False) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        (
            f"warning: {NO_KEY}, here; next: read -rs ANTHROPIC_API_KEY && export "
            "ANTHROPIC_API_KEY   # type it, then restart from here"
        )
    ]
    with ollama(installed(*SHIPPED_MODELS), b"") as upstream:
        assert check.config(path, {}, upstream, as_json=True) == 1
    out = json.loads(capsys.readouterr().out)
    assert out["problems"] == [
        {
            "path": "$.cloud.providers.a",
            "message": NO_KEY,
            "step": "read -rs ANTHROPIC_API_KEY && export ANTHROPIC_API_KEY   "
            "# type it, then restart from here",
        }
    ]
    assert not [warning for warning in out["warnings"] if warning.startswith("CLOUD: ")]


def test_online_a_missing_model_is_told_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(installed("QWEN3:4B", "qwen3:8b", "gemma3:12b"), capsys) == [
        f"HEAVY: gpt-oss:20b is not installed; try `{PULL} gpt-oss:20b`"
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
    with ollama(tags) as upstream:
        assert check.config(None, {}, upstream, as_json=True) == 1
    out = json.loads(capsys.readouterr().out)
    [problem] = out["problems"]
    assert (out["ok"], problem["path"]) == (False, "$")
    assert "answered /api/tags with something else" in problem["message"]


@pytest.mark.parametrize("as_json", [False, True])
def test_online_where_nothing_is_installed_it_is_no_good(
    capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    with ollama(installed()) as upstream:
        assert check.config(None, {}, upstream, as_json=as_json) == 1
    told = capsys.readouterr().out
    for role in ("PLANNER", "EXECUTOR", "HEAVY"):
        assert f"{role} cannot be served: none of its models is installed" in told
    assert f"try `OLLAMA_HOST=http://{upstream} ollama pull qwen3:4b`" in told


def test_online_a_role_whose_fallback_is_there_is_good_enough(
    capsys: pytest.CaptureFixture[str],
) -> None:
    warnings = checked(installed("qwen3:8b", "gemma3:12b"), capsys)
    assert warnings[0] == f"PLANNER: qwen3:4b is not installed; try `{PULL} qwen3:4b`"


def test_online_without_ollama_the_policy_is_still_checked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with kept_port() as port:
        assert check.config(None, {}, Address("127.0.0.1", port), as_json=False) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("shipped default: ok")
    assert second.startswith(f"problem: Ollama at http://127.0.0.1:{port} cannot be asked: ")


# --- route --------------------------------------------------------------------------------------


def nothing() -> Path | None:
    """No policy file: the shipped one holds."""
    return None


def route(
    model: str, role: str, capsys: pytest.CaptureFixture[str], *, as_json: bool = False
) -> tuple[int, str, str]:
    code = check.route(RouteAsked(model, role, "", None, nothing), as_json=as_json)
    out = capsys.readouterr()
    return code, out.out, out.err


def test_a_route_is_told_with_why(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = route("planner", "", capsys)
    assert code == 0
    digest = policy_file.load(None).short_digest
    assert out.splitlines() == [
        f"policy    shipped default ({digest}), no running proxy was asked",
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


def test_where_no_proxy_is_asked_a_route_to_the_cloud_says_that_it_needs_an_approval(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = route("cloud", "", capsys)
    assert code == 0
    assert err == "modelsplit: it needs an approval in force; see: modelsplit budget show\n"


def test_what_no_approval_would_help_is_refused_by_the_file_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = route("glm-4.6:cloud", "CLOUD", capsys)
    assert code == 1
    assert err == (
        "modelsplit: refused, 403 E_BUDGET_NOT_APPROVED: nobody knows the price of glm-4.6:cloud, "
        'so no approval covers it; set models["glm-4.6:cloud"].price in the policy, as in '
        '{"input": 3, "output": 15}\n'
    )


def test_online_a_model_of_ollamas_own_cloud_without_a_price_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = installed(*SHIPPED_MODELS, "gpt-oss:120b-cloud")
    [warning] = checked(there, capsys)
    assert warning == (
        "gpt-oss:120b-cloud runs in Ollama's own cloud and has no price, so its calls are refused "
        'whatever is approved; set models["gpt-oss:120b-cloud"].price, where a subscription pays '
        'to {"input": 0, "output": 0}'
    )
    path = tmp_path / "p.json"
    free = {"gpt-oss:120b-cloud": {"price": {"input": 0, "output": 0}}}
    path.write_text(json.dumps({"extends": "default", "models": free}))
    with ollama(there, b"") as upstream:
        assert check.config(path, {}, upstream, as_json=False) == 0
    assert "gpt-oss:120b-cloud" not in capsys.readouterr().out


def test_a_route_on_which_nothing_may_leave_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = route("glm-4.6:cloud", "", capsys)
    assert code == 1
    assert err == (
        "modelsplit: refused, 403 E_FORBIDDEN: glm-4.6:cloud runs elsewhere, and calls of "
        "CHAT may not; send X-LLM-Role: CLOUD, or list CHAT in cloud.allow_from.roles\n"
    )


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
                {"model": "mistral", "timeout_s": 60.0, "installed": None},
                {"model": "gemma3:12b", "timeout_s": 60.0, "installed": None},
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


# --- route, asked of the proxy that runs --------------------------------------------------------

# What a proxy goes by that is not the shipped policy.
OTHER = {"PLANNER": {"primary": "llama3.2:1b", "max_concurrent": 1}}


async def test_a_route_is_the_running_proxys_by_its_own_policy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running(overlay={"roles": OTHER}) as up:
        admin = Address("127.0.0.1", up.admin_port)
        asked = RouteAsked("planner", "", "", admin, nothing)
        code = await asyncio.to_thread(check.route, asked, as_json=False)
        told = capsys.readouterr()
        assert (code, told.err) == (0, "")
        digest = up.app._loaded.short_digest
        assert told.out.splitlines() == [
            f"policy    {up.app._loaded.source} ({digest}), of the proxy at http://{admin}",
            'role      PLANNER  ("planner" is an alias of this role)',
            "attempt 1 llama3.2:1b  (timeout 15 s, not installed)",
            "attempt 2 qwen3:8b  (timeout 30 s)",
            "seats     1",
            "wait      at most 8 s",
        ]
        code = await asyncio.to_thread(check.route, asked, as_json=True)
        fields = json.loads(capsys.readouterr().out)
        assert (code, fields["running"], fields["max_concurrent"]) == (0, True, 1)
        assert fields["policy"]["digest"] == up.app._loaded.digest
        refused = asked._replace(role="BOSS")
        code = await asyncio.to_thread(check.route, refused, as_json=False)
        told = capsys.readouterr()
        assert (code, told.out) == (1, "")
        assert told.err.startswith('modelsplit: E_BAD_REQUEST: X-LLM-Role "BOSS" is unknown')
        code = await asyncio.to_thread(check.route, asked._replace(model="cloud"), as_json=False)
        assert code == 1
        assert capsys.readouterr().err == (
            "modelsplit: refused, 403 E_BUDGET_NOT_APPROVED: claude-3-opus runs in the cloud and "
            "no approval is recorded; approve with: modelsplit budget approve --usd 5 --days 7 "
            f"--reason WHY --admin {admin}\n"
        )


def test_where_no_proxy_runs_a_route_says_that_it_is_of_a_start_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with kept_port() as port:
        asked = RouteAsked("planner", "", "", Address("127.0.0.1", port), nothing)
        assert check.route(asked, as_json=False) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[0].endswith(", no running proxy was asked")
    assert told.err.startswith(f"modelsplit: nobody listens at http://127.0.0.1:{port}:")
    assert told.err.endswith("; so this is told of the policy that a start here would use\n")


def test_a_route_of_a_proxy_of_another_version_is_not_told_wrongly() -> None:
    old = b'{"llm_role":"PLANNER","candidates":[],"needs_approval":false}'
    with ollama(old) as admin, pytest.raises(CommandError, match="of another version"):
        check.route(RouteAsked("planner", "", "", admin, nothing), as_json=False)


def test_a_file_and_a_proxy_at_once_are_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["route", "planner", "--policy", "x.json", "--admin", "127.0.0.1:1"]
    assert main.run(words, {}) == ExitCode.USAGE
    assert "give one of them" in capsys.readouterr().err


async def test_a_route_to_a_model_that_nobody_has_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running(SimConfig(models=("qwen3:8b",))) as up:
        admin = Address("127.0.0.1", up.admin_port)

        def told(model: str) -> int:
            return check.route(RouteAsked(model, "", "", admin, nothing), as_json=False)

        assert await asyncio.to_thread(told, "planner") == 0
        out = capsys.readouterr()
        assert "attempt 1 qwen3:4b  (timeout 15 s, not installed)\n" in out.out
        assert out.err == ""
        assert await asyncio.to_thread(told, "nosuch") == 1
        out = capsys.readouterr()
        assert "attempt 1 nosuch  (no timeout, not installed)\n" in out.out
        assert out.err.startswith('modelsplit: E_MODEL_NOT_FOUND: model "nosuch" not found; ')


def test_an_upstream_beside_hosts_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.json"
    hosts = {"a": {"url": "http://127.0.0.1:1"}}
    path.write_text(json.dumps({"extends": "default", "hosts": hosts}))
    words = ["check-config", str(path), "--upstream", "127.0.0.1:2"]
    assert main.run(words, {}) == 0
    assert "warning: --upstream http://127.0.0.1:2 is not asked: the policy has hosts (a)" in (
        capsys.readouterr().out
    )
    # A setting that cannot be read is not what was asked about.
    assert main.run(["check-config", str(path)], {"MODELSPLIT_DRAIN": "soon"}) == 0
