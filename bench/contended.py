"""The stand-in Ollama on a host where calls at once are slower than their share.

    python bench/contended.py CONTENTION [the options of python -m modelsplit_sim]

With n calls at once each runs at 1 / (1 + CONTENTION (n - 1)) of its speed; 1 is the
stand-in's own --shared-compute.
"""

from __future__ import annotations

import sys

from modelsplit_sim import pacing
from modelsplit_sim.__main__ import main


def contend(contention: float) -> None:
    """Make every shared computation of this process contend so much."""

    def speed(compute: pacing.Compute) -> float:
        running = len(compute._paces)  # noqa: SLF001 - the one number the stand-in lacks
        return 1 / (1 + contention * (running - 1)) if running else 0.0

    pacing.Compute._speed = speed  # type: ignore[method-assign,assignment]  # noqa: SLF001


if __name__ == "__main__":
    contend(float(sys.argv.pop(1)))
    main()
