"""The snippets of the README's "Point your client here", and what they say they print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
ADDRESS: Final = "http://127.0.0.1:11435"
_SECTION: Final = re.compile(r"^## Point your client here\n(.*?)^## ", re.DOTALL | re.MULTILINE)
_FENCE: Final = re.compile(r"^```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# A comment that begins a paragraph names a client; one behind a print is what it prints.
_SNIPPET: Final = re.compile(r"(?:\A|\n\n)(?=(?:#|//) )")
_TITLE: Final = re.compile(r"(?:#|//) ([^\n:]+)")
_PRINTED: Final = re.compile(r"(?:print\(|console\.log\().*  (?:#|//) (.+)$", re.MULTILINE)


def snippets() -> dict[str, str]:
    """The code by the client's title, the title line included."""
    section = _SECTION.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert section is not None
    paragraphs = [part for fence in _FENCE.findall(section[1]) for part in _SNIPPET.split(fence)]
    titled = [(_TITLE.match(part), part.strip() + "\n") for part in paragraphs]
    return {title[1]: part for title, part in titled if title is not None}


def snippet(title: str) -> str:
    return snippets()[title]


def printed(snippet: str) -> list[str]:
    """The lines that the comments behind ``print`` and ``console.log`` promise."""
    return _PRINTED.findall(snippet)
