"""The views of one build: terminal text, Markdown, JUnit, JSON and a one-file HTML page."""

import msgspec

from edgepack.errors import BundleError
from edgepack.results import BuildResult


def to_json(result: BuildResult) -> bytes:
    """Return the whole result as indented UTF-8 JSON, with a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"


def from_json(document: bytes, where: str = "result.json") -> BuildResult:
    """Read what `to_json` wrote; `where` names the file in errors.

    Raises BundleError when the bytes are not JSON or not a build's result.
    """
    try:
        return msgspec.json.decode(document, type=BuildResult)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(
            where,
            f"is not the result of a build ({error})",
            remedy="Give the JSON file that `edgepack build` wrote.",
        ) from error
