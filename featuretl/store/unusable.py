"""Errors of the system, as one sentence that says what happened and what to do."""

from __future__ import annotations

import errno
import os

from featuretl.exceptions import UnusableStoreError

CACHE_VARIABLE = "FEATURETL_CACHE"

_ELSEWHERE = f"choose another place (cache=, --cache, {CACHE_VARIABLE}) or none (cache=None)"
_GONE = f"if it was deleted or moved meanwhile, run the command again, else {_ELSEWHERE}"
_RIGHTS = f"change its permissions, or {_ELSEWHERE}"
_ROOM = f"make room or {_ELSEWHERE}"
_REMEDIES = {
    errno.EMFILE: "close files or raise this process's limit on them (ulimit -n), and try again",
    errno.ENFILE: "close other programs, whose open files reached the system's limit, and try again",
    errno.ENOMEM: "free memory or raise the limits on it (ulimit -v, vm.max_map_count), and try again",
    errno.ENOENT: _GONE,
    errno.ESTALE: _GONE,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    None: _ROOM,  # SQLite says what it is
}


def unusable(what: str, error: Exception, lost: str = "") -> UnusableStoreError:
    """Return the error with the sentence "`what` (reason of `error`)`lost`; remedy."

    `what` names the file or store and the failed action; `lost` is the consequence.
    """
    number = errno.ENOMEM if isinstance(error, MemoryError) else getattr(error, "errno", None)
    reason = os.strerror(number) if number else str(error) or type(error).__name__
    remedy = _REMEDIES.get(number, _ELSEWHERE)
    return UnusableStoreError(f"{what} ({reason}){lost}; {remedy}.")
