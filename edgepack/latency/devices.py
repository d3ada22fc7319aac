"""The devices that people name, and the facts about the one core on which a single thread runs there."""

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from edgepack.errors import ConfigError, did_you_mean

Kind = Literal["in-order-a53", "in-order-a55", "ooo-a57", "ooo-a76", "ooo-x", "custom", "armv7"]


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device. `board`, `isa` and `powersave` are its key in the published table; `kind` groups cores
    that should time alike; `llc_kib` is the last cache of the core's cluster; `source` says where each fact
    is from. `stands_in` is true where `emulated_as` is another core than the device's. `half_floats` is true
    for a core that computes in them but has no dot products (those with dot products all do).
    """

    name: str
    board: str
    powersave: int
    isa: Literal["aarch64", "armv7"]
    description: str
    core: str
    kind: Kind
    clock_mhz: int
    dotprod: bool
    i8mm: bool
    l1d_kib: int
    l2_kib: int
    llc_kib: int
    emulated_as: str
    stands_in: bool
    source: dict[str, str]
    marketing: str = ""
    rows: bool = True
    half_floats: bool = False

    @property
    def stream(self) -> str:
        """Return the kernel stream whose counts tell this core's time: the plain one of its instruction set.

        Since 2023 ncnn has kernels of their own for the in-order Cortex-A53 and A55, with up to twice the
        instructions, most of which pair with a multiplication at no cost: weights learnt from their counts on
        one board do not carry over to another.
        """
        return "a76" if self.dotprod or self.half_floats else "a72"


class _File(msgspec.Struct, frozen=True):
    device: tuple[Device, ...]


def calibration_folder() -> Path:
    """Return the folder of devices, published figures, counts and the fitted model."""
    package = Path(__file__).parents[1]
    beside = package / "targets"
    return (beside if beside.is_dir() else package.parent / "targets") / "calibration"


OWN = Path("devices")
"""Where devices of one's own lie unless told otherwise: a folder of the working folder."""


def load_devices(own: Path | None = OWN) -> dict[str, Device]:
    """Return every known device by its name, and those of the folder `own` if there is one.

    Raises ConfigError for a file of one's own with a device that is none.
    """
    known = _devices_of(calibration_folder() / "devices.toml")
    return known | (own_devices(own) if own is not None else {})


def own_devices(folder: Path) -> dict[str, Device]:
    """Return the devices in the TOML files of a folder by name; files without a `[[device]]` are not ours."""
    return {
        name: device for file in sorted(folder.glob("*.toml")) for name, device in _devices_of(file).items()
    }


def _devices_of(file: Path) -> dict[str, Device]:
    try:
        table = tomllib.loads(file.read_text("utf-8"))
        devices = msgspec.convert(table, _File).device if "device" in table else ()
        return {device.name: device for device in devices}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        remedy = "Delete it, or write it with `edgepack calibrate device`."
        raise ConfigError(str(file), f"is not a file of devices ({error})", remedy=remedy) from error


def device_named(name: str, own: Path | None = OWN) -> Device:
    """Return a device. Raises ConfigError for a name that is not known."""
    known = load_devices(own)
    if name in known:
        return known[name]
    raise ConfigError(
        f"device '{name}'",
        "is not known",
        allowed=f"known are {', '.join(sorted(known))}",
        remedy=f"{did_you_mean(name, list(known))}Name one of them.",
    )
