"""The one error root, and the exit code that each kind of failure ends a command with.

A message says, in this order: what was tried, on which object, what was found, what to do next.
"""

from __future__ import annotations

from typing import Any, ClassVar


class GcpodError(Exception):
    """Base of everything gcpod raises on purpose.

    Args:
        tried: what was attempted, as a gerund phrase ("reading the spec").
        on: the object it was attempted on (a path, a gs:// URI, a job name).
        found: what was found instead of what was expected.
        fix: what the reader should do next.
        code: a finding code (``D101``, ``C204``…) or a short stable name; defaults to the class's.
    """

    code: str = "E000"
    exit_code: ClassVar[int] = 1

    def __init__(self, tried: str, on: object, found: str, fix: str, *, code: str | None = None) -> None:
        self.tried, self.on, self.found, self.fix = tried, str(on), found, fix
        if code is not None:
            self.code = code
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Whatever a kind takes to be made, it comes back as it was from another process."""
        return _revived, (type(self), self.args), self.__dict__

    @property
    def message(self) -> str:
        """The whole message on one line, without the code."""
        text = f"{self.tried} {self.on}: {self.found}; {self.fix}"
        return " ".join(text.split())

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def _revived(kind: type[GcpodError], args: tuple[Any, ...]) -> GcpodError:
    error = kind.__new__(kind)
    error.args = args
    return error


class SpecError(GcpodError):
    """gcpod.yaml, an option or an argument is wrong."""

    code = "E101"
    exit_code = 3


class DataError(GcpodError):
    """Images, annotations, label maps or records are wrong."""

    code = "E102"
    exit_code = 4


class ConfigError(GcpodError):
    """A pipeline config is wrong."""

    code = "E103"
    exit_code = 5


class PackageError(GcpodError):
    """A package cannot be fetched or built, or a job's runtime cannot be made."""

    code = "E104"
    exit_code = 6


class AuthError(GcpodError):
    """No project, no credentials, or no permission."""

    code = "E105"
    exit_code = 7


class StorageError(GcpodError):
    """A bucket or an object cannot be read or written."""

    code = "E106"
    exit_code = 8


class ServiceError(GcpodError):
    """Vertex AI or Cloud Logging refused a request or cannot be reached."""

    code = "E107"
    exit_code = 9


class JobFailedError(GcpodError):
    """A job ended in any other state than success."""

    code = "E108"
    exit_code = 10


class LocalCloudError(GcpodError):
    """The local cloud cannot start, or is not running."""

    code = "E109"
    exit_code = 11


class ChecksFailedError(GcpodError):
    """`gcpod check` or a lint found errors; each was printed as a finding before."""

    code = "E110"
    exit_code = 12


class OutageError(GcpodError):
    """A service did not answer, or said to come back later: nothing is known about the request's fate."""

    code = "J405"
    exit_code = 13


class NotFoundError(ServiceError):
    """What was asked for does not exist (any more)."""

    code = "E111"
    exit_code = 14


class DeadlineError(GcpodError):
    """The time given to wait is over; what was waited for goes on."""

    code = "E112"
    exit_code = 15
