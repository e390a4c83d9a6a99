"""The faults of an upstream that tests and the fault bench both put before the proxy."""

from __future__ import annotations

from typing import Any, Final

from modelsplit_sim.faults import Kind

# Name and rule of the stand-in; None: nobody listens there at all.
FAULTS: Final[dict[str, dict[str, Any] | None]] = {
    "refused connection": None,
    "reset before the head": {"kind": Kind.RESET},
    "hang before the head": {"kind": Kind.HANG},
    "slow load": {"kind": Kind.SLOW_LOAD, "seconds": 0.6},
    "status 500": {"kind": Kind.STATUS, "status": 500},
    "503 busy": {"kind": Kind.STATUS, "status": 503},
    "404 model": {"kind": Kind.STATUS, "status": 404},
    "cut, framed as whole": {"kind": Kind.CUT_CLEAN},
    "cut by FIN": {"kind": Kind.CUT_FIN},
    "cut by RST": {"kind": Kind.CUT_RST},
    "stall": {"kind": Kind.STALL},
    "error line": {"kind": Kind.ERROR_LINE},
    "repeat cutoff": {"kind": Kind.REPEAT_CUTOFF},
}
# One route of each dialect.
ROUTES: Final = ("/api/chat", "/v1/chat/completions", "/v1/messages")
# The role with a fallback, by its alias; the one without, by the name of any other model.
PLANNER: Final = "planner"
PRIMARY: Final = "qwen3:4b"
CHAT: Final = "llama3.2:1b"
# The bounds under which the faults are seen. Milliseconds.
ROLE_MS: Final = 250
STALL_MS: Final = 150
