"""The snippets of documents that clients run, and what they say they print."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
ADDRESS: Final = "http://127.0.0.1:11435"
_FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# A comment that begins a paragraph names a client; one behind a print is what it prints.
_SNIPPET: Final = re.compile(r"(?:\A|\n\n)(?=(?:#|//) )")
_TITLE: Final = re.compile(r"(?:#|//) ([^\n:]+)")
_PRINTED: Final = re.compile(r"(?:print\(|console\.log\().*\s(?:#|//) (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """``language`` is that of the fence: python, javascript or sh."""

    language: str
    code: str

    @property
    def printed(self) -> list[str]:
        """The lines that the comments behind ``print`` and ``console.log`` promise."""
        return _PRINTED.findall(self.code)


def snippets(page: str = "clients.md", title: str = "Point your client here") -> dict[str, Snippet]:
    """Of one section, by the client's title; the title's line is part of the code."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    section = re.search(rf"^## {title}\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    assert section is not None
    found: dict[str, Snippet] = {}
    for language, fence in _FENCE.findall(section[1]):
        for paragraph in _SNIPPET.split(fence):
            name = _TITLE.match(paragraph)
            if name is not None:
                found[name[1]] = Snippet(language, paragraph.strip() + "\n")
    return found
