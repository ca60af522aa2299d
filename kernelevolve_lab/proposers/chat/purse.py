"""A hard cap on money: a request may start only when its worst case still fits under the cap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class CapReached(Exception):
    """Not even alone would the next request fit under the cap."""


class Reservation:
    """Money set aside for one request; unless `settle` says otherwise, all of it counts as spent."""

    def __init__(self, worst: float) -> None:
        self.actual = worst

    def settle(self, actual: float) -> None:
        """Say what the request really cost, in USD."""
        self.actual = actual


class Purse:
    """Money spent in a run, and set aside by requests in flight, in USD; used from one event loop."""

    def __init__(self, spent: float = 0.0) -> None:
        self.spent = spent
        self._in_flight: list[float] = []
        self._settled = asyncio.Event()

    @property
    def reserved(self) -> float:
        return sum(self._in_flight)

    @asynccontextmanager
    async def reserve(self, worst: float, cap: float | None) -> AsyncIterator[Reservation]:
        """Set `worst` aside, first waiting for requests in flight to settle where it does not fit yet.

        Raises `CapReached` where it does not fit with nothing in flight either.
        """
        while cap is not None and self.spent + self.reserved + worst > cap:
            if not self._in_flight:
                raise CapReached(f"{self.spent:.4f} of {cap:.4f} USD are spent, and the next request may cost up to {worst:.4f} USD")
            await self._settled.wait()
        self._in_flight.append(worst)
        reservation = Reservation(worst)
        try:
            yield reservation
        finally:
            self._in_flight.remove(worst)
            self.spent += reservation.actual
            self._settled.set()
            self._settled = asyncio.Event()
