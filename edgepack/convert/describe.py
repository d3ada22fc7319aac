"""What a model file is made of: operators, table bytes, share of zeros, whichever format it has."""

from typing import NamedTuple


class Facts(NamedTuple):
    """`ops` lists "NAME vVERSION xCOUNT"; `table_bytes` are the item tables'; `zero_share` by tensor."""

    ops: tuple[str, ...]
    table_bytes: int
    zero_share: dict[str, float]


def describe(data: bytes, format: str) -> Facts:
    """Return the facts of a .tflite or .onnx file; of an .ort file give the .onnx that it was made from."""
    if format.startswith("tflite"):
        from edgepack.convert import flatbuffer

        tables = flatbuffer.tables(data)
        return Facts(flatbuffer.op_list(data), sum(tables.values()), flatbuffer.zero_share(data))
    from edgepack.convert import onnx

    return Facts(onnx.op_list(data), onnx.table_bytes(data), onnx.zero_share(data))


def is_all_integer(data: bytes, format: str) -> bool:
    """Whether every result is exact or rounded once, so that the scores are the same bytes anywhere."""
    if not format.startswith("tflite"):
        return False
    from edgepack.convert import flatbuffer

    return flatbuffer.is_all_integer(data)
