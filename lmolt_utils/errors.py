"""The errors that a user can mend: they are shown as one message, without a traceback."""

import errno


class CompanionError(ValueError):
    """Something wrong with a parameter, a file, a data set or a model; the message says what to do."""


class DataError(CompanionError):
    """Data that cannot be had or is not what it should be."""


def remedy(error: BaseException) -> str:
    """``error`` as one line; a full disk also says what to do."""
    told = f"{type(error).__name__}: {error}" if not str(error) or isinstance(error, OSError) else str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        told += "; free some space (runs/ holds merged models), then type the same command again: what is done stays"
    return told
