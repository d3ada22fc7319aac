"""Which operators of a chosen artifact cost what, on each core once."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from edgepack.errors import ConfigError, ConvertError, LimitError, MeasureError
from edgepack.measure.slow import slower_than_float
from edgepack.profiles import Emulation, Profile
from edgepack.results import Attribution, Measurement
from edgepack.rows import Rows
from edgepack.stages import Place
from edgepack.stages.figures import file_of, longest
from edgepack.stages.logs import calibration
from edgepack.store import Kept, source_fingerprint, write_atomic

# No kernel of a recommender uses them, so cores that differ in them alone count as one.
_CRYPTOGRAPHY = {"aes", "pmull", "sha1", "sha2"}


def attribution(
    place: Place,
    split: Kept,
    made: Kept,
    profile: Profile,
    whole: Measurement,
    candidates: Mapping[str, Measurement],
) -> Attribution | None:
    """Attribute what `whole` measured of an artifact to its operators; None on targets where that cannot be.

    `candidates` are all that were measured on this target, by recipe and format. A model that runs whole and
    not in parts is a result with its reason in `failure`, and no error.
    """
    try:
        emulation = core_of(profile)
    except ConfigError:
        return None
    facts, path = file_of(made)
    inputs = {
        "artifact": facts.sha256,
        "core": _core_key(emulation),
        "whole": [_value(whole, name) for name in ("instructions", "l1d_misses", "l2_misses")],
        "history": split.digest,
        "length": place.config.model.history_length,
        "code": source_fingerprint("measure", "runtimes", "convert"),
    }

    def make(folder: Path) -> None:
        place.tell(f"counting the operators of {facts.recipe} {facts.format} on {emulation.core}", 0, 0)
        found = attributed(path, whole, emulation, longest(calibration(place, split)))
        write_atomic(folder / "attribution.json", msgspec.json.encode(found))

    kept = place.store.produce("attribution", inputs, make)
    found = msgspec.json.decode((kept.path / "attribution.json").read_bytes(), type=Attribution)
    return msgspec.structs.replace(found, slow=(*slower_than_float(candidates), *found.slow))


def core_of(profile: Profile) -> Emulation:
    """Return the core that a target's operators are counted on. Raises ConfigError where none can be."""
    if profile.emulation is None or profile.runtime.name != "litert":
        raise ConfigError(
            profile.name,
            "its operators cannot be counted one by one",
            allowed="that takes LiteRT on an emulated 64-bit ARM core",
            remedy="Name such a target: see `edgepack targets`.",
        )
    return profile.emulation


def _core_key(emulation: Emulation) -> dict[str, object]:
    features = sorted(set(emulation.features.split()) - _CRYPTOGRAPHY)
    found: dict[str, object] = msgspec.to_builtins(emulation)
    return found | {"features": features}


def _value(whole: Measurement, name: str) -> float | int | None:
    number = whole.get(name)
    return None if number is None else number.value


def attributed(path: Path, whole: Measurement, emulation: Emulation, row: Rows) -> Attribution:
    """Attribute the cost of one inference on a row, int32 [1, length] an input, to a model's operators."""
    from edgepack.convert.operators import operators
    from edgepack.convert.prefixes import prefixes
    from edgepack.measure import attribute

    data = path.read_bytes()
    try:
        return attribute.attribute(path, prefixes(data), operators(data), whole, emulation, row)
    except (ConvertError, MeasureError, LimitError) as error:
        return attribute.not_attributed(whole, emulation, str(error))
