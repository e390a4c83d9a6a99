"""Holding one call's answer to the form that its request asked for.

Only for roles that say ``validate``, and only where the request carries a schema or asks
for JSON. What was found is in the record: ``valid``, ``invalid``, or why it was not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_proxy.protocol import answer_format, answer_text

if TYPE_CHECKING:
    from modelsplit_policy.go_json import Fields
    from modelsplit_proxy.protocol.answer_format import Wanted
    from modelsplit_proxy.protocol.endpoint import Endpoint
    from modelsplit_proxy.records.record import CallRecord


class Validation:
    """The check of one attempt's answer."""

    def __init__(self, record: CallRecord, model: str, fields: Fields) -> None:
        self._record = record
        self._model = model
        self._wanted = _wanted(record.endpoint, fields)
        if self._wanted is not None and self._wanted.unchecked is not None:
            record.schema = f"unchecked: {self._wanted.unchecked}"

    @property
    def wanted(self) -> bool:
        """True if there is a form to hold an answer to."""
        return self._wanted is not None and self._wanted.unchecked is None

    def whole(self, body: bytes) -> Failure | None:
        """Check an answer that came whole."""
        texts = self._record.endpoint.texts
        return self._check(None if texts is None else answer_text.text_of_whole(texts, body))

    def stream(self, pieces: bytes) -> Failure | None:
        """Check all the bytes of a stream."""
        row = self._record.endpoint
        if row.texts is None:
            return self._check(None)
        return self._check(answer_text.text_of_stream(row.texts, row.wire, pieces))

    def _check(self, text: str | None) -> Failure | None:
        if self._wanted is None or not self.wanted:
            return None
        if text is None:
            self._record.schema = "unchecked: the answer holds no text"
            return None
        finding = answer_format.judge(self._wanted, text)
        if finding.unchecked is not None:
            self._record.schema = f"unchecked: {finding.unchecked}"
            return None
        self._record.schema = "valid" if finding.problem is None else "invalid"
        if finding.problem is None:
            return None
        return Failure(
            ErrorCode.SCHEMA_INVALID,
            Reason.SCHEMA,
            f"{self._model[:60]}'s answer does not fit the schema: {finding.problem}"[:200],
            "Schema Invalid",
        )


def _wanted(endpoint: Endpoint, fields: Fields) -> Wanted | None:
    return None if endpoint.wanted_format is None else endpoint.wanted_format(fields)
