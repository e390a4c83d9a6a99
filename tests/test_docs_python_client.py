"""docs/python-client.md is one program that prints what it says, and names what there is."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
from pathlib import Path
from typing import Any

from clients.readme import ADDRESS, Snippet
from modelsplit_client import CallOptions
from modelsplit_client.errors import FAMILIES, Told
from modelsplit_sim.config import SimConfig
from support.harness import running

PAGE = (Path(__file__).parents[1] / "docs" / "python-client.md").read_text(encoding="utf-8")
SNIPPETS = [
    Snippet("python", code)
    for code in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
]
SIM = SimConfig(tokens=5, max_loaded=8, num_parallel=8)


async def test_the_snippets_are_one_program_that_prints_what_it_says() -> None:
    assert SNIPPETS
    async with running(SIM) as up:
        printed = await asyncio.to_thread(run, up.url, f"http://127.0.0.1:{up.admin_port}")
    for snippet, lines in zip(SNIPPETS, printed, strict=True):
        if snippet.printed:
            assert lines[-len(snippet.printed) :] == snippet.printed


def run(url: str, admin_url: str) -> list[list[str]]:
    """What each snippet printed, with the addresses of this test's proxy."""
    names: dict[str, Any] = {"__name__": "page"}
    printed = []
    for snippet in SNIPPETS:
        code = snippet.code.replace(
            f'Client("{ADDRESS}")', f'Client("{url}", admin_url="{admin_url}")'
        )
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, "python-client.md", "exec", dont_inherit=True), names)
        printed.append(out.getvalue().splitlines())
    names["client"].close()
    return printed


def test_every_class_of_errors_stands_beside_its_codes() -> None:
    rows = dict(re.findall(r"^\| `(\w+Error)` \| (.+) \|$", PAGE, re.MULTILINE))
    codes: dict[str, list[str]] = {}
    for family, kind in FAMILIES.items():
        shown = re.findall(r"`(E_\w+)`", rows[kind.__name__])
        codes[kind.__name__] = shown
        assert {code.removesuffix("_LOCAL").removesuffix("_CLOUD") for code in shown} == {family}
    assert codes.keys() == rows.keys()


def test_every_field_of_an_error_and_every_option_of_a_call_is_named() -> None:
    words = set(re.findall(r"`(\w+)(?:=\w+)?`", PAGE))
    assert set(Told.__dataclass_fields__) <= words
    assert CallOptions.__annotations__.keys() <= words
