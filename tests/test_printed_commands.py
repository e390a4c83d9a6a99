"""Every command of ours that is printed for people can be typed as it stands.

In messages a command stands in backticks, behind ``: `` at the end, or alone on its line; so it is
found, and its words are put to the parser. What a message fills in is a "1" here.
"""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from modelsplit_proxy.cli.commands import COMMANDS
from modelsplit_proxy.cli.main import build_parser
from modelsplit_proxy.config.settings import other_than_default
from modelsplit_sim.config import SimConfig
from support.calls import call
from support.harness import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.harness import Running

ROOT = Path(__file__).parents[1]
PACKAGES = ("policy", "proxy", "client", "sim")
NAMES = "|".join(command.name for command in COMMANDS)
MENTION = re.compile(rf"\bmodelsplit (?:{NAMES})\b")
QUOTED = re.compile(rf"`(?:sudo )?(modelsplit (?:{NAMES})\b[^`]*)`")
# Two blanks end it in a list of examples, which says behind them what it does.
ALONE = re.compile(
    rf"(?:^ *|: |# or )(?:sudo )?(modelsplit (?:{NAMES})\b.*?)(?:  .*)?$", re.MULTILINE
)
# Whose flags or verbs are filled in: of the doctor, and of every verb's example.
FILLED = frozenset(
    {"modelsplit serve 1", "modelsplit serve --take-over 1 1", "modelsplit budget 11"}
)
# No commands: titles, and a manual, which has its own bold.
TITLES = ("<title>", ".TH ")


def texts() -> Iterator[tuple[str, str]]:
    """Every text in the code that is no docstring, and where it stands."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            inner = {
                id(part)
                for node in ast.walk(tree)
                for part in (node.values if isinstance(node, ast.JoinedStr) else _docstring(node))
            }
            for node in ast.walk(tree):
                if id(node) not in inner and isinstance(node, (ast.Constant, ast.JoinedStr)):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", _rendered(node)


def _docstring(node: ast.AST) -> list[ast.expr]:
    body = getattr(node, "body", None)
    first = body[0] if isinstance(body, list) and body else None
    return [first.value] if isinstance(first, ast.Expr) else []


def _rendered(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    assert isinstance(node, ast.JoinedStr)
    parts = (part.value if isinstance(part, ast.Constant) else "1" for part in node.values)
    return "".join(str(part) for part in parts)


MENTIONED = [
    (at, text)
    for at, text in texts()
    if MENTION.search(text) and not text.lstrip().startswith(TITLES)
]


def commands(text: str) -> list[str]:
    return [*QUOTED.findall(text), *ALONE.findall(QUOTED.sub("", text))]


def test_a_command_in_a_message_can_be_told_from_prose() -> None:
    assert len(MENTIONED) > 20
    for at, text in MENTIONED:
        left = MENTION.findall(ALONE.sub("", QUOTED.sub("", text)))
        assert not left, f"{at}: put it in backticks: {text}"


@pytest.mark.parametrize("text", [text for _, text in MENTIONED], ids=[at for at, _ in MENTIONED])
def test_a_printed_command_is_understood(text: str) -> None:
    for command in set(commands(text)) - FILLED:
        words = shlex.split(command.partition(" > ")[0])
        if "--help" not in words:
            build_parser(COMMANDS).parse_args(words[1:])


# --- Whom they ask ------------------------------------------------------------------------------

# What asks a running proxy, or a state file.
ASKING = re.compile(r"modelsplit (?:status|requests|jobs|budget|slo|baseline|experiments|route)\b")


async def said(up: Running) -> list[str]:
    """What such a proxy says in its answers and pages."""
    route, pages = "/api/generate", ("/", "/stats?format=text", "/slo?format=text")
    async with up.client() as client, up.admin() as admin:
        answers = [
            *[await client.request("POST", route, call(route, "cloud")) for _ in range(4)],
            await client.request("POST", route, call(route, "zzz")),
            *[await admin.request("GET", path) for path in pages],
        ]
    return [answer.body.decode() for answer in answers]


async def test_where_the_admin_port_is_not_the_default_every_command_says_so() -> None:
    async with running(SimConfig(models=("qwen3:4b",))) as up:
        up.sim.faults.add("status", status=500, body='{"error":"died"}', model="qwen3:4b")
        await up.until(lambda: bool(up.app.installed.facts))
        texts = await said(up)
        asked_at = other_than_default(up.app.admin_address)
    lines = [line for text in texts for line in text.splitlines() if ASKING.search(line)]
    assert len(lines) >= 3
    for line in lines:
        assert f" --admin {asked_at}" in line, line
