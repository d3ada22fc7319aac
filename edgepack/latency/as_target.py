"""A real device as a target: the profile of its tier, on its own core and caches."""

from pathlib import Path
from typing import NamedTuple

import msgspec

from edgepack.errors import ConfigError, did_you_mean
from edgepack.latency.devices import Device, Kind, load_devices
from edgepack.latency.streams import V8, V8_2
from edgepack.profiles import Cache, Emulation, Profile, load_profiles, select_profiles

_KIB = 1024
_TIERS: dict[Kind, str] = {
    "in-order-a53": "android-arm64-low",
    "in-order-a55": "android-arm64-low",
    "ooo-a57": "android-arm64-mid",
    "custom": "android-arm64-mid",
    "ooo-a76": "android-arm64-high",
    "ooo-x": "android-arm64-high",
    "armv7": "android-armv7",
}


class _Identity(NamedTuple):
    """What /proc/cpuinfo says of a core, from which XNNPACK picks its kernels."""

    core: str
    part: str
    features: str
    variant: str = "0x0"


_BY_CPU = {
    "cortex-a53": _Identity("Cortex-A53", "0xd03", V8),
    "cortex-a57": _Identity("Cortex-A57", "0xd07", V8),
    "cortex-a72": _Identity("Cortex-A72", "0xd08", V8),
    "cortex-a76": _Identity("Cortex-A76", "0xd0b", V8_2),
    "neoverse-n1": _Identity("Neoverse-N1", "0xd0c", V8_2),
}
# Cores that qemu lacks and XNNPACK knows: another executes the very kernels that they would choose. An A55
# has dot products from its first revision on.
_BY_CORE = {
    "Cortex-A55": _Identity("Cortex-A55", "0xd05", V8_2, "0x1"),
    "Cortex-A73": _Identity("Cortex-A73", "0xd09", V8),
}


def named_profiles(patterns: tuple[str, ...], own: Path | None = None) -> list[Profile]:
    """Return the targets that any pattern names, sorted: globs of profiles, and devices by their whole name.

    A profile of that name comes before a device. Raises ConfigError for a pattern that names nothing.
    """
    profiles, devices = load_profiles(own), load_devices()
    asked = [pattern for pattern in patterns if pattern not in profiles and pattern in devices]
    known = profiles | {name: as_target(devices[name], profiles) for name in asked}
    for pattern in patterns:
        if pattern not in known and not any(sign in pattern for sign in "*?["):
            raise ConfigError(
                f"target '{pattern}'",
                "no profile and no device has that name",
                allowed=f"known targets are {', '.join(profiles)}, and {len(devices)} devices",
                remedy=f"{did_you_mean(pattern, [*profiles, *devices])}See `edgepack targets --devices`.",
            )
    return select_profiles(patterns, known)


def as_target(device: Device, profiles: dict[str, Profile]) -> Profile:
    """Return a profile for one device: formats, runtime and budget of its tier in `profiles`."""
    tier = profiles["android-armv7" if device.isa == "armv7" else _TIERS[device.kind]]
    assert tier.emulation is not None  # noqa: S101  every ARM tier names its core
    identity = _identity(device, tier.emulation)
    stands_in = "" if identity.core == device.core else f"; {identity.core} stands in for it"
    return msgspec.structs.replace(
        tier,
        name=device.name,
        description=f"{device.description}: {device.core}, {device.clock_mhz / 1000:g} GHz{stands_in}",
        devices=(device.name,),
        emulation=Emulation(
            cpu=device.emulated_as,
            core=identity.core,
            part=identity.part,
            variant=identity.variant,
            features=identity.features,
            l1i=tier.emulation.l1i,
            l1d=Cache(size_bytes=device.l1d_kib * _KIB, ways=4),
            l2=Cache(size_bytes=device.llc_kib * _KIB, ways=16),
        ),
    )


def _identity(device: Device, tier: Emulation) -> _Identity:
    if device.isa == "armv7":
        return _Identity(tier.core, tier.part, tier.features, tier.variant)
    return _BY_CORE.get(device.core) or _BY_CPU[device.emulated_as]
