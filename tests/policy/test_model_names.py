"""What Ollama means by a name: its own parser's word, and that no spelling escapes ours.

``model_names.json`` has a row for each spelling: the name; the model that Ollama calls by it
and where it runs it, both null if it cannot read it; the model it stores under it; and how
that is known. ``seen``: printed by Ollama's own packages ``types/model`` and
``internal/modelref``, compiled by themselves. ``read``: read in its source.
"""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_policy.model_names import (
    ModelName,
    ModelNames,
    Source,
    canonical,
    canonical_stored,
    read,
    read_stored,
    runs_in_cloud,
    unreadable,
)

ROWS: list[tuple[str, str | None, str | None, str | None, str]] = orjson.loads(
    Path(__file__).with_name("model_names.json").read_bytes()
)
# All that Go's strings.TrimSpace takes for white space.
SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2007\u200a\u2028\u2029\u202f\u205f\u3000"
OWN = "registry.ollama.ai/"


def groups(pairs: list[tuple[str, str]]) -> set[frozenset[str]]:
    """The names that share a meaning; each pair is a name and what it means."""
    found: dict[str, set[str]] = {}
    for name, meaning in pairs:
        found.setdefault(meaning, set()).add(name)
    return {frozenset(names) for names in found.values()}


@pytest.mark.parametrize(("name", "called", "source", "stored", "known"), ROWS)
def test_ollama_and_we_read_the_same_names(
    name: str, called: str | None, source: str | None, stored: str | None, known: str
) -> None:
    parsed = read(name)
    assert (parsed is None) == (called is None)
    assert parsed is None or parsed.source == source
    assert (read_stored(name) is None) == (stored is None)
    assert runs_in_cloud(name) == (source == "cloud" or (called is None and name != ""))
    assert known in {"seen", "read"}


def test_two_names_are_one_model_to_us_where_they_are_one_to_ollama() -> None:
    theirs = [
        # There is one cloud, whatever registry a name speaks of.
        (name, f"{called.partition('/')[2]} there" if source == "cloud" else called)
        for name, called, source, _, _ in ROWS
        if called is not None
    ]
    ours = [(name, canonical(name)) for name, _ in theirs]
    assert groups(ours) == groups(theirs)
    assert len(theirs) > 100


def test_two_stored_names_are_one_model_to_us_where_they_are_one_to_ollama() -> None:
    theirs = [
        # Called, both are the cloud's gpt-oss.
        (name, stored.replace(":latest-cloud", ":cloud"))
        for name, _, _, stored, _ in ROWS
        if stored is not None
    ]
    # What is stored for a cloud that is one, of any registry, is compared above.
    theirs = [(name, stored) for name, stored in theirs if "e.com" not in stored]
    assert groups([(name, canonical_stored(name)) for name, _ in theirs]) == groups(theirs)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Qwen3:8B", "qwen3:8b"),
        ("qwen3:latest", "qwen3"),
        (" https://registry.ollama.ai/library/Qwen3:LATEST:local\n", "qwen3"),
        ("registry.ollama.ai/Me/qwen3", "me/qwen3"),
        ("Localhost:5000/library/qwen3:latest", "localhost:5000/library/qwen3"),
        ("gpt-oss:20b:cloud", "gpt-oss:20b-cloud"),
        ("gpt-oss: 20b-CLOUD", "gpt-oss:20b-cloud"),
        ("glm-4.6:latest:cloud", "glm-4.6:cloud"),
        ("e.com/library/glm-4.6:cloud", "glm-4.6:cloud"),
        ("a b", "a b"),
        ("", ""),
    ],
)
def test_the_canonical_name_is_the_shortest_that_ollama_reads(name: str, text: str) -> None:
    assert canonical(name) == text
    assert ModelNames().canonical(name) == text


