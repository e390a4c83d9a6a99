"""Which known name somebody may have meant who misspelt one."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

# How like a name must be. A model without its tag is like that model.
_LIKE: Final = 0.6
# A comparison takes longer with every character: clients name what they like.
_NAME_MAX: Final = 64
_KNOWN_MAX: Final = 200


def near(name: str, known: Iterable[str]) -> str | None:
    """The name most like ``name``, whatever its case, as it is known; None: there is none.

    Of very many names only the first are looked at, and a very long one is like none.
    """
    if not name or len(name) > _NAME_MAX:
        return None
    folded = {other.casefold(): other for other, _ in zip(known, range(_KNOWN_MAX), strict=False)}
    found = get_close_matches(name.casefold(), folded, n=1, cutoff=_LIKE)
    return folded[found[0]] if found else None
