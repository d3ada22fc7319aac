"""What a runtime says when a model needs an operator that it has not got."""

import re

from edgepack.errors import MeasureError

_LACKING = (
    r"unresolved custom op: (?P<name>[\w.]+?)\.?\s",
    r"Node number \d+ \((?P<name>Flex\w+)\) failed to prepare",
    r"Didn't find op for builtin opcode '(?P<name>\w+)' version '(?P<version>\d+)'",
    r"(?P<name>[\w.:]+)\(-?\d+\) is not a registered function/op",
    r"No Op registered for (?P<name>\w+) with domain_version of (?P<version>\d+)",
)


def lacking_operator(where: str, said: str) -> MeasureError | None:
    """Return the error for a model with an operator that the runtime lacks, None when `said` tells of none.

    `said` is what LiteRT, tflite-runtime or onnxruntime wrote.
    """
    for pattern in _LACKING:
        found = re.search(pattern, said)
        if found:
            version = found.groupdict().get("version")
            name = f"{found['name']} in version {version}" if version else found["name"]
            return MeasureError(
                where,
                f"the runtime has no operator {name}",
                remedy="Replace the layer that needs it with built-in operators and convert again.",
            )
    return None
