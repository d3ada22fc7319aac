"""The cores whose kernels the fits know: what a runtime executes when it finds itself on one of them."""

from edgepack.profiles import Cache, Emulation

V8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
V8_2 = f"{V8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
_L1 = Cache(size_bytes=32 * 1024, ways=2)


def _core(cpu: str, name: str, part: str, features: str) -> Emulation:
    # The data caches that count are those of HIERARCHIES, which are played beside these.
    return Emulation(cpu=cpu, core=name, part=part, features=features, l1i=_L1, l1d=_L1, l2=_L1)


STREAMS: dict[str, Emulation] = {
    "a72": _core("cortex-a72", "Cortex-A72", "0xd08", V8),
    "a76": _core("cortex-a76", "Cortex-A76", "0xd0b", V8_2),
}
"""One core for each kernel stream (`Device.stream`)."""
