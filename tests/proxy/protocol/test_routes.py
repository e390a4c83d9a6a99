"""What each path is, and in whose dialect errors are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.vocabulary import Action, Dialect
from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from modelsplit_proxy.protocol.routes import Kind, Routes, dialect_of

ROUTES = Routes(ENDPOINTS)
DIALECTS = {
    "/api/generate": "ollama",
    "/api/chat": "ollama",
    "/api/embed": "ollama",
    "/api/embeddings": "ollama",
    "/v1/chat/completions": "openai",
    "/v1/completions": "openai",
    "/v1/embeddings": "openai",
    "/v1/responses": "openai",
    "/v1/audio/transcriptions": "openai",
    "/v1/images/generations": "openai",
    "/v1/images/edits": "openai",
    "/v1/messages": "anthropic",
    "/api/experimental/web_search": "ollama",
    "/api/experimental/web_fetch": "ollama",
}


def rows(kind: Kind) -> set[str]:
    return {f"{method} {route.label}" for method, route in ROUTES.rows if route.kind is kind}


def test_these_paths_are_calls_to_a_model_and_no_others() -> None:
    assert rows(Kind.INFERENCE) == {f"POST {path}" for path in DIALECTS}


def test_what_manages_has_an_action_and_nothing_else_has() -> None:
    actions = {
        (route.kind is Kind.MANAGEMENT, route.action is not None) for _, route in ROUTES.rows
    }
    assert actions == {(True, True), (False, False)}
    assert {route.action for _, route in ROUTES.rows} - {None} == set(Action)


def test_no_row_is_there_twice() -> None:
    pairs = [(method, route.label) for method, route in ROUTES.rows]
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize(("path", "dialect"), DIALECTS.items())
def test_a_post_to_one_is_labelled_with_its_path(path: str, dialect: str) -> None:
    for target in (path, f"{path}?x=/api/tags", path.replace("a", "%61"), f"%2F{path[1:]}"):
        route = ROUTES.classify("POST", target)
        assert (route.label, route.kind, route.dialect) == (path, Kind.INFERENCE, dialect)
    assert dialect_of(f"{path}?beta=true") == dialect


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "post"])
def test_another_method_is_nothing_known(method: str) -> None:
    assert ROUTES.classify(method, "/api/chat").kind is Kind.OTHER
    assert ROUTES.classify(method, "/api/pull").kind is Kind.OTHER


@pytest.mark.parametrize(
    ("method", "target", "label", "kind"),
    [
        ("GET", "/", "/", "metadata"),
        ("HEAD", "/api/tags?x", "/api/tags", "metadata"),
        ("GET", "/v1/models/qwen3%3A4b", "/v1/models/*", "metadata"),
        ("HEAD", "/api/blobs/sha256:0", "/api/blobs/*", "metadata"),
        ("POST", "/api/blobs/sha256:0", "/api/blobs/*", "management"),
        ("DELETE", "/api/delete", "/api/delete", "management"),
        ("GET", "/v1/models/", "other", "other"),
        ("GET", "/v1/models/a/b", "other", "other"),
        ("GET", "/v1/models/a%2Fb", "other", "other"),
        ("POST", "/api/tomorrow", "other", "other"),
    ],
)
def test_every_other_request_has_a_kind(method: str, target: str, label: str, kind: str) -> None:
    route = ROUTES.classify(method, target)
    assert (route.label, route.kind) == (label, kind)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "*",
        "/api/chat/",
        "//api/chat",
        "/API/chat",
        "/api/../api/chat",
        "/api/chat%3Fx",
        "/api%252Fchat",
        "/v1/messages/count_tokens",
        "/?/api/chat",
        "/%ff",
        "/%",
    ],
)
def test_every_other_spelling_is_nothing_known_as_ollama_does_not_route_it(target: str) -> None:
    assert ROUTES.classify("POST", target).kind is Kind.OTHER


@pytest.mark.parametrize(
    ("target", "dialect"),
    [
        ("/api/tags", "ollama"),
        ("/", "ollama"),
        ("/nowhere", "ollama"),
        ("/v1/models", "openai"),
        ("/v1/tomorrow", "openai"),
        ("/v1/messages/count_tokens", "anthropic"),
    ],
)
def test_other_routes_have_the_dialect_of_their_part_of_the_api(target: str, dialect: str) -> None:
    assert dialect_of(target) == dialect
    assert ROUTES.classify("GET", target).dialect == dialect


@given(target=st.text(st.characters()))
def test_any_target_is_routed_somewhere(target: str) -> None:
    route = ROUTES.classify("POST", target)
    assert route.kind is Kind.OTHER or route in {known for _, known in ROUTES.rows}
    assert route.dialect in Dialect
