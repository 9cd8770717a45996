"""Every error that Pairmill raises on purpose.

    PairmillError
    ├── InputError        the user's input is wrong; nothing was written            (exit code 2)
    │   ├── SpecError     a YAML file: names the file, the line, what is allowed
    │   └── SourceError   a source table, folder or shard cannot be read as asked
    └── RunError          the run could not go on; what is committed stays          (exit code 1)
        ├── StoreError    the store is damaged, newer than this program, or full
        └── PartError     a part could not be finished, with the part's name

A message says where, what is wrong, what exists, and what to do. `assert` is for our own mistakes.
"""


class PairmillError(Exception):
    """What the command line prints without a traceback."""

    exit_code = 1


class InputError(PairmillError):
    """The user's input is wrong; nothing was written."""

    exit_code = 2


class SpecError(InputError):
    """A YAML file cannot be read as a specification."""


class SourceError(InputError):
    """A source cannot be read as asked."""


class RunError(PairmillError):
    """The run could not go on; what is committed stays."""


class StoreError(RunError):
    """The store is damaged, written by a newer program, or full."""


class PartError(RunError):
    """A part could not be finished."""
