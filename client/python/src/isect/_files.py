"""Reads files that nobody else may read or change: tokens and keys."""

from __future__ import annotations

import os
import stat

from ._errors import visible

#: Modes that let others read or change a file, or the group change it.
_FORBIDDEN = 0o027


def check_private(path: str) -> str | None:
    """What is wrong with a file that only this user (or root) may change and only its group may
    read besides; None = nothing."""
    return _read(path, None)[1]


def read_private(path: str, bytes_max: int) -> tuple[str, str | None]:
    """The text of such a file, and what is wrong with it; None = nothing."""
    return _read(path, bytes_max)


def _read(path: str, bytes_max: int | None) -> tuple[str, str | None]:
    shown = visible(path)
    own = os.geteuid()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as why:
        return "", (f"{shown}: {why.strerror}: user {own} must be able to read it; "
                    f"chown {own} it")
    except (OSError, ValueError) as why:
        return "", f"{shown}: {getattr(why, 'strerror', None) or why}"
    try:
        meta = os.fstat(fd)
        mode = stat.S_IMODE(meta.st_mode)
        if not stat.S_ISREG(meta.st_mode):
            return "", f"{shown}: not a regular file"
        if meta.st_uid not in (own, 0):
            return "", (f"{shown}: belongs to user {meta.st_uid}, and must belong to this user "
                        f"({own}) or root; chown {own} it")
        if mode & _FORBIDDEN:
            return "", (f"{shown}: has mode {mode:04o}, so that others could read or change it; "
                        "chmod 600 it")
        if bytes_max is None:
            return "", None
        data = b""
        while len(data) <= bytes_max:
            some = os.read(fd, bytes_max + 1 - len(data))
            if not some:
                break
            data += some
    except OSError as why:
        return "", f"{shown}: {why.strerror}"
    finally:
        os.close(fd)
    if len(data) > bytes_max:
        return "", f"{shown}: has more than {bytes_max} bytes"
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return "", f"{shown}: is not text in UTF-8"