def test_what_is_stored_as_local_is_not_what_is_called_so() -> None:
    assert read("planner:local") == ModelName("planner", Source.LOCAL)
    assert read_stored("planner:local") == ModelName("planner:local")
    assert (canonical_stored("gpt-oss:20b-cloud"), canonical_stored("x:Latest")) == (
        "gpt-oss:20b-cloud",
        "x",
    )
    assert read_stored("gpt-oss:20b-cloud") == read("gpt-oss:20b:cloud")
    assert read_stored("x:local-cloud") == ModelName("x:local-cloud")
    assert (read_stored(" planner"), canonical_stored(" planner")) == (None, " planner")


def test_names_are_read_once_while_few_are_in_use() -> None:
    names = ModelNames()
    first = names.read("Qwen3:8b")
    assert names.read("Qwen3:8b") is first
    assert names.read("a b") is names.read("a b") is None
    assert repr(names) == "<ModelNames 2 known>"


def test_a_name_of_many_megabytes_is_read_in_one_go() -> None:
    for name in (":" * 2**22, "/" * 2**22, "a" * 2**22, " " * 2**22 + "x" + " " * 2**22):
        assert canonical(name) in {name, "x"}


def test_what_cannot_be_read_is_said_back_short_and_plain() -> None:
    failure = unreadable("a\x00b " * 1000)
    assert (failure.status, failure.code) == (400, ErrorCode.BAD_REQUEST)
    assert failure.reason is Reason.BAD_MODEL_NAME
    assert failure.message.startswith('"a\ufffdb a\ufffdb')
    assert failure.message.endswith('as `ollama list` shows it, such as "qwen3:8b"')
    assert len(failure.message) < 200


WORDS = st.from_regex(r"\A[a-z0-9_][a-z0-9_.-]{0,8}\Z").filter(
    lambda word: word not in {"cloud", "local", "latest"} and not word.endswith("-cloud")
)
BLANKS = st.text(SPACE, max_size=3)


def cased(draw: st.DrawFn, text: str) -> str:
    flips = draw(st.lists(st.booleans(), min_size=len(text), max_size=len(text)))
    return "".join(c.upper() if flip else c for c, flip in zip(text, flips, strict=True))


@st.composite
def spelled(draw: st.DrawFn, cloud: bool) -> tuple[str, str]:
    """A model in its shortest form, and in any other that Ollama tolerates."""
    model, tag = draw(WORDS), draw(st.none() | WORDS)
    prefix = draw(st.sampled_from(["", "library/", OWN + "library/"]))
    if prefix.startswith(OWN):
        scheme = draw(st.sampled_from(["", "http://", "https://", "x y/z://", "://"]))
        prefix = scheme + prefix
    middle = draw(st.sampled_from(["", ":latest"])) if tag is None else f":{tag}"
    blank = draw(BLANKS)
    if not cloud:
        short = model if tag is None else f"{model}:{tag}"
        source = draw(st.sampled_from(["", f":{blank}local"]))
    else:
        short = f"{model}:cloud" if tag is None else f"{model}:{tag}-cloud"
        sources = [f":{blank}cloud"]
        if middle:
            sources.append("-cloud")
            middle = f":{blank}{middle[1:]}" if draw(st.booleans()) else middle
        source = draw(st.sampled_from(sources))
        if source != "-cloud":
            middle = middle.replace(blank, "") if blank else middle
    name = draw(BLANKS) + cased(draw, prefix + model + middle + source) + draw(BLANKS)
    return short, name


@given(spelled(cloud=False))
def test_no_spelling_of_a_model_escapes_its_name(pair: tuple[str, str]) -> None:
    short, name = pair
    assert canonical(name) == short
    assert not runs_in_cloud(name)


@given(spelled(cloud=True))
def test_no_spelling_of_a_model_of_the_cloud_escapes_its_name(pair: tuple[str, str]) -> None:
    short, name = pair
    assert canonical(name) == short
    assert runs_in_cloud(name)


@given(st.text("aB1:/.-_ \u00a0@cloudlate", max_size=24) | st.text(max_size=12))
def test_a_canonical_name_is_its_own(name: str) -> None:
    text = canonical(name)
    assert canonical(text) == text
    parsed = read(name)
    if parsed is not None:
        again = read(text)
        assert again is not None
        assert (again.source is Source.CLOUD) == (parsed.source is Source.CLOUD)
