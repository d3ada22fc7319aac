"""Which layers and which rows of the item table cost the ranking, each compressed alone."""

from pathlib import Path

import msgspec

from edgepack.results import Sensitivity
from edgepack.stages import Place, versions
from edgepack.stages.logs import validated
from edgepack.stages.models import Trained, trained_graphs
from edgepack.store import Kept, source_fingerprint, write_atomic

BITS = (8, 4)
USERS = 1_000
"""Validation users that every unit is ranked on; the test users are not looked at to choose by."""


def sensitivity(place: Place, split: Kept, trained: Trained) -> tuple[Sensitivity, ...]:
    """Return the losses at each of BITS; none for a model that came as ONNX: it has no layers."""
    if trained.model.onnx is not None:
        return ()
    inputs = {
        "split": split.digest,
        "weights": trained.weights.digest,
        "model": trained.model.identity,
        "filter_seen": place.config.quality.filter_seen,
        "sample": [BITS, USERS],
        "code": source_fingerprint("evaluate", "compress/sensitivity.py", "stages/sensitivity.py"),
        "versions": versions("tensorflow", "tf_keras"),
    }

    def make(folder: Path) -> None:
        write_atomic(folder / "losses.json", msgspec.json.encode(_found(place, split, trained)))

    kept = place.store.produce("sensitivity", inputs, make)
    return msgspec.json.decode((kept.path / "losses.json").read_bytes(), type=tuple[Sensitivity, ...])


def _found(place: Place, split: Kept, trained: Trained) -> list[Sensitivity]:
    import numpy as np

    from edgepack.compress import sensitivity as units
    from edgepack.data import types
    from edgepack.data.split import load_split
    from edgepack.evaluate.groups import POPULARITY, popularity_classes

    whole, _ = load_split(split.path)
    graphs = trained_graphs(trained)
    classes = popularity_classes(np.bincount(whole.train.items, minlength=whole.item_count + 1))
    rows = {name: np.flatnonzero(classes == place) for place, name in enumerate(POPULARITY)}
    parts = units.units(graphs.serving, table=graphs.table, tied=graphs.tied, rows=rows)
    users = validated(whole, USERS)
    return [
        Sensitivity(
            bits=bits,
            users=users.history.users,
            units=tuple(
                units.losses(
                    graphs.serving,
                    units.lossy(graphs.serving, bits),
                    parts,
                    rows=types.rows(whole, users, trained.model.length),
                    users=users,
                    filter_seen=place.config.quality.filter_seen,
                    tell=lambda what, done, total: place.tell(f"{what}, {bits} bits", done, total),  # noqa: B023
                )
            ),
        )
        for bits in BITS
    ]
