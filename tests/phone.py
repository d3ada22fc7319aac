"""A phone without a phone: a real adbd, a real adb, and our qemu for a processor.

The adbd is Debian 13's, unpacked with the libraries and the shell that it needs into a folder that it sees as
its root (`chroot`); the adb is the host's own, with a server of its own on a socket of its own. What Android
would say of itself (`getprop`, `dumpsys`, cpufreq, /proc/cpuinfo) are files and two scripts here. aarch64
programs cannot run on this computer, so tests/data/phone.c hands them to the emulator that edgepack installs.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from edgepack import proc
from edgepack.store import write_atomic
from edgepack.tools import arm, debian, home

PACKAGES = ("adbd", "busybox-static", "dash")
SOURCE = arm._APT_SOURCE.replace("bookworm", "trixie")
COMMANDS = ("cat", "cut", "find", "grep", "mkdir", "rm", "sed", "sleep")
LIBRARIES = Path("usr/lib/x86_64-linux-gnu")
SHIM = Path(__file__).parent / "data" / "phone.c"
PATIENCE_S = 10.0
PROCESSORS = os.cpu_count() or 1
"""The phone has as many as this computer, for its threads run on ours."""

PROPERTIES = """\
ro.product.cpu.abi=arm64-v8a
ro.product.manufacturer=Fairphone
ro.product.model=FP4
ro.soc.model=SM7225
ro.build.version.release=13
"""
CORE = """\
processor\t: {index}
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 0

"""
RUN_ARM64 = """#!/bin/sh
exec /qemu/loader --library-path /qemu /qemu/qemu-aarch64 -cpu cortex-a76 \\
  -U LD_PRELOAD -U LD_LIBRARY_PATH "$@"
