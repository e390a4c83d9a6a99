"""Lists with the aliases in them, byte for byte."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.catalogue import Catalogue
from modelsplit_proxy.protocol import model_lists
from support.harness import policy

CATALOGUE = Catalogue(policy().policy)
FOUR = (
    b'{"name":"qwen3:4b","model":"qwen3:4b","modified_at":"2026-11-23T00:28:56.1Z","size":7,'
    b'"digest":"aa","details":{"family":"q\\u003c","families":null},"capabilities":["tools"]}'
)
OTHER = b'{ "name":"mine:1" , "size":1e3}'


def digest(name: str, of: str) -> str:
    alias = CATALOGUE.find(name)
    assert alias is not None
    return alias.digest(of)


def test_an_alias_follows_what_ollama_listed_and_leaves_its_bytes_alone() -> None:
    body = b'{"models":[' + OTHER + b",  " + FOUR + b"]}"
    merged = model_lists.tags(CATALOGUE, body)
    assert merged is not None
    assert merged.startswith(body[:-2] + b',{"name":"planner:latest","model":"planner:latest",')
    *_, planner = orjson.loads(merged)["models"]
    target = orjson.loads(FOUR)
    assert list(planner) == list(target)
    own = {"name": "planner:latest", "model": "planner:latest", "digest": digest("planner", "aa")}
    assert planner == target | own


def test_every_alias_with_an_installed_model_is_listed_once() -> None:
    names = ["qwen3:8b", "mine:latest"]
    models = [{"name": name, "digest": name} for name in names]
    merged = model_lists.tags(CATALOGUE, orjson.dumps({"models": models}))
    assert merged is not None
    rest = orjson.loads(merged)["models"][2:]
    # PLANNER's own model is not there: calls go to its fallback, and so does the entry.
    assert [(m["name"], m["digest"]) for m in rest] == [
        ("planner:latest", digest("planner", "qwen3:8b")),
        ("executor:latest", digest("executor", "qwen3:8b")),
    ]


def test_openais_list_keeps_its_last_newline() -> None:
    body = b'{"object":"list","data":[{"id":"qwen3:4b","object":"model","created":5}]}\n'
    assert model_lists.models(CATALOGUE, body) == (
        b'{"object":"list","data":[{"id":"qwen3:4b","object":"model","created":5},'
        b'{"id":"planner:latest","object":"model","created":5}]}\n'
    )


def test_an_installed_model_of_an_aliass_name_is_not_listed_beside_it() -> None:
    models = [{"name": "Planner:latest", "digest": "zz"}, {"name": "qwen3:4b", "digest": "aa"}]
    merged = model_lists.tags(CATALOGUE, orjson.dumps({"models": models}) + b"\n")
    assert merged is not None
    assert merged.endswith(b"]}\n")
    assert [m["name"] for m in orjson.loads(merged)["models"]] == ["qwen3:4b", "planner:latest"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"models":[]}',
        b'{"models":[{"name":"mine:1"}]}',
        b'{"models":[{"model":"qwen3:4b"},3,null,{"name":5}]}',
    ],
)
def test_a_list_without_their_models_is_as_it_was(body: bytes) -> None:
    assert model_lists.tags(CATALOGUE, body) == body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"not json",
        b'{"models":null}',
        b'{"data":[]}',
        b'{"models":[{"name":"qwen3:4b"}],"next":"]"}',
        b'{"models":[{"name":"qwen3:4b"}],"x":1,"models":[{"name":"qwen3:4b"}]}',
    ],
)
def test_a_list_of_another_form_is_left_alone(body: bytes) -> None:
    assert model_lists.tags(CATALOGUE, body) is None


@given(
    names=st.lists(
        st.sampled_from(["qwen3:4b", "qwen3:8b", "gemma3:12b", "gpt-oss:20b", "planner", "x:1"])
        | st.text(max_size=8),
        unique=True,
    ),
    indent=st.booleans(),
)
def test_names_stay_unique_and_the_rest_stays_in_order(names: list[str], indent: bool) -> None:
    option = orjson.OPT_INDENT_2 if indent else 0
    body = orjson.dumps({"models": [{"name": n, "digest": n} for n in names]}, option=option)
    merged = model_lists.tags(CATALOGUE, body)
    assert merged is not None
    entries: list[dict[str, Any]] = orjson.loads(merged)["models"]
    kept = [n for n in names if CATALOGUE.find(n) is None]
    assert [e["name"] for e in entries][: len(kept)] == kept
    listed = [e["name"].lower() for e in entries if CATALOGUE.find(e["name"]) is not None]
    assert len(listed) == len(set(listed))
    digests = [e["digest"] for e in entries]
    assert len(digests) == len(set(digests))


def test_one_model_answers_to_the_name_it_was_asked_by() -> None:
    body = b'{"id":"qwen3:4b","object":"model","created":5,"owned_by":"library"}\n'
    assert model_lists.renamed("Planner", body) == body.replace(b"qwen3:4b", b"Planner")
    for other in (b"", b"[]", b'{"id":4}', b'{"error":{}}'):
        assert model_lists.renamed("Planner", other) is None
