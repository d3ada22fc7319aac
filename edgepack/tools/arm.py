"""ARM without ARM: qemu-user, ARM builds of the runtimes with what they need, our driver and plugin.

Everything lies under `home()/arm`, in parts that are fetched or built on their own:

- `qemu`    Debian 12's dynamic qemu-user 7.2, unless the host has a 7.x that takes plugins (later Debian
            builds are static and do not)
- `arm64`   Debian 12's C and C++ libraries, and LiteRT's C library from its aarch64 wheel
- `armhf`   the same with CPython and NumPy, and the armv7l wheel of tflite-runtime
- `native`  `driver` (aarch64) and `counter.so` (host), built from `edgepack/runtimes/native`

and, for calibration only, what `edgepack calibrate` fetches when it counts anew:

- `python-arm64`    CPython for arm64
- `ncnn-VERSION`    an aarch64 wheel of ncnn each
"""

import functools
import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from edgepack import proc
from edgepack.errors import ToolError
from edgepack.store import digest_of, sha256_of, write_atomic
from edgepack.tools import Tell, Tool, debian, home

LITERT_VERSION = "1.4.0"
TFLITE_RUNTIME_VERSION = "2.14.0"
LIBRARY_FOLDER = {"arm64": "usr/lib/aarch64-linux-gnu", "armhf": "usr/lib/arm-linux-gnueabihf"}

_Words = list[str | Path]

_REMEDY = "Run `edgepack setup`."
_NO_APT = (
    "Check the network and run `edgepack setup` again; ARM emulation is set up on Debian 12 or a kin "
    "with apt (README, supported hosts)."
)
_NATIVE_SOURCES = Path(__file__).parent.parent / "runtimes" / "native"
_RECORD = "part.json"

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_APT_SOURCE = f"deb [signed-by={_KEYRING}] http://deb.debian.org/debian bookworm main\n"
_QEMU_PACKAGES = ("qemu-user", "libcapstone4", "libnuma1", "liburing2", "libglib2.0-0", "libgnutls30")
_C_PACKAGES = ("libc6", "libgcc-s1", "libstdc++6")
_PYTHON_PACKAGES = (
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "zlib1g",
    "libexpat1",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
    "libssl3",
)
_NUMPY_PACKAGES = ("python3-numpy", "libblas3", "liblapack3", "libgfortran5")


class Wheel(NamedTuple):
    """A wheel for another machine, pinned by its hash; `members` are what is taken out of it."""

    requirement: str
    platform: str
    sha256: str
    members: str


_LITERT_WHEEL = Wheel(
    f"ai-edge-litert=={LITERT_VERSION}",
    "manylinux_2_17_aarch64",
    "131d1c12dedc0c45aa683106d71ea895117c2332b0efb52712965f8b5e63781d",
    "ai_edge_litert/libLiteRtRuntimeCApi.so",
)
_TFLITE_WHEEL = Wheel(
    f"tflite-runtime=={TFLITE_RUNTIME_VERSION}",
    "manylinux_2_34_armv7l",
    "c4e66a74165b18089c86788400af19fa551768ac782d231a9beae2f6434f7949",
    "tflite_runtime/",
)


def _ncnn(version: str, platform: str, sha256: str) -> Wheel:
    return Wheel(f"ncnn=={version}", platform, sha256, "ncnn")


NCNN_WHEELS = {
    wheel.requirement.partition("==")[2]: wheel
    for wheel in (
        _ncnn(
            "1.0.20221128",
            "manylinux2014_aarch64",
            "3e6af099c9f3814279ab3d7428bdb9e242c1f002335b6f9b64431565e8fbbceb",
        ),
        _ncnn(
            "1.0.20230816",
            "manylinux2014_aarch64",
            "0b6b70d2d5102acec73faa12c88e5fd66b72b3bd975ff5f83c900adf725036c7",
        ),
        _ncnn(
            "1.0.20240820",
            "manylinux2014_aarch64",
            "27b85871597ed6ae1093a305360097585edbfedbaa21edd87b2adb5acfc893a8",
        ),
        _ncnn(
            "1.0.20260114",
            "manylinux_2_28_aarch64",
            "e9cad63668484596614f70f37a31eb201f9db5b5eb0ebc190bd9c8a979c7030d",
        ),
    )
}


