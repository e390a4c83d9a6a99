"""The last good answer to a question whose answer seldom changes.

Ollama can be slow to list its models while it loads one from a busy disk. A list that was
true a moment ago is then worth more to a client than a timeout, which some take for the
end of the integration. An Ollama that is not there at all is another matter: that is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_AGE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer as it went out: whole header lines and the body. ``at``: monotonic seconds."""

    lines: tuple[bytes, ...]
    body: bytes
    at: float


class LastGood:
    """One answer for each question, by its label; the labels are few and fixed."""

    def __init__(self, max_age_s: float = MAX_AGE_S) -> None:
        self._max_age_s = max_age_s
        self._answers: dict[str, Whole] = {}

    def note(self, label: str, answer: Whole) -> None:
        self._answers[label] = answer

    def forget(self) -> None:
        """Something was changed: what was true before may be true no longer."""
        self._answers.clear()

    def recall(self, label: str, now: float) -> Whole | None:
        """The answer, unless it is too old to be believed."""
        answer = self._answers.get(label)
        if answer is None or now - answer.at > self._max_age_s:
            return None
        return answer
