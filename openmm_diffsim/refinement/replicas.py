"""Where the runs of a state point are: that of the user's Simulation, and its replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Replicas:
    """Of one state point: what each run goes on from, as ``StatePoint.serialize`` gives it.

    A run that begins from such a text is decided by it and the potential, wherever it is. The
    user's Simulation follows the first replica.
    """

    def __init__(self, state_point: Any) -> None:
        self.texts: list[Any] = []
        self._point = state_point
        self._left: Any = None  # where the Simulation was, when last heard of

    def begin(self, number: int) -> None:
        """Have as many as that.

        They begin where the Simulation is, where it was not known or has been moved since, each but
        the first with velocities and random numbers of its own.
        """
        if not self.texts or self._point.where() != self._left:
            self.texts = [self._point.serialize()]
            self._left = self._point.where()
        self.texts = self.texts[:number]
        for k in range(len(self.texts), number):
            self._point.deserialize(self.texts[0])
            self.texts.append(self._point.another_start(self.texts[0], k))

    def go_on(self, texts: Sequence[Any]) -> None:
        """From these."""
        self.texts = list(texts)
        self._point.deserialize(self.texts[0])
        self._left = self._point.where()

    def again(self) -> None:
        """From where they were, with other random numbers."""
        self.go_on([self._point.again(text) for text in self.texts])