class Qemu(NamedTuple):
    """The emulators; `libraries` is put into LD_LIBRARY_PATH when they are not the host's own."""

    aarch64: Path
    arm: Path
    version: str
    libraries: Path | None


class Located(NamedTuple):
    """Everything that an emulated run needs."""

    qemu: Qemu
    arm64: Path
    armhf: Path
    driver: Path
    counter: Path


def locate() -> Located:
    """Return the paths of all parts. Raises ToolError naming the first one that is missing or outdated."""
    qemu = find_qemu()
    if qemu is None:
        raise ToolError("qemu-user", "no 7.x build of it that takes plugins was found", remedy=_REMEDY)
    for name in PARTS:
        if not _is_current(name):
            raise ToolError(f"ARM emulation, part `{name}`", "is not installed", remedy=_REMEDY)
    root = _root()
    native = root / "native"
    return Located(qemu, root / "arm64", root / "armhf", native / "driver", native / "counter.so")


def status() -> list[Tool]:
    """Return what is there of the parts, without side effects."""
    qemu = find_qemu()
    disables = "every ARM target"
    tools = [
        Tool(
            name="qemu-user",
            path=str(qemu.aarch64) if qemu else None,
            version=qemu.version if qemu else "",
            disables=disables,
            remedy=_REMEDY,
        )
    ]
    parts = {
        "arm64": ("LiteRT for aarch64", LITERT_VERSION, "the arm64 targets"),
        "armhf": ("tflite-runtime for armv7", TFLITE_RUNTIME_VERSION, "the armv7 targets"),
        "native": ("ARM driver and counting plugin", "", disables),
    }
    for part, (name, version, without) in parts.items():
        path = str(_root() / part) if _is_current(part) else None
        tools.append(Tool(name=name, path=path, version=version, disables=without, remedy=_REMEDY))
    return tools


def fetch(tell: Tell) -> None:
    """Bring every part that is missing; a killed fetch goes on from its last finished part.

    Raises ToolError when a package cannot be downloaded or built, LimitError after a quarter of an hour.
    """
    _fetch(PARTS, tell)
    _host_qemu.cache_clear()


def fetch_ncnn(tell: Tell) -> None:
    """Bring Python and every ncnn for aarch64 that are missing; raises as `fetch`."""
    _fetch(CALIBRATION_PARTS, tell)


def locate_ncnn(version: str) -> tuple[Path, Path]:
    """Return the folders of an emulated Python and of ncnn `version`, one of NCNN_WHEELS.

    Raises ToolError when one is missing.
    """
    for name in ("python-arm64", f"ncnn-{version}"):
        if not _is_current(name):
            raise ToolError(name, "is not installed", remedy="Run `edgepack calibrate --params DIR`.")
    return _root() / "python-arm64", _root() / f"ncnn-{version}"


def _fetch(parts: "dict[str, Part]", tell: Tell) -> None:
    _root().mkdir(parents=True, exist_ok=True)
    with FileLock(_root() / ".lock"):
        for done, (name, part) in enumerate(parts.items()):
            tell(f"ARM emulation: {name}", done, len(parts))
            if not _is_current(name):
                _make(name, part)
        tell("ARM emulation", len(parts), len(parts))


def find_qemu() -> Qemu | None:
    """Return the host's qemu-user 7.x if it takes plugins, else the fetched one, else None."""
    return _host_qemu() or _fetched_qemu()


# --- parts --------------------------------------------------------------------------------------------------


def _root() -> Path:
    return home() / "arm"


def _make(name: str, part: "Part") -> None:
    final, work = _root() / name, _root() / f"{name}.work"
    work.mkdir(exist_ok=True)
    record = {"key": part.key(), "parts": part.make(work)}
    write_atomic(work / _RECORD, json.dumps(record, indent=1, sort_keys=True).encode())
    shutil.rmtree(final, ignore_errors=True)
    work.rename(final)


