"""The parity certificate: the same users through the source model, each runtime, and the app's code."""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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
from edgepack.tools import jdk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgepack.evaluate.agreement import Lists

ROWS = 48
"""Training users whose lists are compared; the first has no history."""
PLACES = 10
_DEADLINE_S = 600.0
_Score = Callable[["NDArray[np.int32]"], "NDArray[np.float32]"]
_Ranked = list[list[tuple[int, float]]]
"""The items and scores of each history's list."""


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
        rows=(*rows, *_of_app(place, split, compressed, made, profile, bundle)),
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


def _of_app(
    place: Place, split: Kept, compressed: Kept, made: Kept, profile: Profile, bundle: Bundle
) -> Iterator[ParityRow]:
    """Yield the row of the code that `embed` writes, where there is an app for the target."""
    app = next((app for app in _APPS if bundle.manifest.platform in app.platforms), None)
    if app is None:
        return
    if bundle.manifest.contract.query is not None:
        note = "not measured: it takes text, and these users' searches are kept hashed"
        yield ParityRow(runtime=app.name, note=note)
        return
    inputs = {
        "bundle": bundle.content_hash,
        "reference": compressed.digest,
        "tools": app.tools(),
        "code": source_fingerprint("embed", "evaluate/agreement.py", "runtimes"),
    }

    def make(folder: Path) -> None:
        place.tell(f"certificate in {app.name}", 0, 0)
        rows = part(parity_rows(place, split), 0, ROWS)
        try:
            lists = app.ask(bundle, _histories(rows), lambda fed: _scored(profile, made, fed))
        except (ConvertError, MeasureError, LimitError, ToolError) as error:
            row = ParityRow(runtime=app.name, note=f"not measured: {error}")
        else:
            reference = _reference(place, rows, compressed, bundle.manifest.artifact.format)
            row = _row(app.name, reference, _as_lists(lists))
        write_atomic(folder / "row.json", msgspec.json.encode(row))

    kept = place.store.produce("certificate-app", inputs, make)
    yield msgspec.json.decode((kept.path / "row.json").read_bytes(), type=ParityRow)


def _histories(rows: Rows) -> list[list[int]]:
    return [[int(item) for item in row if item] for row in rows["history"]]


def _scored(profile: Profile, made: Kept, rows: "NDArray[np.int32]") -> "NDArray[np.float32]":
    return scores(device_engine(profile), file_of(made)[1], rows, deadline_s=_DEADLINE_S)


def _written(files: dict[str, bytes], folder: Path) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _in_chromium(bundle: Bundle, histories: list[list[int]], score: _Score) -> _Ranked:
    from edgepack.embed import web
    from edgepack.runtimes.web_app import recommend
    from edgepack.tools.web_runtimes import locate_runtime

    vocabulary: list[str] = json.loads(bundle.members["vocabulary.json"])
    index = {id: place for place, id in enumerate(vocabulary)}
    asked = [[vocabulary[item] for item in history] for history in histories]
    with tempfile.TemporaryDirectory(prefix="edgepack-app-") as folder:
        runtime = locate_runtime(bundle.manifest.runtime.name)
        _written(web.files(web.Model(bundle, runtime)), Path(folder) / web.FOLDER)
        lists = recommend(Path(folder), asked, PLACES, deadline_s=_DEADLINE_S)
    return [[(index[id], score) for id, score in listed] for listed in lists]


def _on_jvm(bundle: Bundle, histories: list[list[int]], score: _Score) -> _Ranked:
    from edgepack.embed import android
    from edgepack.runtimes.android_app import recommend

    with tempfile.TemporaryDirectory(prefix="edgepack-app-") as folder:
        module = Path(folder)
        _written(android.files(bundle), module)
        sources = [module / android.FACTS, *sorted((module / android.CORE).iterdir())]
        assets = module / android.ASSETS
        return recommend(sources, assets, histories, PLACES, score, deadline_s=_DEADLINE_S)


class _App(NamedTuple):
    """A kind of app: its code's name, its targets, how it is asked, and what that stands on."""

    name: str
    platforms: tuple[str, ...]
    ask: Callable[[Bundle, list[list[int]], _Score], _Ranked]
    tools: Callable[[], bool]


_APPS = (
    _App("edgepack/index.mjs in Chromium", ("web-wasm",), _in_chromium, lambda: True),
    _App(
        "edgepack.core in Java, scores by the target",
        ("android-arm64", "android-armv7"),
        _on_jvm,
        jdk.is_there,
    ),
)


def _as_lists(ranked: _Ranked) -> "Lists":
    import numpy as np

    from edgepack.evaluate.agreement import Lists

    shape = (len(ranked), PLACES)
    found = Lists(np.zeros(shape, np.int32), np.zeros(shape, np.float32))
    for row, listed in enumerate(ranked):
        found.items[row, : len(listed)] = [item for item, _ in listed]
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
