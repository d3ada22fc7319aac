"""Device profiles (`targets/*.toml`) and budgets, read into frozen structs; a wrong key is named."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from edgepack.errors import ConfigError, did_you_mean

Platform = Literal["android-arm64", "android-armv7", "linux-arm64", "web-wasm"]


class _Checked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Budget(_Checked, frozen=True, kw_only=True):
    """Limits of one target; None means that the limit is not set.

    `max_drop` maps a ranking metric (`ndcg@10`) to the largest relative loss against the float model, on the
    mean of all test users; `max_group_drop` does so for every group of users that has at least
    `least_group_users` whom the float model serves (100 unless set). A metric of `max_drop` that
    `max_group_drop` does not name is allowed five times its limit in a group; 1.0 allows anything.
    """

    model_bytes: int | None = None
    download_bytes: int | None = None
    instructions: int | None = None
    l2_misses: int | None = None
    peak_memory_bytes: int | None = None
    latency_ms: float | None = None
    load_ms: float | None = None
    min_overlap_at_10: float | None = None
    max_drop: dict[str, float] = {}
    max_group_drop: dict[str, float] = {}
    least_group_users: int | None = None


class Cache(_Checked, frozen=True, kw_only=True):
    """Geometry of one cache: bytes, ways; lines are 64 bytes."""

    size_bytes: int
    ways: int


class Emulation(_Checked, frozen=True, kw_only=True):
    """How qemu-user plays this core.

    `cpu` is qemu's `-cpu`; `part`, `variant` and `features` go into the guest's /proc/cpuinfo, from
    which XNNPACK picks its kernels, and must describe the same core.
    """

    cpu: str
    core: str
    part: str
    variant: str = "0x0"
    features: str
    l1i: Cache
    l1d: Cache
    l2: Cache


class Browser(_Checked, frozen=True, kw_only=True):
    """The WASM engine: Chromium's main thread slowed down `cpu_throttle_rate` times (1 = not)."""

    cpu_throttle_rate: float = 1.0


class Runtime(_Checked, frozen=True, kw_only=True):
    """The pinned runtime that ships, and that is measured."""

    name: Literal["litert", "tflite-runtime", "onnxruntime-web", "litertjs"]
    version: str


class Profile(_Checked, frozen=True, kw_only=True):
    """One target device. `name` is the file's stem; `formats` are tried in the order given.

    `devices` are the calibrated devices (targets/calibration/devices.toml) that give an ARM target its
    milliseconds: one for a device, several for a tier, whose interval then spans all of them.
    """

    name: str
    description: str
    platform: Platform
    runtime: Runtime
    formats: tuple[str, ...]
    emulation: Emulation | None = None
    browser: Browser | None = None
    devices: tuple[str, ...] = ()
    budget: Budget = Budget()


_T = TypeVar("_T")


def decode_toml(path: Path, kind: type[_T], extra: dict[str, object] | None = None) -> _T:
    """Read a TOML file into a struct. Raises ConfigError naming file, key and what is allowed."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be read ({error.strerror})", remedy="Give the path of a TOML file."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"is not TOML ({error})", remedy="Mend the line it names.") from error
    return convert_table(table | (extra or {}), kind, str(path))


def convert_table(table: dict[str, object], kind: type[_T], where: str) -> _T:
    """Turn a parsed table into a struct. Raises ConfigError naming `where`, the key and what is allowed."""
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise _explained(where, str(error), kind) from error


def _explained(where: str, message: str, kind: type) -> ConfigError:
    text, _, path = message.partition(" - at `$")
    place = path.strip("`.")
    if "unknown field" not in text:
        key = place or "the file"
        return ConfigError(f"{where}: {key}", text, remedy="Correct the value.")
    word = text.split("`")[1]
    known = _fields_at(kind, place)
    key = f"{place}.{word}" if place else word
    return ConfigError(
        where,
        f"{key} is not a known key",
        allowed=f"known keys here are {', '.join(known)}" if known else "",
        remedy=f"{did_you_mean(word, known)}Correct or delete it.".replace("  ", " "),
    )


def _fields_at(kind: type, place: str) -> list[str]:
    for step in filter(None, place.split(".")):
        step = step.split("[")[0]
        if not hasattr(kind, "__struct_fields__") or step not in kind.__struct_fields__:
            return []
        kind = _struct_in(kind.__annotations__.get(step) or _inherited(kind, step))
    return list(getattr(kind, "__struct_fields__", []))


def _inherited(kind: type, field: str) -> object:
    return next(base.__annotations__[field] for base in kind.__mro__ if field in base.__annotations__)


def _struct_in(annotation: object) -> type:
    import typing

    options = (annotation, *typing.get_args(annotation))
    nested = [sub for option in options for sub in (option, *typing.get_args(option))]
    return next((option for option in nested if hasattr(option, "__struct_fields__")), type(None))


def profile_folders(own: Path | None = None) -> list[Path]:
    """Return the folders that hold profiles: the user's own first, then the ones that come along."""
    beside = Path(__file__).parent / "targets"
    shipped = beside if beside.is_dir() else Path(__file__).parent.parent / "targets"
    return [folder for folder in (own, shipped) if folder is not None]


def load_profiles(own: Path | None = None) -> dict[str, Profile]:
    """Read every profile, keyed and sorted by name; one in `own` replaces a shipped one of its name."""
    found: dict[str, Profile] = {}
    for folder in reversed(profile_folders(own)):
        for path in sorted(folder.glob("*.toml")):
            found[path.stem] = decode_toml(path, Profile, {"name": path.stem})
    return dict(sorted(found.items()))


def select_profiles(patterns: tuple[str, ...], profiles: dict[str, Profile]) -> list[Profile]:
    """Return the profiles that any glob names, sorted. Raises ConfigError for a glob that matches none."""
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in profiles):
            raise ConfigError(
                f"target '{pattern}'",
                "no profile has that name",
                allowed=f"known targets are {', '.join(profiles)}",
                remedy=f"{did_you_mean(pattern, list(profiles))}See `edgepack targets`.",
            )
    return [p for name, p in profiles.items() if any(fnmatch(name, pat) for pat in patterns)]


def merged(budget: Budget, over: Budget) -> Budget:
    """Return `budget` with every limit that `over` sets in its place; drops merge metric by metric."""
    fields = {
        name: getattr(over, name) if getattr(over, name) is not None else getattr(budget, name)
        for name in Budget.__struct_fields__
    }
    by_metric = {
        name: {**getattr(budget, name), **getattr(over, name)} for name in ("max_drop", "max_group_drop")
    }
    return Budget(**{**fields, **by_metric})