def _is_current(name: str) -> bool:
    if name == "qemu" and _host_qemu() is not None:
        return True
    try:
        record = json.loads((_root() / name / _RECORD).read_bytes())
    except (OSError, ValueError):
        return False
    return bool(record.get("key") == (PARTS | CALIBRATION_PARTS)[name].key())


def _make_qemu(work: Path) -> dict[str, str]:
    return _unpack_packages([f"{name}:amd64" for name in _QEMU_PACKAGES], work)


def _make_arm64(work: Path) -> dict[str, str]:
    made = _unpack_packages([f"{name}:arm64" for name in _C_PACKAGES], work)
    made |= _unpack_wheel(_LITERT_WHEEL, work)
    library = work / _LITERT_WHEEL.members
    # In the loader's own search path the guest needs no LD_LIBRARY_PATH, which would lengthen its stack.
    library.rename(work / LIBRARY_FOLDER["arm64"] / library.name)
    library.parent.rmdir()
    return made


def _make_armhf(work: Path) -> dict[str, str]:
    made = _unpack_packages(
        [f"{name}:armhf" for name in (*_C_PACKAGES, *_PYTHON_PACKAGES, *_NUMPY_PACKAGES)], work
    )
    folder = work / LIBRARY_FOLDER["armhf"]
    for name in ("blas", "lapack"):  # else linked by the alternatives system when the package is configured
        link = folder / f"lib{name}.so.3"
        link.unlink(missing_ok=True)
        link.symlink_to(f"{name}/lib{name}.so.3")
    made |= _unpack_wheel(_TFLITE_WHEEL, work)
    package = work / _TFLITE_WHEEL.members
    packages = work / "usr/lib/python3/dist-packages" / package.name
    shutil.rmtree(packages, ignore_errors=True)
    package.rename(packages)
    return made


def _make_python(work: Path) -> dict[str, str]:
    return _unpack_packages([f"{name}:arm64" for name in (*_C_PACKAGES, *_PYTHON_PACKAGES)], work)


def _make_native(work: Path) -> dict[str, str]:
    library = _root() / "arm64" / LIBRARY_FOLDER["arm64"] / "libLiteRtRuntimeCApi.so"
    driver: _Words = [_NATIVE_SOURCES / "driver.c", library, "-rdynamic", "-Wl,--allow-shlib-undefined"]
    cross: list[_Words] = [[*_zig(), "-target", "aarch64-linux-gnu.2.30"], ["aarch64-linux-gnu-gcc"]]
    _compile(cross, driver, work / "driver")
    plugin: _Words = ["-shared", "-fPIC", "-fvisibility=hidden", _NATIVE_SOURCES / "counter.c"]
    _compile([["cc"], ["gcc"], _zig()], plugin, work / "counter.so")
    return {name: sha256_of(work / name) for name in ("driver", "counter.so")}


def _unpack_wheel(wheel: Wheel, work: Path) -> dict[str, str]:
    folder = work / ".wheels"
    pin = ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--abi=cp311"]
    argv = [*_pip(), "download", "-q", "--no-deps", *pin, f"--platform={wheel.platform}", "-d", folder]
    _must([*argv, wheel.requirement])
    path = next(folder.glob("*.whl"))
    found = sha256_of(path)
    if found != wheel.sha256:
        raise ToolError(
            path.name,
            f"its SHA-256 is {found}",
            allowed=f"the published file has {wheel.sha256}",
            remedy="Point pip at an index that serves the published file.",
        )
    with zipfile.ZipFile(path) as archive:
        archive.extractall(work, [name for name in archive.namelist() if name.startswith(wheel.members)])
    shutil.rmtree(folder)
    return {path.name: found}


class Part(NamedTuple):
    """How a part is made, and the digest of what it is made from."""

    make: Callable[[Path], dict[str, str]]
    key: Callable[[], str]


def _native_key() -> str:
    sources = {path.name: sha256_of(path) for path in sorted(_NATIVE_SOURCES.glob("*.c"))}
    return digest_of({"sources": sources, "litert": _LITERT_WHEEL.sha256})


