"""Ctrl-C that cannot get lost."""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Any


class Interrupts:
    """Remembers an interrupt while it lasts, and raises it again where it is asked.

    Python raises KeyboardInterrupt wherever it happens to be; inside a destructor, or what some
    library catches, it is dropped, and a long run goes on. Outside the main thread, or where
    another handler is set, this does nothing.
    """

    def __init__(self) -> None:
        self.seen = False
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def check(self) -> None:
        """Raises KeyboardInterrupt if there was one."""
        if self.seen:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: Any) -> None:
        self.seen = True
        raise KeyboardInterrupt
