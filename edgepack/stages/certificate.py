"""The parity certificate: the same users through the source model, each runtime, and the app's code."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgepack.bundle.archive import Bundle
from edgepack.bundle.manifest import Certificate, ParityRow
from edgepack.convert.parity import RUNTIMES_OF_FORMAT
from edgepack.errors import ConvertError, LimitError, MeasureError, ToolError
from edgepack.profiles import Profile
from edgepack.rows import Rows, part
from edgepack.runtimes.engines import Engine, device_engine, scores
from edgepack.stages import Place, versions
from edgepack.stages.figures import file_of
from edgepack.stages.logs import parity_rows
from edgepack.store import Kept, source_fingerprint, write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgepack.evaluate.agreement import Lists

ROWS = 48
"""Training users whose lists are compared; the first has no history."""
PLACES = 10
_APP = "edgepack/index.mjs in Chromium"
_DEADLINE_S = 600.0


def certificate(
    place: Place, split: Kept, compressed: Kept, made: Kept, profile: Profile, bundle: Bundle
) -> Certificate:
    """Return how each runtime of the target, and the code that `embed` writes, agrees with the source model.

    Its answers to the users are kept since the recipe was carried out (`compressed`); `bundle` is what ships.
    """
    format = bundle.manifest.artifact.format
    engines = dict.fromkeys((*map(Engine, RUNTIMES_OF_FORMAT[format]), device_engine(profile)))
    rows = [_of_engine(place, split, compressed, made, engine) for engine in engines]
    return Certificate(
        reference="the source model that the file was converted from",
        users=ROWS,
        rows=(*rows, *_of_app(place, split, compressed, bundle)),
    )


def _of_engine(place: Place, split: Kept, compressed: Kept, made: Kept, engine: Engine) -> ParityRow:
    inputs = {
        "artifact": made.digest,
        "reference": compressed.digest,
        "engine": [engine.name, msgspec.to_builtins(engine.emulation)],
        "filter_seen": place.config.quality.filter_seen,
        "code": source_fingerprint("evaluate/agreement.py", "runtimes"),
        "versions": versions("ai-edge-litert", "tflite-runtime", "onnxruntime", "scipy"),
    }

    def make(folder: Path) -> None:
        where = f"{engine.name} ({engine.emulation.core}, emulated)" if engine.emulation else engine.name
        facts, path = file_of(made)
        place.tell(f"certificate in {where}", 0, 0)
        rows = part(parity_rows(place, split), 0, ROWS)
        try:
            answers = scores(engine, path, rows, deadline_s=_DEADLINE_S)
        except (ConvertError, MeasureError, LimitError, ToolError) as error:
            row = ParityRow(runtime=where, note=f"not measured: {error}")
        else:
            reference = _reference(place, rows, compressed, facts.format)
            row = _row(where, reference, _shown(place, rows, answers))
        write_atomic(folder / "row.json", msgspec.json.encode(row))

    kept = place.store.produce("certificate", inputs, make)
    return msgspec.json.decode((kept.path / "row.json").read_bytes(), type=ParityRow)


def _of_app(place: Place, split: Kept, compressed: Kept, bundle: Bundle) -> Iterator[ParityRow]:
    """Yield the row of the web module; an Android app's code is run by edgepack's tests, not by a build."""
    if bundle.manifest.platform != "web-wasm":
        return
    if bundle.manifest.contract.query is not None:
        note = "not measured: it takes text, and these users' searches are kept hashed"
        yield ParityRow(runtime=_APP, note=note)
        return
    inputs = {
        "bundle": bundle.content_hash,
        "reference": compressed.digest,
        "code": source_fingerprint("embed", "evaluate/agreement.py", "runtimes/web_app.py"),
    }

    def make(folder: Path) -> None:
        place.tell(f"certificate in {_APP}", 0, 0)
        rows = part(parity_rows(place, split), 0, ROWS)
        try:
            found = _asked(bundle, rows)
        except (MeasureError, LimitError, ToolError) as error:
            row = ParityRow(runtime=_APP, note=f"not measured: {error}")
        else:
            row = _row(_APP, _reference(place, rows, compressed, bundle.manifest.artifact.format), found)
        write_atomic(folder / "row.json", msgspec.json.encode(row))

    kept = place.store.produce("certificate-app", inputs, make)
    yield msgspec.json.decode((kept.path / "row.json").read_bytes(), type=ParityRow)


def _asked(bundle: Bundle, rows: Rows) -> "Lists":
    import numpy as np

    from edgepack.embed import web
    from edgepack.evaluate.agreement import Lists
    from edgepack.runtimes.web_app import recommend
    from edgepack.tools.web import locate_runtime

    vocabulary: list[str] = json.loads(bundle.members["vocabulary.json"])
    index = {id: place for place, id in enumerate(vocabulary)}
    histories = [[vocabulary[item] for item in row if item] for row in rows["history"]]
    with tempfile.TemporaryDirectory(prefix="edgepack-app-") as folder:
        for name, data in web.files(bundle, locate_runtime()).items():
            path = Path(folder) / web.FOLDER / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        lists = recommend(Path(folder), histories, PLACES, deadline_s=_DEADLINE_S)
    found = Lists(
        np.zeros((len(histories), PLACES), np.int32), np.zeros((len(histories), PLACES), np.float32)
    )
    for row, listed in enumerate(lists):
        found.items[row, : len(listed)] = [index[id] for id, _ in listed]
        found.scores[row, : len(listed)] = [score for _, score in listed]
    return found


def _reference(place: Place, rows: Rows, compressed: Kept, format: str) -> "Lists":
    import numpy as np

    kind = "int8" if "int8" in format else "plain"
    return _shown(place, rows, np.load(compressed.path / f"reference_{kind}.npy")[:ROWS])


def _shown(place: Place, rows: Rows, answers: "NDArray[np.float32]") -> "Lists":
    import numpy as np

    from edgepack.bundle.goldens import top_k
    from edgepack.evaluate.agreement import Lists

    items = top_k(answers, rows["history"], PLACES, place.config.quality.filter_seen)
    return Lists(items, np.take_along_axis(answers, items, axis=1))


def _row(where: str, reference: "Lists", found: "Lists") -> ParityRow:
    from edgepack.evaluate.agreement import agreement

    agreed = agreement(reference, found)
    return ParityRow(
        runtime=where,
        overlap_at_10=agreed.overlap,
        top_1_agreement=agreed.top_1,
        largest_difference=agreed.largest_difference,
        kendall_tau=agreed.kendall_tau,
    )
