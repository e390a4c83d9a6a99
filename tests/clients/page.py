"""``docs/clients.md``: what the matrix saw, as tables between the page's two marks."""

from __future__ import annotations

import json
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from clients.catalogue import CALLS, CLIENTS, RESPONSES, TROUBLE, Language, Shows
from clients.install import PACKAGE_LOCK, REQUIREMENTS
from clients.readme import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clients.catalogue import Client
    from clients.world import Seen, Sighting

    Sightings = Mapping[str, Sighting]

PAGE: Final = ROOT / "docs" / "clients.md"
_BEGIN: Final = "<!-- what the matrix saw -->\n"
_END: Final = "<!-- end of what the matrix saw -->\n"

_TITLES: Final = MappingProxyType(
    {
        "throttled": "A throttled call",
        "spent": "A budget that is used up",
        "cloud": "A call without approval",
        "responses cloud": "A call without approval on `/v1/responses`",
        "broken": "A stream that breaks",
        "late": "A stream that fails before its first token, after an early head",
        "responses broken": "A stream on `/v1/responses` that breaks",
    }
)
_SHOWN: Final = MappingProxyType(
    {
        Shows.SENTENCE: "the sentence",
        Shows.PHRASE: "the reason phrase",
        Shows.LISTING: "it looks for the model first",
        Shows.NOTHING: "**nothing**",
    }
)
# Fields behind the code, ids among them; times; the stand-in's port.
_FIELDS: Final = re.compile(r"""(['"]?(?:error_)?code['"]?: ?['"]E_[A-Z_]+['"]).*""", re.DOTALL)
_MASKS: Final = (
    (_FIELDS, r"\1, …"),
    (re.compile(r"retry in \d+ s"), "retry in N s"),
    (re.compile(r"free in \d+ min, at [-:\d ]+ UTC"), "free in N min, at HH:MM UTC"),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "http://127.0.0.1:11434"),
    (re.compile(r"modelsplit requests \w+"), "modelsplit requests ID"),
    (re.compile(r" --admin 127\.0\.0\.1:\d+"), ""),
)


def write(sightings: Sightings) -> None:
    """Put the tables into the page; what stands around them stays."""
    before, _, after = _parts()
    PAGE.write_text(before + _BEGIN + tables(sightings) + _END + after, encoding="utf-8")


def written() -> str:
    """The tables that the page has."""
    return _parts()[1]


def _parts() -> tuple[str, str, str]:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    middle, _, after = rest.partition(_END)
    return before, middle, after


def tables(sightings: Sightings) -> str:
    lines = [*_calls(sightings)]
    for case, title in _TITLES.items():
        lines += ["", f"### {title}", "", *_trouble(case, sightings)]
    return "\n".join(["", *lines, "", ""])


def _calls(sightings: Sightings) -> Iterator[str]:
    cases = (*CALLS, *RESPONSES)
    yield _row("client", "version", *cases)
    yield _row(*["---"] * (len(cases) + 2))
    for client in CLIENTS:
        found = sightings[client.title].cases
        worked = {case for case in client.calls if found[case].error is None}
        works = ["yes" if case in worked else "-" for case in cases]
        yield _row(f"`{client.title}`", _versions(client), *works)


def _trouble(case: str, sightings: Sightings) -> Iterator[str]:
    clients = [client for client in CLIENTS if case in client.trouble]
    [failure, *_] = [
        record.failure
        for client in clients
        for record in sightings[client.title].asked(TROUBLE[case])
        if record.failure is not None
    ]
    yield f"`{failure.code}`: {_masked(failure.message)}."
    yield ""
    yield _row("client", "shows", "what its user sees", "calls")
    yield _row("---", "---", "---", "---")
    for client in clients:
        sighting = sightings[client.title]
        shows = _SHOWN[client.shows.get(case, Shows.SENTENCE)]
        seen = told(sighting.cases[case])
        yield _row(f"`{client.title}`", shows, seen, str(client.asks(case)))


def told(seen: Seen) -> str:
    """What came before the end, and the error, without what differs from run to run."""
    pieces = ["".join(map(str, seen.said)), _masked(seen.error or "")]
    # A cell holds no line breaks, and a bar ends it.
    shown = [" ".join(piece.split()).replace("|", "\\|") for piece in pieces if piece]
    return " then ".join(f"`{piece}`" for piece in shown)


def _masked(text: str) -> str:
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return text


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _versions(client: Client) -> str:
    locked = _locked_node() if client.language is Language.NODE else _locked_python()
    return ", ".join(
        locked[name] if name == client.packages[0] else f"{name} {locked[name]}"
        for name in client.packages
    )


def _locked_python() -> dict[str, str]:
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return {name: version for name, _, version in (line.partition("==") for line in lines)}


def _locked_node() -> dict[str, str]:
    packages = json.loads(PACKAGE_LOCK.read_text(encoding="utf-8"))["packages"]
    prefix = "node_modules/"
    return {
        path.removeprefix(prefix): package["version"] for path, package in packages.items() if path
    }
