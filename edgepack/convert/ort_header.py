"""Puts the head of an .ort file into one order.

An .ort file is a FlatBuffer: root table, the resolver of kernel type names, then the model. onnxruntime
writes the resolver's innermost lists in the order of a hash table that differs from process to process,
and the model always alike. The layout is that of onnxruntime's `ort.fbs`, of which these are the fields read.
"""

from typing import Any, NamedTuple

import flatbuffers
from flatbuffers import number_types
from flatbuffers.table import Table

_IDENTIFIER = b"ORTM"
_ROOT_FIELDS = 4  # ort_version, model, (deprecated), kernel_type_str_resolver
_VERSION, _MODEL, _RESOLVER = 0, 1, 3

Argument = tuple[int, int]  # is it an input or an output, and which


class _Head(NamedTuple):
    version: bytes
    model: int
    resolver: dict[bytes, dict[bytes, list[Argument]]]


def ordered(data: bytes) -> bytes:
    """Return an .ort file with the resolver sorted by operator and type name; the model's bytes stay."""
    root = Table(data, int.from_bytes(data[:4], "little"))
    head = _read(root)
    model = Table(data, head.model)
    # FlatBuffers grow downwards: all that the model refers to lies above its table and vtable.
    vtable = head.model - model.Get(number_types.SOffsetTFlags, head.model)
    tail = data[min(head.model, vtable) :] if vtable > root.Pos else data[head.model :]
    builder: Any = flatbuffers.Builder(len(data) + 65_536)
    builder.Bytes[len(builder.Bytes) - len(tail) :] = tail
    builder.head = len(builder.Bytes) - len(tail)
    builder.minalign = 16
    resolver = _written(builder, head.resolver)
    version = builder.CreateString(head.version)
    builder.StartObject(_ROOT_FIELDS)
    for field, offset in ((_VERSION, version), (_MODEL, len(data) - head.model), (_RESOLVER, resolver)):
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    builder.Finish(builder.EndObject(), _IDENTIFIER)
    return bytes(builder.Output())


def _read(root: Any) -> _Head:
    model = root.Indirect(root.Pos + _at(root, _MODEL))
    resolver = Table(root.Bytes, root.Indirect(root.Pos + _at(root, _RESOLVER)))
    operators = {
        _text(operator, 0): {
            _text(entry, 0): [
                (_scalar(pair, 0, number_types.Int8Flags), _scalar(pair, 1, number_types.Uint32Flags))
                for pair in _children(entry, 1)
            ]
            for entry in _children(operator, 1)
        }
        for operator in _children(resolver, 0)
    }
    return _Head(_text(root, _VERSION), model, operators)


def _written(builder: Any, resolver: dict[bytes, dict[bytes, list[Argument]]]) -> int:
    operators = []
    for operator, entries in sorted(resolver.items()):
        written = []
        for name, pairs in sorted(entries.items()):
            arguments = [_argument(builder, pair) for pair in pairs]
            written.append(_entry(builder, builder.CreateString(name), arguments))
        operators.append(_entry(builder, builder.CreateString(operator), written))
    children = _vector(builder, operators)
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, children, 0)
    return int(builder.EndObject())


def _argument(builder: Any, pair: Argument) -> int:
    builder.StartObject(2)
    builder.PrependUint32Slot(1, pair[1], 0)
    builder.PrependInt8Slot(0, pair[0], 0)
    return int(builder.EndObject())


def _entry(builder: Any, name: int, children: list[int]) -> int:
    vector = _vector(builder, children)
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    builder.PrependUOffsetTRelativeSlot(1, vector, 0)
    return int(builder.EndObject())


def _vector(builder: Any, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _at(table: Any, field: int) -> int:
    """Return where in the table a field lies, 0 when it is not set."""
    return int(table.Offset(4 + 2 * field))


def _text(table: Any, field: int) -> bytes:
    return bytes(table.String(table.Pos + _at(table, field)))


def _scalar(table: Any, field: int, kind: Any) -> int:
    place = _at(table, field)
    return int(table.Get(kind, table.Pos + place)) if place else 0


def _children(table: Any, field: int) -> list[Any]:
    place = _at(table, field)
    start, count = (table.Vector(place), table.VectorLen(place)) if place else (0, 0)
    return [Table(table.Bytes, table.Indirect(start + 4 * i)) for i in range(count)]