"""


class Phone(NamedTuple):
    """A running adbd: `root` is the device's /, `environment` makes adb talk to its server."""

    root: Path
    port: int
    environment: dict[str, str]

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    def adb(self, *words: str | Path) -> str:
        environment = {**os.environ, **self.environment}
        done = subprocess.run(["adb", *words], env=environment, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def left_behind(self) -> list[str]:
        """Return what edgepack left in the folder where it works."""
        return sorted(path.name for path in (self.root / "data/local/tmp").iterdir())


def what_is_missing() -> str:
    """Return why there can be no phone here, "" if there can."""
    for program in ("adb", "apt-get", "dpkg", "cc"):
        if shutil.which(program) is None:
            return f"{program} is missing"
    missing = next((tool for tool in arm.status() if tool.path is None), None)
    if missing:
        return f"{missing.name} is missing: {missing.remedy}"
    done = subprocess.run([*_as_root(), "chroot", "/", "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "chroot is not allowed here, with user namespaces neither"


def _as_root() -> list[str]:
    return [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]


def unpacked() -> Path:
    """Return the folder of the unpacked packages, fetched once."""
    final = home() / "test-phone"
    if final.exists():
        return final
    home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home()) as scratch:
        state, root = Path(scratch) / "apt", Path(scratch) / "root"
        options: dict[str, str | Path] = {
            "Dir::Etc::SourceList": state / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::status": "/dev/null",
        }
        begin = debian.apt(state, options)
        write_atomic(state / "sources.list", SOURCE.encode())
        wanted = ["install", "-y", "--no-install-recommends", "--download-only", *PACKAGES]
        for words in (["update"], wanted):
            proc.must([*begin, *words], deadline_s=debian.DEADLINE_S, remedy="Check the network.")
        root.mkdir()
        debian.unpack(state / "archives", root, "Free some space.")
        root.rename(final)
    return final


def make(root: Path) -> None:
    """Lay out the device's file system."""
    shutil.copytree(unpacked(), root, symlinks=True, ignore=shutil.ignore_patterns("gconv", "doc", "locale"))
    for name in ("bin", "sbin", "lib", "lib64"):
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for name in COMMANDS:
        (root / "usr/bin" / name).symlink_to("busybox")
    (root / "usr/bin/sh").unlink(missing_ok=True)
    (root / "usr/bin/sh").symlink_to("dash")
    texts = {
        "dev/null": "",
        "system/build.prop": PROPERTIES,
        "system/dumpsys/battery": "Current Battery Service state:\n  level: 80\n  scale: 100\n",
        "system/dumpsys/thermalservice": "IsStatusOverride: false\nThermal Status: 0\n",
        "proc/cpuinfo": "".join(CORE.format(index=index) for index in range(PROCESSORS)),
        "data/local/tmp/.keep": "",
    }
    texts |= {f"sys/devices/system/cpu/{name}": f"0-{PROCESSORS - 1}\n" for name in ("possible", "present")}
    for index in range(PROCESSORS):
        folder = f"sys/devices/system/cpu/cpu{index}/cpufreq"
        texts |= {f"{folder}/scaling_governor": "schedutil\n", f"{folder}/scaling_max_freq": "2208000\n"}
    programs = {
        "usr/bin/getprop": '#!/bin/sh\nsed -n "s/^$1=//p" /system/build.prop\n',
        "usr/bin/dumpsys": '#!/bin/sh\ncat "/system/dumpsys/$1"\n',
        "system/bin/run-arm64": RUN_ARM64,
    }
    for name, text in (texts | programs).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        (root / name).chmod(0o755 if name in programs else 0o644)
    (root / "data/local/tmp/.keep").unlink()
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", SHIM, "-o", root / "phone.so"], check=True)
    _bring_qemu(root / "qemu")


def _bring_qemu(folder: Path) -> None:
    """Copy the emulator with its libraries and its loader, which the chroot would hide."""
    qemu = arm.locate().qemu
    folder.mkdir()
    shutil.copy(qemu.aarch64, folder / "qemu-aarch64")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(qemu.libraries or "")}
    listed = subprocess.run(
        ["ldd", qemu.aarch64], env=environment, capture_output=True, text=True, check=True
    )
    for line in listed.stdout.splitlines():
        words = line.replace("=>", "").split()
        path = next((word for word in words if word.startswith("/")), None)
        if path:
            name = "loader" if "ld-linux" in path else words[0]
            shutil.copy(path, folder / name)


@contextmanager
def switched_on() -> Iterator[Phone]:
    """Start adbd and an adb server that is connected to it, and stop both."""
    with tempfile.TemporaryDirectory(prefix="phone-") as scratch:
        root, here = Path(scratch) / "root", Path(scratch)
        make(root)
        phone = Phone(root, free_port(), {"ADB_SERVER_SOCKET": f"localfilesystem:{here}/adb.sock"})
        words = ["adb", "-L", phone.environment["ADB_SERVER_SOCKET"], "server", "nodaemon"]
        # The server writes its key into the home folder.
        with started(words, here / "server.log", {**os.environ, "HOME": scratch}), daemon(phone):
            yield phone


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def daemon(phone: Phone) -> Iterator[int]:
    """Run the phone's adbd until it is connected, and give its process id."""
    libraries = f"LD_LIBRARY_PATH=/{LIBRARIES / 'android'}"
    inside = ["/usr/bin/busybox", "env", "-i", "PATH=/usr/bin", "LD_PRELOAD=/phone.so", libraries]
    words = [*_as_root(), "chroot", str(phone.root), *inside, f"ADBD_PORT={phone.port}", "/usr/sbin/adbd"]
    with started(words, phone.root.parent / f"adbd-{phone.port}.log", dict(os.environ)) as pid:
        try:
            connect(phone)
            yield pid
        finally:
            phone.adb("disconnect", phone.serial)


@contextmanager
def started(words: list[str], log: Path, environment: dict[str, str]) -> Iterator[int]:
    with log.open("w") as stream:
        child = subprocess.Popen(words, stdout=stream, stderr=stream, env=environment)
    try:
        yield child.pid
    finally:
        child.kill()
        child.wait()


def connect(phone: Phone) -> None:
    """Wait until the phone is ready. adb tells a refused connection in words only."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        phone.adb("connect", phone.serial)
        if f"{phone.serial}\tdevice" in phone.adb("devices"):
            return
        time.sleep(0.1)
    raise AssertionError(phone.adb("devices"))
