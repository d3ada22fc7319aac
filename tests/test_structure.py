"""The architecture, held true: import layers, walls, exit codes, what loads when."""

import ast
import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from platform import python_version

import pytest
from packaging.specifiers import SpecifierSet

from edgepack import errors

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edgepack"

# Rooms import from lower floors only, never from their own; a floor is what stands on one line.
FLOORS = [
    {"errors"},
    {"config", "profiles", "results", "rows"},
    {"store", "proc", "keras2", "budget", "ranges", "levels"},
    {"tools"},
    {"data", "models", "runtimes"},
    {"evaluate", "bundle", "latency", "control"},
    {"train", "compress", "convert", "measure", "calibrate", "embed", "report"},
    {"stages", "health", "terminal", "checking"},
    {"ship", "measuring", "calibrating", "planning", "advising", "embedding"},
    {"build"},
    {"cli"},
    {"__main__", "__init__"},  # the package's own names are only looked up when asked for
]
# `config` builds on `profiles`; quantization-aware training is training with the graph wrapped.
ALLOWED_SIDEWAYS = {
    ("config", "profiles"),
    ("profiles", "results"),
    ("compress", "train"),
    ("budget", "store"),
}
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}


def sources() -> list[Path]:
    return sorted([*PACKAGE.rglob("*.py"), *(ROOT / "models").glob("*.py")])


def room_of(path: Path) -> str:
    if path.is_relative_to(ROOT / "models"):
        return "models"
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def rooms_imported(path: Path) -> set[str]:
    parts = [name.split(".") for name in imports_of(path) if name.startswith("edgepack.")]
    return {part[1] for part in parts if part[1] in LEVEL}


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in sources()} <= set(LEVEL)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downwards(path: Path) -> None:
    room = room_of(path)
    wrong = {
        other
        for other in rooms_imported(path) - {room}
        if LEVEL[other] >= LEVEL[room] and (room, other) not in ALLOWED_SIDEWAYS
    }
    assert not wrong


@pytest.mark.parametrize(
    ("package", "home"),
    [
        ("click", {"cli"}),
        ("subprocess", {"proc"}),
        ("tensorflow_model_optimization", {"compress"}),
        ("tensorflow", {"keras2"}),
        ("tf_keras", {"keras2"}),
    ],
)
def test_walls_hold(package: str, home: set[str]) -> None:
    guests = {room_of(p) for p in sources() if any(n.split(".")[0] == package for n in imports_of(p))}
    assert guests <= home


@pytest.mark.parametrize("module", ["steps", "prune", "qat", "schemes"])
def test_compressing_finds_the_keras_2_switch_set_before_tensorflow_loads(module: str) -> None:
    code = f"import os, edgepack.compress.{module}; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "CUDA_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=plain
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_exit_codes_are_unique_and_listed_in_the_readme() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.EdgepackError)]
    codes = [kind.exit_code for kind in kinds if kind is not errors.EdgepackError]
    assert len(set(codes)) == len(codes) == 8
    readme = (ROOT / "README.md").read_text()
    for code in [0, 1, 2, *codes, 70, 130, 143]:
        assert f"| {code} |" in readme


@pytest.mark.parametrize(
    "command", [["--help"], ["build", "--help"], ["targets"], ["targets", "--devices"], ["check", "--help"]]
)
def test_light_commands_load_no_tensorflow(command: list[str]) -> None:
    code = (
        "import sys\nfrom edgepack import cli\n"
        f"cli.cli.main({command!r}, standalone_mode=False)\n"
        "heavy = {'tensorflow', 'numpy', 'onnx', 'onnxruntime', 'ai_edge_litert'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_package_that_is_not_installed_is_named_with_what_brings_it() -> None:
    code = (
        "import sys\nsys.modules['scipy'] = None\nsys.argv = ['edgepack', 'calibrate']\n"
        "from edgepack.cli import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == errors.ToolError.exit_code
    assert done.stderr.startswith("edgepack: scipy is not installed; this command needs it.")
    assert "Traceback" not in done.stderr


def test_every_installed_package_takes_this_python() -> None:
    # uv installs what says that it is not for this Python, pip refuses it: both must get the same set.
    installed = list(distributions())
    wrong = []
    for package in installed:
        asked = package.metadata.get("Requires-Python")
        if asked and python_version() not in SpecifierSet(asked):
            wrong.append(f"{package.name} {package.version} asks for Python {asked}")
    assert len(installed) > 20
    assert not wrong
