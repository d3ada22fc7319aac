"""What a build would do: targets, budgets, recipes and their formats, resolved before anything runs."""

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import msgspec

from edgepack.compress.recipes import SETS, Recipe, decoded, known
from edgepack.config import Config, beside
from edgepack.errors import ConfigError, did_you_mean
from edgepack.latency.as_target import named_profiles
from edgepack.profiles import Budget, Profile, convert_table, merged
from edgepack.train.settings import Distillation

_FLOAT_FORMATS = ("*-float32", "*-float16", "*-dynamic")
# A trained recipe's weights fit the int8 grid, which TFLite's dynamic range does not use.
_QUANTIZED_FORMATS = ("tflite-int8", "tflite-int8-f32scores", "onnx-dynamic", "ort-dynamic", "*-qdq")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a build would do. `candidates` maps a target to its (recipe, format) pairs."""

    name: str
    folder: str
    config: Config
    targets: tuple[Profile, ...]
    budgets: dict[str, Budget]
    candidates: dict[str, tuple[tuple[str, str], ...]]


def plan(config_path: Path, config: Config, patterns: tuple[str, ...] = ()) -> Plan:
    """Resolve targets, budgets and candidates. Raises ConfigError for a name that is not known."""
    compress = msgspec.structs.replace(config.compress, recipes=decoded(config.compress.recipes))
    config = msgspec.structs.replace(config, compress=compress)
    own = beside(config_path, config.targets.folder) if config.targets.folder else None
    profiles = named_profiles(patterns or config.targets.names, own)
    recipes = known(config.compress.own)
    for recipe in config.compress.recipes:
        if recipe not in recipes:
            raise ConfigError(
                f"compress.recipes '{recipe}'",
                "no such recipe",
                allowed=f"known are {', '.join([*SETS, *recipes])}",
                remedy=f"{did_you_mean(recipe, [*SETS, *recipes])}Correct or delete it.",
            )
    _check_teacher(config, recipes)
    return Plan(
        name=config.name,
        folder=str(config_path.parent),
        config=config,
        targets=tuple(profiles),
        budgets={p.name: _budget(p, config) for p in profiles},
        candidates={p.name: tuple(_candidates(p, config.compress.recipes, recipes)) for p in profiles},
    )


def _check_teacher(config: Config, known: dict[str, Recipe]) -> None:
    recipes = config.compress.recipes
    distilled = [name for name in recipes if known[name].distil]
    if distilled and config.teacher is None:
        raise ConfigError(
            f"compress.recipes '{distilled[0]}'",
            "wants a teacher and there is none",
            remedy="Add a table [teacher] with a family or a file, or leave the recipe out.",
        )
    listening = [name for name in recipes if known[name].is_guided]
    if listening and not _teaches_without_hints(config):
        raise ConfigError(
            "distillation",
            f"hints are all that is left of it, and '{listening[0]}' fine-tunes without them",
            allowed="a fine-tuning listens to soft, hard or ranking: hints end with the float training",
            remedy="Set one of these above 0, or leave out recipes whose fine-tuning has a teacher.",
        )
    if config.teacher is not None and not distilled:
        raise ConfigError(
            "compress.recipes",
            f"none of {', '.join(recipes) or 'no recipes'} learns from the [teacher]",
            allowed=f"those that do are {', '.join(n for n, one in known.items() if one.distil)}",
            remedy="Name one of them, or take [teacher] out.",
        )


def _teaches_without_hints(config: Config) -> bool:
    how = convert_table({**config.distillation}, Distillation, "edgepack.toml: distillation")
    return bool(how.hard or how.soft or how.ranking)


def _budget(profile: Profile, config: Config) -> Budget:
    budget = profile.budget
    for pattern, own in config.budget.items():
        if fnmatch(profile.name, pattern):
            budget = merged(budget, own)
    return budget


def _candidates(
    profile: Profile, recipes: tuple[str, ...], known: dict[str, Recipe]
) -> Iterator[tuple[str, str]]:
    for recipe in recipes_in_order(recipes, known):
        patterns = _FLOAT_FORMATS if known[recipe].is_float else _QUANTIZED_FORMATS
        for format in profile.formats:
            # The dynamic file of untrained weights is the float recipe's already.
            twice = recipe in ("ptq", "distil-ptq") and format.endswith("-dynamic")
            if any(fnmatch(format, pattern) for pattern in patterns) and not twice:
                yield recipe, format


def recipes_in_order(named: tuple[str, ...], known: dict[str, Recipe]) -> tuple[str, ...]:
    """Return the recipes of a build: the float files of the model that ships come first."""
    first = "distil" if any(known[name].distil for name in named) else "float"
    return (first, *(name for name in named if name != first))


def render_plan(planned: Plan, as_json: bool) -> str:
    """Return the plan as text or JSON."""
    if as_json:
        return msgspec.json.format(msgspec.json.encode(planned), indent=2).decode() + "\n"
    model, teacher = planned.config.model, planned.config.teacher
    several = f" (the mean of {teacher.seeds} trainings)" if teacher and teacher.seeds > 1 else ""
    taught = f" taught by {teacher.family or teacher.file}{several}" if teacher else ""
    recipes = ", ".join(recipes_in_order(planned.config.compress.recipes, known(planned.config.compress.own)))
    lines = [f"{planned.name}: {model.family or model.file}{taught}, recipes {recipes}"]
    for target in planned.targets:
        formats = sorted({format for _, format in planned.candidates[target.name]})
        count = len(planned.candidates[target.name])
        lines.append(f"  {target.name}: {count} candidates ({', '.join(formats)})")
    return "\n".join(lines) + "\n"
