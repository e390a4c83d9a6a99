"""What a process may never need: loaded and made when somebody asks for it first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class ReplacedError(Exception):
    """What is needed cannot be imported any more: the program's files were changed under it."""

    def __init__(self, error: ImportError) -> None:
        super().__init__(
            "the files of modelsplit have changed since it was started, as in an upgrade: "
            f"{error}; restart it: calls are served until then"
        )


class Late(Generic[T]):
    """One object, made once, however many ask for it at the same time. ``made`` None: not yet."""

    def __init__(self, make: Callable[[], T]) -> None:
        """``make`` imports what it needs, in a thread: the event loop does not wait for files."""
        self._make = make
        self._making = asyncio.Lock()
        self.made: T | None = None

    async def get(self) -> T:
        """Raises what ``make`` raises; the next one who asks tries again.

        ReplacedError: it could not import what it needs.
        """
        if self.made is None:
            async with self._making:
                if self.made is None:
                    self.made = await asyncio.to_thread(self._make_now)
        return self.made

    def _make_now(self) -> T:
        try:
            return self._make()
        except ImportError as error:
            raise ReplacedError(error) from error
