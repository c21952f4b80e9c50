"""Everything that plmscope raises on purpose.

::

    PlmscopeError
    ├── InputError       a sequence file, a table, a label: names the file and the row
    ├── StudyError       a setting: names the key, the value and the nearest known key
    ├── ModelError       a checkpoint that cannot be loaded, or an architecture that is not supported
    ├── SelectionError   a fraction, a score or a neuron list that selects nothing sensible
    └── RunError         a run folder that is foreign, incomplete or not writable
        └── BusyError    another process is at work there

The text is one line: what is wrong, where, and what to do. The command line prints it and exits with status 2.
"""

import errno


class PlmscopeError(Exception):
    """Base of every error that a user can mend."""


class InputError(PlmscopeError):
    """A sequence file, table or label that cannot be used.

    Args:
        text: What is wrong and where.
        by_setting: What a study's setting does about it, with the mark before it; the whole line is ``text`` and this.
        otherwise: What else there is to do, for a command that has no settings.

    Attributes:
        plain: The line for a command that has no settings.
    """

    def __init__(self, text: str = "", by_setting: str = "", otherwise: str = "") -> None:
        super().__init__(text + by_setting)
        self.plain = text + otherwise


class StudyError(PlmscopeError):
    """A setting with an unknown name or an impossible value."""


class ModelError(PlmscopeError):
    """A checkpoint that cannot be loaded or whose architecture is not supported."""


class SelectionError(PlmscopeError):
    """A fraction, a score or a list of neurons that cannot make a selection."""


class RunError(PlmscopeError):
    """A run folder that cannot be opened, written or continued."""


def shown(text: str, limit: int = 60) -> str:
    r"""A text from outside as error lines quote it: ``repr``, so nothing unprintable, and cut in its middle if long.

    >>> shown("a\x1b[31m"), shown("A" * 100_000, limit=8)
    ("'a\\x1b[31m'", "'AAAA...AAAA' (100,000 characters)")
    """
    if len(text) <= limit:
        return repr(text)
    return f"{text[: limit // 2] + '...' + text[-(limit // 2) :]!r} ({len(text):,} characters)"


def unwritten_advice(code: int | None) -> str:
    """What to do where a file cannot be written, by the system's error number; right for every command.

    >>> unwritten_advice(errno.EROFS), unwritten_advice(errno.ENOSPC)
    ('allow writing there or choose another place', 'free space there or choose another place')
    """
    forbidden = code in (errno.EACCES, errno.EPERM, errno.EROFS)
    return f"{'allow writing' if forbidden else 'free space'} there or choose another place"


def one_line(error: BaseException) -> str:
    """An exception's text as one line of at most 300 characters; its type where it has none.

    >>> one_line(ValueError("many   blanks")), one_line(ValueError())
    ('many blanks', 'ValueError')
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + " ..."


class BusyError(RunError):
    """A run folder, or a shard of it, that another process is writing."""
