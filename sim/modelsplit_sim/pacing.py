"""When the next token is due."""

from __future__ import annotations

import asyncio


class Compute:
    """A host's token throughput, whole for each generation or shared by all that run.

    Shared mode keeps a virtual clock that counts tokens per generation: with n running it
    advances rate / (1 + contention (n - free)) tokens per second, rate up to ``free`` at once,
    so each one's k-th token is due at (its start) + k.
    """

    def __init__(self, *, shared: bool, contention: float = 1.0, free: int = 1) -> None:
        self._shared = shared
        self._contention = contention
        self._free = free
        self._paces: set[SharedPace] = set()
        self._virtual = 0.0
        self._as_of = 0.0

    def pace(self, rate: float) -> Pace:
        """A clock for one generation; `rate` in tokens per second, 0 for no pacing."""
        if rate <= 0:
            return Pace()
        return SharedPace(self, rate) if self._shared else SteadyPace(rate)

    def join(self, pace: SharedPace, now: float) -> float:
        """Count a generation in; returns the virtual time of its start."""
        self._settle(now)
        self._paces.add(pace)
        self._wake()
        return self._virtual

    def part(self, pace: SharedPace, now: float) -> None:
        self._settle(now)
        self._paces.discard(pace)
        self._wake()

    def delay(self, due: float, now: float) -> float:
        """Real seconds until virtual time `due`, if nobody joins or parts before."""
        self._settle(now)
        speed = self._speed()
        return (due - self._virtual) / speed if speed else 0.0

    def _speed(self) -> float:
        """Virtual seconds per second; each pace multiplies by its own rate."""
        running = len(self._paces)
        return 1 / (1 + self._contention * max(0, running - self._free)) if running else 0.0

    def _settle(self, now: float) -> None:
        self._virtual += (now - self._as_of) * self._speed()
        self._as_of = now

    def _wake(self) -> None:
        for pace in self._paces:
            pace.changed.set()


class Pace:
    """No pacing: a token is due as soon as the loop had a turn."""

    def start(self) -> None:
        """The first token's time starts to run."""

    async def next(self) -> None:
        await asyncio.sleep(0)

    def stop(self) -> None:
        """The generation ended or was given up."""


class SteadyPace(Pace):
    """Token k is due at start + k/rate, so a late token does not delay the next."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._count = 0
        self._start = 0.0

    def start(self) -> None:
        self._start = asyncio.get_running_loop().time()

    async def next(self) -> None:
        self._count += 1
        due = self._start + self._count / self._rate
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))


class SharedPace(Pace):
    """One generation's part of a shared Compute."""

    def __init__(self, compute: Compute, rate: float) -> None:
        self._compute = compute
        self._rate = rate
        self._count = 0
        self._start = 0.0
        self.changed = asyncio.Event()

    def start(self) -> None:
        self._start = self._compute.join(self, asyncio.get_running_loop().time())

    async def next(self) -> None:
        self._count += 1
        due = self._start + self._count / self._rate
        loop = asyncio.get_running_loop()
        while (delay := self._compute.delay(due, loop.time())) > 0:
            self.changed.clear()
            timer = loop.call_later(delay, self.changed.set)
            try:
                await self.changed.wait()
            finally:
                timer.cancel()

    def stop(self) -> None:
        self._compute.part(self, asyncio.get_running_loop().time())
