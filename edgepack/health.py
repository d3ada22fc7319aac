"""What is installed, what is missing, and what that disables; and fetching what can be fetched."""

from importlib.metadata import PackageNotFoundError, version

import msgspec

from edgepack.tools import Tell, Tool, adb, arm, jdk, web

_FAMILIES = {"arm": arm, "web": web}

_PACKAGES = {
    "numpy": ("run", "everything but `targets`, `inspect` and `check --no-run`"),
    "ai-edge-litert": ("run", "running TFLite files for arm64 targets"),
    "tflite-runtime": ("run", "running TFLite files for armv7 targets"),
    "onnxruntime": ("run", "checking ONNX files on the host"),
    "playwright": ("run", "measuring in Chromium"),
    "pyarrow": ("data", "reading Parquet logs"),
    "scipy": ("data", "the baselines"),
    "tensorflow": ("build", "training, compressing and converting"),
    "tf_keras": ("build", "training, compressing and converting"),
    "tensorflow-model-optimization": ("build", "pruning and quantization-aware training"),
    "tf2onnx": ("build", "ONNX for the web targets"),
    "onnx2tf": ("build", "taking ONNX models in"),
    "jinja2": ("report", "the HTML report"),
}


def all_tools() -> list[Tool]:
    """Return the state of every package and external tool, without changing anything."""
    packages = [_package(name, extra, disables) for name, (extra, disables) in _PACKAGES.items()]
    return packages + [tool for part in (*_FAMILIES.values(), adb, jdk) for tool in part.status()]


def fetch_tools(only: str | None, tell: Tell) -> list[Tool]:
    """Fetch the external tools of one family, or of all, and return every tool's state."""
    for name, family in _FAMILIES.items():
        if only in (None, name):
            family.fetch(tell)
    return all_tools()


def render_tools(tools: list[Tool], as_json: bool) -> str:
    """Return the tools as a table, the missing ones with what they disable and the remedy, or as JSON."""
    if as_json:
        return msgspec.json.format(msgspec.json.encode(tools), indent=2).decode() + "\n"
    lines = [f"{_mark(tool)} {tool.name:32} {tool.version:14} {_state(tool)}" for tool in tools]
    missing = sum(tool.path is None and not tool.optional for tool in tools)
    lines.append("everything is there" if not missing else f"{missing} missing")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _mark(tool: Tool) -> str:
    return "✓" if tool.path else "-" if tool.optional else "✗"


def _state(tool: Tool) -> str:
    return "" if tool.path else f"missing: disables {tool.disables}. {tool.remedy}"


def _package(name: str, extra: str, disables: str) -> Tool:
    try:
        found = version(name)
    except PackageNotFoundError:
        found = ""
    return Tool(
        name=name,
        path="installed" if found else None,
        version=found,
        disables=disables,
        remedy=f"pip install 'edgepack[{extra}]'",
    )
