"""The base of errors that a user can mend: they are shown as one message, without a traceback."""


class CompanionError(ValueError):
    """Something wrong with a parameter, a file, a data set or a model; the message says what to do."""
