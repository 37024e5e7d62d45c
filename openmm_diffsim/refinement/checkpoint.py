"""Checkpoints: written whole or not at all, and refused when damaged or of another fit.

A file is one line that names the format, one line with the SHA-256 of the rest, and a NumPy
archive of plain arrays (no pickle); text travels as bytes in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from ..io import atomic_write_bytes

_FORMAT = b"openmm_diffsim checkpoint 1\n"


def write_checkpoint(path: Path, meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Replace the checkpoint at ``path`` atomically.

    Raises
    ------
    CheckpointError
        If it cannot be written (a full disk, say); the old one is then untouched.
    """
    stream = io.BytesIO()
    text = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    np.savez(stream, allow_pickle=False, meta=text, **{f"array/{k}": v for k, v in arrays.items()})
    body = stream.getvalue()
    digest = hashlib.sha256(body).hexdigest().encode() + b"\n"
    try:
        atomic_write_bytes(path, _FORMAT + digest + body)
    except OSError as error:
        raise CheckpointError(
            f"cannot write the checkpoint {path}: {error.strerror or error}; an older one there "
            "is untouched, and the fit in memory is whole: make room and save again",
            path=path,
            reason=str(error),
        ) from error


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Meta data and arrays of the checkpoint at ``path``.

    Raises
    ------
    CheckpointError
        If there is none, or it is not one of ours, or it is damaged. Nothing is changed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"cannot read the checkpoint {path}: {error.strerror or error}",
            path=path,
            reason="unreadable",
        ) from error
    if not data.startswith(_FORMAT):
        raise CheckpointError(
            f"{path} is not a checkpoint of this version of openmm_diffsim",
            path=path,
            reason="foreign",
        )
    digest, _, body = data[len(_FORMAT) :].partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise CheckpointError(
            f"{path} is damaged: its checksum does not match its content; start the fit anew in "
            "another folder, or restore the file",
            path=path,
            reason="damaged",
        )
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as archive:
            meta = json.loads(archive["meta"].tobytes())
            arrays = {k[len("array/") :]: archive[k] for k in archive.files if k != "meta"}
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} does not hold what a checkpoint holds: {error}", path=path, reason="damaged"
        ) from error
    if not isinstance(meta, dict) or not isinstance(meta.get("fingerprint"), dict):
        raise CheckpointError(
            f"{path} does not say which fit it belongs to", path=path, reason="damaged"
        )
    return meta, arrays
