"""Which requests are calls to a model, and in whose dialect errors are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.routes import INFERENCE, dialect_of, inference

DIALECTS = {
    "/api/generate": "ollama",
    "/api/chat": "ollama",
    "/api/embed": "ollama",
    "/api/embeddings": "ollama",
    "/v1/chat/completions": "openai",
    "/v1/completions": "openai",
    "/v1/embeddings": "openai",
    "/v1/responses": "openai",
    "/v1/messages": "anthropic",
}


def test_these_paths_are_calls_to_a_model_and_no_others() -> None:
    assert {path: route.dialect for path, route in INFERENCE.items()} == DIALECTS


@pytest.mark.parametrize(("path", "dialect"), DIALECTS.items())
def test_a_post_to_one_is_labelled_with_its_path(path: str, dialect: str) -> None:
    for target in (path, f"{path}?x=/api/tags", path.replace("a", "%61"), f"%2F{path[1:]}"):
        route = inference("POST", target)
        assert route is not None
        assert (route.label, route.dialect) == (path, dialect)
    assert dialect_of(f"{path}?beta=true") == dialect


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "post"])
def test_another_method_passes_through(method: str) -> None:
    assert inference(method, "/api/chat") is None


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "",
        "*",
        "/api/tags",
        "/api/chat/",
        "//api/chat",
        "/API/chat",
        "/api/../api/chat",
        "/api/chat%3Fx",
        "/api%252Fchat",
        "/v1/messages/count_tokens",
        "/v1/models",
        "/api/pull",
        "/?/api/chat",
        "/%ff",
        "/%",
    ],
)
def test_every_other_spelling_passes_through_as_ollama_does_not_route_it(target: str) -> None:
    assert inference("POST", target) is None


@pytest.mark.parametrize(
    ("target", "dialect"),
    [
        ("/api/tags", "ollama"),
        ("/", "ollama"),
        ("/nowhere", "ollama"),
        ("/v1/models", "openai"),
        ("/v1/messages/count_tokens", "anthropic"),
    ],
)
def test_other_routes_have_the_dialect_of_their_part_of_the_api(target: str, dialect: str) -> None:
    assert dialect_of(target) == dialect


@given(target=st.text(st.characters()))
def test_any_target_is_routed_somewhere(target: str) -> None:
    route = inference("POST", target)
    assert route is None or route.label in DIALECTS
    assert dialect_of(target) in set(DIALECTS.values())
