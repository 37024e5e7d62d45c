"""One process at a time: a file that names who is at work in a folder."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ..errors import TakenError
from .process import Process
from .temporary import sweep, temporary_path

_PAUSE = 0.3  # seconds, for others to take what two found without an owner, without flock
_TRIALS, _SHORT = 20, 0.02  # seconds between them
_EMPTY = 60.0  # seconds, after which a lock that was left empty (a full disk, a crash) is nobody's
_LARGEST = 10_000  # bytes of a file that may be a lock


class Lock:
    """Holds a file until ``release``, or until this process ends, however that is.

    The file says which process it is of. Where the file system has ``flock`` that is held as well,
    and makes taking over what a killed process left behind a matter of one process only.

    Parameters
    ----------
    path : path
        Of the lock; its folder is there.
    what : str
        What it is for, in messages.

    Raises
    ------
    TakenError
        If another process holds it, or may hold it, on another host; or a file is no lock.
    OSError
        If the folder is not writable.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self._what = what
        self._pid = os.getpid()
        sweep(path.parent)
        self._file = -1
        _held.add(self)  # before it is: whatever interrupts this, nothing is left
        try:
            self._take()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others go to work. A process that was forked from the owner releases nothing."""
        if self._file >= 0 and os.getpid() == self._pid:
            if _is_at(self.path, self._file):
                with suppress(OSError):
                    self.path.unlink()
            self.close()

    def close(self) -> None:
        """Let go of the file itself, in a forked process too."""
        file, self._file = self._file, -1
        _held.discard(self)
        if file >= 0:
            os.close(file)

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _take(self) -> None:
        temporary = self._written()
        own = self._file
        try:
            for _ in range(_TRIALS):
                if self._appeared(temporary, own) or self._took_over(temporary, own):
                    return
                time.sleep(_SHORT)
            raise TakenError(
                f"{self._what} is in use: {self.path} changes hands all the time", path=self.path
            )
        finally:
            temporary.unlink(missing_ok=True)

    def _written(self) -> Path:
        """A file that names this process, locked, before it takes the name of the lock."""
        temporary = temporary_path(self.path)
        try:
            self._file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            _flock(self._file)
            about = vars(Process.this()) | {"since": time.strftime("%Y-%m-%d %H:%M:%S")}
            os.write(self._file, json.dumps(about).encode())
        except OSError as error:
            temporary.unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                os.close(self._opened())  # says who is at work, if somebody is
            folder = str(self.path.parent)
            raise OSError(error.errno, error.strerror or str(error), folder) from error
        return temporary

    def _appeared(self, temporary: Path, own: int) -> bool:
        """Give it the name of the lock, unless there is one; also where there are no hard links."""
        try:
            os.link(temporary, self.path)
        except FileExistsError:
            return False
        except OSError:
            if os.path.lexists(self.path):
                return False
            os.rename(temporary, self.path)
            time.sleep(_PAUSE)
        return _is_at(self.path, own)

    def _took_over(self, temporary: Path, own: int) -> bool:
        """From a process that has ended? False where the lock changes hands just now.

        Raises
        ------
        TakenError
            If somebody holds it.
        """
        try:
            old = self._opened()
        except FileNotFoundError:
            return False
        try:
            alone = _flock(old)
            if alone is False or not _is_at(self.path, old):
                return False
            os.rename(temporary, self.path)
            if alone is None:
                time.sleep(_PAUSE)
            return _is_at(self.path, own)
        finally:
            os.close(old)

    def _opened(self) -> int:
        """The lock of a process that has ended.

        Raises
        ------
        TakenError
            If it is not known to have ended.
        """
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise TakenError(
                f"{self._what} may be in use: {self.path} cannot be read ({error.strerror}); if "
                "nobody works there, delete that file",
                path=self.path,
            ) from error
        try:
            self._check_ended(file)
        except BaseException:
            os.close(file)
            raise
        return file

    def _check_ended(self, file: int) -> None:
        found = os.fstat(file)
        if found.st_size == 0 and time.time() - found.st_mtime > _EMPTY:
            return
        try:
            about = json.loads(os.read(file, _LARGEST))
            owner = Process.of(about)
        except (ValueError, OSError) as error:
            raise TakenError(
                f"{self.path} would be the lock of {self._what}, but it is none: move it away",
                path=self.path,
            ) from error
        if owner.is_gone:
            return
        what_to_do = "wait until it ends, or choose another name or folder"
        if owner.is_elsewhere:
            what_to_do += f"; if it has ended, which cannot be seen from here, delete {self.path}"
        raise TakenError(
            f"{self._what} is in use by {owner}, since {about.get('since')}: {what_to_do}",
            path=self.path,
            pid=owner.pid,
            host=owner.host,
        )


def is_held(path: Path) -> bool:
    """Is a process that may still be there at work, as far as the file of a ``Lock`` says?"""
    try:
        with open(path, "rb") as stream:
            return not Process.of(json.loads(stream.read(_LARGEST))).is_gone
    except (OSError, ValueError):
        return False


def release_all() -> None:
    """All that this process holds, before it ends at once."""
    for lock in list(_held):
        lock.release()


_held: set[Lock] = set()  # also of whom an interrupt left nothing else that knows it


def _close_all() -> None:
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_close_all)


def _flock(file: int) -> bool | None:
    """Lock an open file: did it work? None where the file system does not know that."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(path: Path, file: int) -> bool:
    """Is it still this file that has the name?"""
    try:
        there, own = os.lstat(path), os.fstat(file)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)
