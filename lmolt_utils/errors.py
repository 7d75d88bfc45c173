"""The errors that a user can mend: they are shown as one message, without a traceback."""

import errno


class CompanionError(ValueError):
    """Something wrong with a parameter, a file, a data set or a model; the message says what to do."""


class TryAgainError(CompanionError):
    """Nothing is wrong but the moment, such as a network that is away: the same command may work later."""


class DataError(CompanionError):
    """Data that cannot be had or is not what it should be."""


def exit_status(error: BaseException) -> int:
    """What a command ends with: 130 interrupted, 75 worth trying again, 2 wrong input, 1 failed."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 75 if isinstance(error, TryAgainError) else 2 if isinstance(error, ValueError) else 1


def remedy(error: BaseException) -> str:
    """``error`` as one line; a full disk also says what to do."""
    told = f"{type(error).__name__}: {error}" if not str(error) or isinstance(error, OSError) else str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        told += "; free some space (runs/ holds merged models), then type the same command again: what is done stays"
    return told
