"""What is known of the installed models, and whom it spares being asked."""

from __future__ import annotations

import pytest

from modelsplit_policy.capabilities import Capability, ModelFacts, Unable, gap, unable

PLAIN = ModelFacts(installed=True, capabilities=frozenset({"completion"}))
TALKS = ModelFacts(installed=True, capabilities=frozenset({"completion", "tools", "thinking"}))
SILENT = ModelFacts(installed=True, capabilities=None)
ABSENT = ModelFacts(installed=False)
TOOLS, CHAT = (Capability.COMPLETION, Capability.TOOLS), (Capability.COMPLETION,)


@pytest.mark.parametrize(
    ("facts", "needs", "lacks"),
    [
        (PLAIN, TOOLS, ("tools",)),
        (PLAIN, (Capability.TOOLS, Capability.THINKING), ("thinking", "tools")),
        (ModelFacts(True, frozenset({"embedding"})), CHAT, ("completion",)),
        (ABSENT, (), ()),
        (ABSENT, TOOLS, ()),
    ],
)
def test_a_model_that_is_known_to_be_of_no_use_is_not_asked(
    facts: ModelFacts, needs: tuple[Capability, ...], lacks: tuple[str, ...]
) -> None:
    found = unable("m", facts, needs)
    assert found == Unable("m", lacks)
    assert found is not None
    assert found.word == ("incapable" if lacks else "not_installed")


@pytest.mark.parametrize(
    ("facts", "needs"),
    [(None, TOOLS), (SILENT, TOOLS), (TALKS, TOOLS), (PLAIN, CHAT), (PLAIN, ())],
)
def test_one_that_may_serve_the_request_or_is_not_known_is_asked(
    facts: ModelFacts | None, needs: tuple[Capability, ...]
) -> None:
    assert unable("m", facts, needs) is None


@pytest.mark.parametrize(
    ("better", "worse", "lacks"),
    [
        (TALKS, PLAIN, ("thinking", "tools")),
        (PLAIN, TALKS, ()),
        (TALKS, TALKS, ()),
        (TALKS, SILENT, ()),
        (SILENT, PLAIN, ()),
        (None, PLAIN, ()),
        (TALKS, None, ()),
        # That it is not installed is said elsewhere.
        (TALKS, ABSENT, ()),
        # What no request of ours asks for is no gap.
        (ModelFacts(True, frozenset({"audio"})), PLAIN, ()),
    ],
)
def test_a_gap_is_what_the_one_is_known_to_have_and_the_other_to_lack(
    better: ModelFacts | None, worse: ModelFacts | None, lacks: tuple[str, ...]
) -> None:
    assert gap(better, worse) == lacks
