"""Every error a user can cause, and the exit code of each.

EdgepackError
├── ConfigError    3   edgepack.toml, a profile or a budget file is wrong
├── DataError      4   an interaction log cannot be read or has nothing to learn from
├── ToolError      5   a program or package that a stage needs is missing
├── ConvertError   6   a model cannot be taken in, compressed or converted
├── MeasureError   7   a runtime or an emulator failed while measuring
├── BundleError    8   a bundle is malformed or was altered
├── TrustError     9   a bundle is not from whom it should be
└── LimitError    10   a deadline or a resource limit was hit

Exit code 1 is no error: the work was done and a budget does not hold.
"""

EXIT_WITHIN_BUDGET = 0
EXIT_NOT_WITHIN_BUDGET = 1
EXIT_USAGE = 2
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class EdgepackError(Exception):
    """A failure that the user can mend; its text is one sentence that ends with the remedy.

    `where` names the file, key, row or stage; `found` what stood there; `allowed` what may stand
    there (empty when `found` says it all); `remedy` what to do, in the imperative.
    """

    exit_code: int

    def __init__(self, where: str, found: str, *, allowed: str = "", remedy: str) -> None:
        self.where = where
        self.found = found
        self.allowed = allowed
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        facts = f"{self.found}; {self.allowed}" if self.allowed else self.found
        return f"{self.where}: {facts}. {self.remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only facts do not survive the default pickling of exceptions.
        return (_rebuild, (type(self), self.where, self.found, self.allowed, self.remedy))


def _rebuild(kind: type[EdgepackError], where: str, found: str, allowed: str, remedy: str) -> EdgepackError:
    return kind(where, found, allowed=allowed, remedy=remedy)


class ConfigError(EdgepackError):
    """A configuration file, target profile or budget is wrong."""

    exit_code = 3


class DataError(EdgepackError):
    """An interaction log cannot be read, or leaves nothing to learn from."""

    exit_code = 4


class ToolError(EdgepackError):
    """A program, package or file that a stage needs is not installed."""

    exit_code = 5


class ConvertError(EdgepackError):
    """A model cannot be taken in, compressed or converted."""

    exit_code = 6


class MeasureError(EdgepackError):
    """A runtime, browser or emulator failed while running an artifact."""

    exit_code = 7


class BundleError(EdgepackError):
    """A bundle is malformed, or its bytes are not those that its manifest names."""

    exit_code = 8


class TrustError(EdgepackError):
    """A bundle does not come from whom the caller trusts."""

    exit_code = 9


class LimitError(EdgepackError):
    """A deadline or a resource limit was hit."""

    exit_code = 10


def did_you_mean(word: str, known: list[str]) -> str:
    """Return ", did you mean 'x'?"-style text for a misspelt word, or an empty string."""
    import difflib

    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"Did you mean '{matches[0]}'? " if matches else ""
