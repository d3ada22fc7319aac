"""APK files with their members where phones want them, and the check of an APK that somebody else made.

A phone maps native code into memory straight out of the APK. With pages of 16 KB that needs the members to
lie at multiples of it, and every loaded segment of the code to be laid out for it.
"""

import struct
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

PAGE_BYTES = 16_384
_MAPPED = 4
_ALIGNMENT_FIELD = 0xD935  # the extra field that zipalign and apksigner know
_LOCAL_HEADER_BYTES = 30
_ELF64 = b"\x7fELF\x02"
_LOAD = 1


def write(path: Path, members: Mapping[str, bytes], stored: Collection[str]) -> None:
    """Write the members in the order of their names, so that equal members give equal bytes.

    Those with a suffix of `stored` are not compressed, and aligned.
    """
    with path.open("wb") as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, data in sorted(members.items()):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 0
            if Path(name).suffix in stored:
                entry.extra = _padding(stream.tell() + len(name.encode()), _alignment(name))
            else:
                entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data, compresslevel=9)
            entry.extra = b""  # the place of a member is the local header's matter


def problems(path: Path) -> list[str]:
    """Say what keeps a phone with pages of 16 KB from loading the APK's native code."""
    found = []
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if not entry.filename.endswith(".so"):
                continue
            found += [f"{entry.filename}: {problem}" for problem in _problems(path, archive, entry)]
    return found


def offset_of(path: Path, entry: zipfile.ZipInfo) -> int:
    """Return where a member's data begins in the file."""
    with path.open("rb") as stream:
        stream.seek(entry.header_offset)
        header = stream.read(_LOCAL_HEADER_BYTES)
    name_bytes, extra_bytes = struct.unpack_from("<2H", header, 26)
    return entry.header_offset + _LOCAL_HEADER_BYTES + int(name_bytes + extra_bytes)


def _alignment(name: str) -> int:
    return PAGE_BYTES if name.endswith(".so") else _MAPPED


def _padding(before_bytes: int, alignment: int) -> bytes:
    begin = before_bytes + _LOCAL_HEADER_BYTES + 6
    fill = -begin % alignment
    return struct.pack("<3H", _ALIGNMENT_FIELD, 2 + fill, alignment) + bytes(fill)


def _problems(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> list[str]:
    code = archive.read(entry)
    if entry.compress_type != zipfile.ZIP_STORED:
        return ["is compressed"]
    if not code.startswith(_ELF64):
        return ["is no 64-bit ELF file"]
    offset = offset_of(path, entry)
    found = [f"begins at byte {offset}, no multiple of {PAGE_BYTES}"] if offset % PAGE_BYTES else []
    alignments = _loaded(code)
    return found + [f"a segment is aligned to {one} bytes" for one in alignments if one % PAGE_BYTES]


def _loaded(code: bytes) -> list[int]:
    """Return `p_align` of every LOAD segment; Android knows little-endian ELF alone."""
    (table,) = struct.unpack_from("<Q", code, 32)
    size, count = struct.unpack_from("<2H", code, 54)
    headers = [code[table + index * size :][:size] for index in range(count)]
    return [
        struct.unpack_from("<Q", one, 48)[0] for one in headers if struct.unpack_from("<I", one)[0] == _LOAD
    ]
