"""Files that are either whole or as they were before."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .temporary import sweep, temporary_path


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Replace a file, or leave the old one untouched.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and only then
    take the name of the old file. A symbolic link stays one; what it points to is replaced. What
    a killed process left behind there is removed.

    Raises
    ------
    OSError
        The disk is full, or the folder is missing or not writable; it names the path. No
        temporary file is left.
    """
    target = Path(os.path.realpath(path))
    sweep(target.parent)
    temporary = temporary_path(target)
    try:
        with open(temporary, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def write_csv(path: str | os.PathLike[str], header: str, *columns: ArrayLike) -> None:
    """Write columns under a header line, atomically; see ``csv_bytes``.

    Raises
    ------
    ValueError
        The columns do not match the header or each other.
    OSError
        As for `atomic_write_bytes`.
    """
    atomic_write_bytes(path, csv_bytes(header, *columns))


def csv_bytes(header: str, *columns: ArrayLike) -> bytes:
    """Columns under a header line.

    Numbers are written with as many digits as it takes to read the same number back.

    Parameters
    ----------
    header : names separated by commas, one per column, such as "r_nm,g_target"
    columns : arrays of one length, of numbers or of strings

    Raises
    ------
    ValueError
        The columns do not match the header or each other.
    """
    lists = [np.asarray(column).tolist() for column in columns]
    lengths = [len(values) for values in lists]
    if len(lists) != len(header.split(",")) or len(set(lengths)) > 1:
        raise ValueError(
            f"got {len(lists)} columns of lengths {lengths}, expected one length and a column for "
            f"each name in {header!r}"
        )
    text = io.StringIO()
    text.write(header + "\n")
    csv.writer(text, lineterminator="\n").writerows(zip(*lists, strict=True))
    return text.getvalue().encode()


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write data as JSON, atomically; see ``json_bytes``.

    Raises
    ------
    TypeError
        data holds something JSON has no word for.
    OSError
        As for `atomic_write_bytes`.
    """
    atomic_write_bytes(path, json_bytes(data))


def json_bytes(data: Any) -> bytes:
    """Data as JSON; arrays become lists, paths text, NaN and infinity null.

    Raises
    ------
    TypeError
        data holds something JSON has no word for.
    """
    text = json.dumps(_plain(data), indent=2, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def _plain(data: Any) -> Any:
    """The same data in the types that JSON knows."""
    if isinstance(data, dict):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(value) for value in data]
    if isinstance(data, (np.ndarray, np.generic)):
        return _plain(data.tolist())
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return str(data) if isinstance(data, os.PathLike) else data
