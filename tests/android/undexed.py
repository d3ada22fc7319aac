"""An APK's dex as classes that a Java machine runs."""

import os
import re
import struct
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tests.android import aligned, apk

# Enjarify writes classes of Java 5, which know no static calls of interfaces; today's machine has them apart,
# in classes of Java 8 alone, and its verifier would ask those for more than enjarify writes.
RUN = ("-XX:+UnlockDiagnosticVMOptions", "-XX:-BytecodeVerificationRemote")
_JAVA_8 = 52
_UTF8, _METHOD, _INTERFACE_METHOD = 1, 10, 11
_ENTRY_BYTES = {3: 5, 4: 5, 5: 9, 6: 9, 7: 3, 8: 3, 9: 5, 10: 5, 11: 5, 12: 5}
_TWO_SLOTS = (5, 6)


def jar(path: Path, into: Path, *classpath: Path) -> Path:
    """Write the classes of the APK's dex as the jar `into`; `classpath` holds what they call."""
    raw = into.with_suffix(".raw.jar")
    done = subprocess.run(
        ["enjarify", "-f", "-o", raw, path],
        env={
            **os.environ,
            "PATH": "/usr/bin:/bin",
        },  # it starts the first python3 there and must find Debian's
        capture_output=True,
        text=True,
        check=False,
    )
    assert " 0 classes had errors" in done.stdout, done.stdout + done.stderr
    with zipfile.ZipFile(raw) as archive:
        classes = {name: archive.read(name) for name in archive.namelist()}
    interfaces = _interfaces(
        {owner for code in classes.values() for _, owner in _calls(code)}, raw, *classpath
    )
    aligned.write(into, {name: _repaired(code, interfaces) for name, code in classes.items()}, ())
    return into


def _repaired(code: bytes, interfaces: set[str]) -> bytes:
    changed = bytearray(code)
    changed[6:8] = struct.pack(">H", _JAVA_8)
    for at, owner in _calls(code):
        if owner in interfaces:
            changed[at] = _INTERFACE_METHOD
    return bytes(changed)


def _interfaces(names: set[str], *classpath: Path) -> set[str]:
    classes = sorted(name for name in names if not name.startswith("["))
    told = apk.run("javap", "-cp", ":".join(map(str, classpath)), *classes)
    found = re.findall(r"^(?:\w+ )*interface ([\w.$]+)", told, re.MULTILINE)
    return {name.replace(".", "/") for name in found}


def _calls(code: bytes) -> Iterator[tuple[int, str]]:
    """Tell where the constant pool names a class's method, and the class."""
    places = _places(code)
    for at in places.values():
        if code[at] == _METHOD:
            (owner,) = struct.unpack_from(">H", code, at + 1)
            (name,) = struct.unpack_from(">H", code, places[owner] + 1)
            (size,) = struct.unpack_from(">H", code, places[name] + 1)
            yield at, code[places[name] + 3 :][:size].decode()


def _places(code: bytes) -> dict[int, int]:
    """Return where each entry of the constant pool stands."""
    (count,) = struct.unpack_from(">H", code, 8)
    places, index, at = {}, 1, 10
    while index < count:
        places[index] = at
        tag = code[at]
        index += 2 if tag in _TWO_SLOTS else 1
        at += 3 + struct.unpack_from(">H", code, at + 1)[0] if tag == _UTF8 else _ENTRY_BYTES[tag]
    return places
