"""The exceptions that stand for what the user can mend: one clear line, never a traceback."""

import errno
import os

# What the system says where nothing can be written: full, over a quota or a limit, read-only.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
# What it says where a file system was mounted without locks, as some of clusters are: work goes on
# there without one, for no work at all would be worse.
NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK})


class UserError(ValueError):
    """A mistake of the user; status is what a command exits with."""

    status = 2


class NotNowError(UserError):
    """No mistake, but a folder in use or a full disk: the same command works later."""

    status = 1


def unwritable(name: str, directory: str | os.PathLike, error: OSError) -> UserError:
    """What to raise where a folder cannot be written; name: what gives it, such as `model_dir`."""
    kind = NotNowError if error.errno in NO_ROOM else UserError
    return kind(f"{name}: cannot write to {os.fspath(directory)} ({error})")
