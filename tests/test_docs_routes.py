"""docs/routes.md lists the inference routes, and every header we read or write."""

from __future__ import annotations

import json
import re
from pathlib import Path

from modelsplit_proxy.calls.telemetry import fields
from modelsplit_proxy.http.headers import RESPONSE_NAMES
from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from modelsplit_proxy.protocol.routes import Routes
from support.records import answered, routing

PAGE = (Path(__file__).parents[1] / "docs" / "routes.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """The code words in the first column of a table, row by row."""
    rows = re.findall(r"^\| (`.+?) \|", text, re.MULTILINE)
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row)]


def test_the_table_of_routes_is_the_code() -> None:
    row = re.compile(r"^\| ([A-Z, ]+) `(/\S*)` \| (\w+) \| (\w+) \| (\w*) ?\|$", re.MULTILINE)
    said = [
        (method, *cells) for methods, *cells in row.findall(PAGE) for method in methods.split(", ")
    ]
    assert said == [
        (m, r.label, r.kind, r.dialect, r.action or "") for m, r in Routes(ENDPOINTS).rows
    ]


def test_every_response_header_is_described() -> None:
    said = set(first_cells(section("Response headers")))
    ours = {name.decode() for name in RESPONSE_NAMES}
    # Where the policy names several hosts.
    ours |= {"X-LLM-Host"}
    assert said == ours | {"x-should-retry", "Via", "Access-Control-Expose-Headers"}


def test_every_request_header_is_described() -> None:
    source = (
        Path(__file__).parents[1] / "proxy" / "modelsplit_proxy" / "protocol" / "request_headers.py"
    )
    read = set(re.findall(r'"(X-(?:LLM-)?[A-Z][\w-]+)"', source.read_text(encoding="utf-8")))
    assert set(first_cells(section("Request headers"))) == read


def test_the_example_of_telemetry_has_every_field() -> None:
    (example,) = re.findall(r'"llm":(\{.*?\})\}', section("Telemetry in the body"), re.DOTALL)
    record = answered()
    assert list(json.loads(example)) == list(fields(record, routing(record), 103.0))