PARTS: dict[str, Part] = {
    "qemu": Part(_make_qemu, lambda: digest_of(_QEMU_PACKAGES)),
    "arm64": Part(_make_arm64, lambda: digest_of([_C_PACKAGES, _LITERT_WHEEL])),
    "armhf": Part(
        _make_armhf, lambda: digest_of([_C_PACKAGES, _PYTHON_PACKAGES + _NUMPY_PACKAGES, _TFLITE_WHEEL])
    ),
    "native": Part(_make_native, _native_key),
}


CALIBRATION_PARTS: dict[str, Part] = {
    "python-arm64": Part(_make_python, lambda: digest_of([_C_PACKAGES, _PYTHON_PACKAGES])),
    **{
        f"ncnn-{version}": Part(partial(_unpack_wheel, wheel), partial(digest_of, wheel))
        for version, wheel in NCNN_WHEELS.items()
    },
}


# --- qemu ---------------------------------------------------------------------------------------------------


@functools.cache
def _host_qemu() -> Qemu | None:
    found = [shutil.which(name) for name in ("qemu-aarch64", "qemu-arm")]
    return _usable(Path(found[0]), Path(found[1]), None) if found[0] and found[1] else None


def _fetched_qemu() -> Qemu | None:
    base = _root() / "qemu" / "usr"
    return _usable(base / "bin/qemu-aarch64", base / "bin/qemu-arm", base / "lib/x86_64-linux-gnu")


def _usable(aarch64: Path, arm: Path, libraries: Path | None) -> Qemu | None:
    if not (aarch64.is_file() and arm.is_file()):
        return None
    env = {"LD_LIBRARY_PATH": str(libraries)} if libraries else None
    words = proc.run([aarch64, "--version"], deadline_s=30, env=env).stdout.decode().split()
    version = words[2] if len(words) > 2 else ""
    refusal = proc.run([aarch64, "-plugin", "file=/nowhere", "/nowhere"], deadline_s=30, env=env).stderr_tail
    takes_plugins = "unknown option" not in refusal
    return Qemu(aarch64, arm, version, libraries) if version.startswith("7.") and takes_plugins else None


# --- downloads and compilers --------------------------------------------------------------------------------


def _unpack_packages(packages: list[str], work: Path) -> dict[str, str]:
    state = work / ".apt"
    options: dict[str, str | Path] = {
        "Dir::Etc::SourceList": state / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::status": "/dev/null",
        "APT::Architectures": "amd64,arm64,armhf",
    }
    begin, downloads = debian.apt(state, options), state / "archives"
    write_atomic(state / "sources.list", _APT_SOURCE.encode())
    _must([*begin, "update"])
    _must([*begin, "download", *packages], downloads)
    hashes = debian.unpack(downloads, work, _NO_APT)
    shutil.rmtree(state)
    return hashes


def _pip() -> _Words:
    from importlib.util import find_spec

    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    uv = shutil.which("uv")
    if uv is None:
        raise ToolError("pip", "is not installed", remedy="Run `python -m ensurepip`.")
    return [uv, "tool", "run", "pip"]


def _zig() -> _Words:
    return [sys.executable, "-m", "ziglang", "cc"]


def _compile(compilers: list[_Words], words: _Words, target: Path) -> None:
    """Build `target` with the first compiler that can; raise what the first of them said when none does."""
    failures = []
    for compiler in compilers:
        if shutil.which(compiler[0]) is None:
            continue
        cache = {"ZIG_GLOBAL_CACHE_DIR": str(target.parent / ".zig")}
        done = proc.run([*compiler, "-O2", *words, "-o", target], deadline_s=debian.DEADLINE_S, env=cache)
        shutil.rmtree(target.parent / ".zig", ignore_errors=True)
        if done.returncode == 0:
            return
        failures.append((done.stderr_tail.splitlines() or ["it said nothing"])[-1])
    raise ToolError(
        "a C compiler",
        f"{target.name} cannot be built ({failures[0] if failures else 'none is installed'})",
        remedy="Install edgepack with the extra `build`, which brings one (ziglang).",
    )


def _must(argv: _Words, cwd: Path | None = None) -> None:
    proc.must(argv, deadline_s=debian.DEADLINE_S, cwd=cwd, remedy=_NO_APT)
