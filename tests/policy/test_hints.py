"""Commands as people are told to type them."""

from __future__ import annotations

from modelsplit_policy.hints import UNIT, asking, ollama_steps, ollamas_steps, pulling


def test_a_command_is_told_whom_to_ask_only_where_it_would_ask_somebody_else() -> None:
    assert asking("modelsplit status", "") == "modelsplit status"
    assert asking("modelsplit status", "[::1]:9") == "modelsplit status --admin [::1]:9"


def test_all_that_is_missing_is_pulled_where_the_proxy_asks() -> None:
    assert pulling(["a", "b:1"]) == "ollama pull a && ollama pull b:1"
    elsewhere = pulling(["a", "b"], "http://gpu:9")
    assert (
        elsewhere
        == "OLLAMA_HOST=http://gpu:9 ollama pull a && OLLAMA_HOST=http://gpu:9 ollama pull b"
    )


def test_a_unit_is_named_only_where_there_is_one() -> None:
    assert ollama_steps("127.0.0.1:11434", is_here=True, has_unit=True) == UNIT
    here = ollama_steps("127.0.0.1:11434", is_here=True, has_unit=False)
    assert here.start == "ollama serve"
    assert here.look == here.ask == "curl -m 5 http://127.0.0.1:11434/api/version"
    assert here.restart == f"{here.ask}   # answers once Ollama is restarted"
    assert ollama_steps("[::1]:9", is_here=True, has_unit=False).start == (
        "OLLAMA_HOST=[::1]:9 ollama serve"
    )
    away = ollama_steps("gpu:11434", is_here=False, has_unit=False)
    assert away.start == away.look == away.ask == "curl -m 5 http://gpu:11434/api/version"
    assert set(ollamas_steps()) == {"modelsplit host list"}
