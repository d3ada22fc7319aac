"""The state of a training after its last finished epoch, in one file that a kill cannot tear."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.store import write_atomic

_FILE = "training.npz"

Arrays = list[NDArray[Any]]


class State(NamedTuple):
    """What a training goes on from: arrays of model, optimizer and kept epoch, and the epochs' records."""

    weights: Arrays
    optimizer: Arrays
    kept: Arrays
    records: list[dict[str, float]]


def save(work: Path, key: str, state: State) -> None:
    """Write `state` into the folder `work`; `key` names the settings that it belongs to."""
    groups = {"w": state.weights, "o": state.optimizer, "k": state.kept}
    arrays = {f"{name}{i}": array for name, group in groups.items() for i, array in enumerate(group)}
    meta = {"key": key, "records": state.records, "sizes": {name: len(g) for name, g in groups.items()}}
    stream = io.BytesIO()
    np.savez(stream, meta=np.array(json.dumps(meta)), **arrays)
    write_atomic(work / _FILE, stream.getvalue())


def load(work: Path, key: str) -> State | None:
    """Return what `save` wrote under the same `key`; None when there is nothing of the kind."""
    try:
        with np.load(work / _FILE, allow_pickle=False) as stored:
            meta = json.loads(str(stored["meta"]))
            if meta["key"] != key:
                return None
            weights, optimizer, kept = (
                [stored[f"{name}{i}"] for i in range(meta["sizes"][name])] for name in ("w", "o", "k")
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return State(weights, optimizer, kept, meta["records"])


def forget(work: Path) -> None:
    """Remove the file, once the trained weights are kept elsewhere; its times differ from run to run."""
    (work / _FILE).unlink(missing_ok=True)
