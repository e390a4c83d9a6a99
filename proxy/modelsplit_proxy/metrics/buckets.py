"""The edges of histograms' buckets, in seconds.

The thresholds of the shipped policy's ``slo`` are among them: what share is below one is then
counted, not guessed between two edges.
"""

from __future__ import annotations

from typing import Final

# Local models take from tens of milliseconds to ten minutes; OpenTelemetry's own buckets
# stop at 82 s. The role timeouts are edges too.
LATENCY_S: Final = (
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 15.0),
    *(30.0, 60.0, 70.0, 120.0, 300.0, 600.0),
)
WAIT_S: Final = (
    *(0.001, 0.005, 0.025, 0.1, 0.25, 0.5),
    *(1.0, 2.0, 5.0, 8.0, 10.0, 30.0),
)
LAG_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

GROWTH: Final = 1.05
# From a tenth of a millisecond to more than an hour.
_GRID: Final = tuple(0.0001 * GROWTH**step for step in range(360))
# For quantiles that people read: each bucket is at most five per cent wide.
FINE_S: Final = tuple(sorted({*LATENCY_S, *WAIT_S, *LAG_S, *_GRID}))
