"""Having a function called for whatever this thread runs: the only place that sets such a hook.

Python has one place for a profile function and one for a trace function. What is put there may go
unnoticed: by an exception of its own, be it only that no call fits on the stack where it is called,
or because someone else puts another one there, or takes away what he believes to be his.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

Seen: TypeAlias = "Callable[[FrameType, str, Any], object]"


class Hook:
    """Call ``function`` as ``sys.setprofile`` would, in this thread, until the block ends.

    ``lines``: as ``sys.settrace`` would. What was there before is put back.

    No garbage is collected in the block: finalizers, and what others have called by the collector,
    run at any moment, also where the stack is full, and would be counted. RuntimeError at the end
    of the block if ``function`` has raised, which nobody else gets to see, or is no longer called.
    """

    def __init__(self, function: Seen, *, lines: bool = False) -> None:
        self._function = function
        self._get: Callable[[], Any] = sys.gettrace if lines else sys.getprofile
        self._set: Callable[[Any], None] = sys.settrace if lines else sys.setprofile
        self._hook: Final = self._see  # one object, to be known again
        self._error: BaseException | None = None
        self._called = False

    def __enter__(self) -> Self:
        self._collects = gc.isenabled()
        gc.disable()
        self._before = self._get()
        self._set(self._hook)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._called = False
        self._probe()
        called = self._called
        if self._get() is self._hook:
            self._set(self._before)
        if self._collects:
            gc.enable()
        if kind is not None:
            return
        if self._error is not None:
            raise RuntimeError("the hook has raised") from self._error
        if not called:
            raise RuntimeError("the hook was taken away: not everything was seen")

    def _see(self, frame: FrameType, event: str, value: Any) -> Seen | None:
        if frame.f_globals is _OURS:
            self._called = True
            return None
        if self._error is not None:
            return None
        try:
            further = self._function(frame, event, value)
        except BaseException as error:  # noqa: BLE001 - raised again where the block ends
            self._error = error
            return None
        return None if further is None else self._hook

    def _probe(self) -> None:
        """Be called, to see whether that is seen."""


_OURS: Final = globals()
