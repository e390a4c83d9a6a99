"""A model's thoughts, given to a client to keep, and known again when they come back.

The Messages API takes back only thoughts that it has signed. Where a client's dialect has a
place for what it need not understand, the signature goes there, behind a mark of ours: what
other models thought is told from it.
"""

from __future__ import annotations

from typing import Any, Final

_SIGNED: Final = "messages-signature:"
_SEALED: Final = "messages-redacted:"


def seal_of(signature: str) -> str:
    """What a client keeps beside thoughts that it can read."""
    return _SIGNED + signature


def seal_of_redacted(data: str) -> str:
    """What a client keeps of thoughts that nobody here can read."""
    return _SEALED + data


def block_of(text: str, sealed: object) -> dict[str, Any] | None:
    """The block of the Messages API; None: nothing proves that the thoughts are its own."""
    if not isinstance(sealed, str):
        return None
    if sealed.startswith(_SEALED):
        return {"type": "redacted_thinking", "data": sealed.removeprefix(_SEALED)}
    if sealed.startswith(_SIGNED):
        signature = sealed.removeprefix(_SIGNED)
        return {"type": "thinking", "thinking": text, "signature": signature}
    return None
