"""The page as a browser gets it: its files, and what stands in their heads."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from modelsplit_proxy.admin import dashboard
from support.harness import running

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FILES = Path(dashboard.__file__).parent / "static"
VENDORED = json.loads((FILES / "vendored.json").read_text())
OURS = sorted(path.name for path in FILES.iterdir() if path.name not in VENDORED)
LOADED = """
import sys
import modelsplit_proxy.app, modelsplit_proxy.cli.serve
late = ("modelsplit_proxy.admin.dashboard_data", "modelsplit_proxy.records.history")
print([name for name in late if name in sys.modules])
"""


class Links(HTMLParser):
    """Where a page points to, its title, and what of it a policy without inline code forbids."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.inline: list[str] = []
        self.text: dict[str, str] = {}
        self._within: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._within.append(tag)
        for name, value in attributes:
            if name in {"href", "src"} and value is not None:
                self.targets.append(value)
            if name == "style" or name.startswith("on"):
                self.inline.append(name)

    def handle_data(self, data: str) -> None:
        within = self._within[-1] if self._within else ""
        self.text[within] = self.text.get(within, "") + data
        if within in {"script", "style"} and data.strip():
            self.inline.append(within)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._within:
            while self._within.pop() != tag:
                pass


def links() -> Links:
    found = Links()
    found.feed((FILES / "index.html").read_text())
    return found


async def test_the_page_and_its_files_come_with_the_bounds_they_live_in() -> None:
    async with running() as up, up.admin() as admin:
        for path in ("/", *(f"/dashboard/{name}" for name in dashboard._NAMES)):
            answer = await admin.request("GET", path, None, HTML)
            assert answer.status == 200, path
            policy = answer["Content-Security-Policy"]
            assert policy.startswith("default-src 'self'; ")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer["X-Content-Type-Options"] == "nosniff"
            assert answer["X-Frame-Options"] == "DENY"
            assert answer["Referrer-Policy"] == "no-referrer"
            assert answer["Cache-Control"] == "no-store"
        page = await admin.request("GET", "/?request=abc", None, HTML)
        assert page["Content-Type"] == "text/html; charset=utf-8"
        assert b"<title>[LLM OBSERVABILITY]</title>" in page.body
        assert (await admin.request("HEAD", "/", None, HTML)).body == b""
        assert (await admin.request("POST", "/", b"")).status == 405
        script = await admin.request("GET", "/dashboard/app.js")
        assert script["Content-Type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize("item", ["nobody.js", "..%2f__init__.py", "vendored.json", "%00", "."])
async def test_nothing_else_of_the_disk_is_served(item: str) -> None:
    async with running() as up, up.admin() as admin:
        answer = await admin.request("GET", f"/dashboard/{item}")
        assert answer.status == 404
        assert answer.json["error_code"] == "E_BAD_REQUEST"


async def test_under_a_name_that_is_not_ours_there_is_no_page() -> None:
    async with running() as up, up.admin() as admin:
        answer = await admin.request("GET", "/", None, {"Host": "evil.example"})
        assert answer.status == 403


async def test_everything_the_page_points_to_is_there() -> None:
    targets = [target for target in links().targets if not target.startswith("#")]
    async with running() as up, up.admin() as admin:
        for target in targets:
            assert (await admin.request("GET", f"/{target}")).status == 200, target
        for name in OURS:
            for module in re.findall(r'from "\./(.*?)"', (FILES / name).read_text()):
                assert module in dashboard._NAMES, f"{name}: {module}"


def test_there_is_something_to_see_before_the_scripts_are_fetched() -> None:
    text = (FILES / "index.html").read_text()
    assert re.search(
        r'</dialog>\n<script type="module" src="dashboard/app.js"></script>\n</body>', text
    )
    assert text.count("<script") == 1


def test_nothing_stands_inline_and_without_scripts_there_is_a_way() -> None:
    found = links()
    assert found.inline == []
    assert found.text["h1"] == found.text["title"] == "[LLM OBSERVABILITY]"
    assert "stats?format=text" in found.targets
    within = (FILES / "index.html").read_text().partition("<noscript>")[2]
    assert "stats?format=text" in within.partition("</noscript>")[0]


@pytest.mark.parametrize("name", OURS)
def test_no_file_of_ours_makes_markup_of_text_or_asks_another_host(name: str) -> None:
    text = (FILES / name).read_text()
    markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(|Function\("
    assert not re.search(markup, text)
    namespaces = text.replace("http://www.w3.org/2000/svg", "")
    assert name.endswith("LICENSE") or not re.search(r"https?://|//[a-z]+\.[a-z]", namespaces)
    assert not re.search(r'"(POST|PUT|DELETE|PATCH)"', text)


@pytest.mark.parametrize("name", VENDORED)
def test_what_is_vendored_is_what_was_published(name: str) -> None:
    row = VENDORED[name]
    assert row["sha256"] == hashlib.sha256((FILES / name).read_bytes()).hexdigest()
    assert (row["package"], row["version"], row["licence"]) == ("uplot", "1.6.32", "MIT")
    assert "Permission is hereby granted" in (FILES / row["licence_file"]).read_text()


def test_every_file_is_served_or_about_one() -> None:
    about = {"vendored.json", "uplot.LICENSE"}
    assert {path.name for path in FILES.iterdir()} == dashboard._NAMES | about


def test_a_process_that_serves_loads_nothing_that_only_the_page_needs() -> None:
    out = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
