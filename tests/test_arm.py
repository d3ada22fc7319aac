"""ARM emulation: equal bytes, equal counts, cores that contradict themselves, and models that fail."""

import signal
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edgepack import proc
from edgepack.errors import ConfigError, ConvertError, LimitError, MeasureError, ToolError
from edgepack.measure.arm import measure
from edgepack.profiles import Emulation, Profile, load_profiles
from edgepack.runtimes import arm, armv7, host, qemu
from edgepack.runtimes.qemu import Inputs
from edgepack.tools import arm as tools

MODELS = Path(__file__).parent / "data" / "arm"
INT8, FLOAT32 = MODELS / "int8.tflite", MODELS / "float32.tflite"
ARM64 = ("android-arm64-low", "android-arm64-mid", "android-arm64-high", "raspberry-pi-4")
DEADLINE_S = 60

PROFILES = load_profiles()


def missing_tool() -> str:
    return next(
        (f"{tool.name} is missing: {tool.remedy}" for tool in tools.status() if tool.path is None), ""
    )


emulated = pytest.mark.skipif(bool(missing_tool()), reason=missing_tool())


def histories(rows: int) -> dict[str, NDArray[np.int32]]:
    drawn = np.random.default_rng(1).integers(0, 201, (rows, 10)).astype(np.int32)
    drawn[0] = 0  # the empty history
    return {"history": drawn}


def core(target: str) -> Emulation:
    found = PROFILES[target].emulation
    assert found is not None
    return found


def count_on(target: str, artifact: Path = INT8, inputs: Inputs | None = None) -> qemu.Counts:
    count = arm.count if target in ARM64 else armv7.count
    return count(artifact, inputs or histories(1), core(target), deadline_s=DEADLINE_S)


@emulated
@pytest.mark.parametrize("target", ARM64)
def test_all_integer_scores_are_the_hosts_to_the_byte(target: str) -> None:
    inputs = histories(40)
    on_host = host.run("litert", INT8, inputs, deadline_s=DEADLINE_S)
    on_arm = arm.run(INT8, inputs, core(target), deadline_s=DEADLINE_S)
    assert on_arm.shape == (40, 201)
    assert on_arm.tobytes() == on_host.tobytes()
    assert len(np.unique(on_arm)) > 50, "scores that hardly differ prove nothing"


@emulated
def test_float_scores_differ_from_the_hosts_by_rounding_only() -> None:
    inputs = histories(40)
    on_host = host.run("litert", FLOAT32, inputs, deadline_s=DEADLINE_S)
    on_arm = arm.run(FLOAT32, inputs, core("android-arm64-low"), deadline_s=DEADLINE_S)
    assert np.abs(on_arm - on_host).max() <= 1e-6 * np.ptp(on_host)


@emulated
@pytest.mark.parametrize("target", ARM64)
def test_two_processes_count_the_same_to_the_unit(target: str) -> None:
    first, second = count_on(target), count_on(target)
    assert first[:3] == second[:3]
    assert first.scores.tobytes() == second.scores.tobytes()


@emulated
def test_counts_do_not_depend_on_environment_folder_or_file_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = count_on("android-arm64-low")
    copy = tmp_path / "a_much_longer_name_for_the_same_file.tflite"
    copy.write_bytes(INT8.read_bytes())
    monkeypatch.setenv("SOMETHING_LONG", "x" * 5_000)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert count_on("android-arm64-low", copy)[:3] == here[:3]


@emulated
def test_a_core_with_dot_products_needs_fewer_instructions_than_one_without() -> None:
    low, mid, high = (count_on(target).warm for target in ARM64[:3])
    assert high.instructions < mid.instructions < low.instructions
    assert high.multiply_int < 0.6 * mid.multiply_int  # sdot: 16 products where smlal does 8


@emulated
def test_classes_add_up_and_the_first_inference_costs_more() -> None:
    warm, cold, peak, _ = count_on("android-arm64-mid")
    scalar = warm.load, warm.store, warm.divide, warm.branch, warm.other
    vector = warm.load_vector, warm.store_vector, warm.multiply_float, warm.multiply_int, warm.vector
    assert sum(scalar) + sum(vector) == warm.instructions
    assert all(vector)
    assert warm.multiply_int > 10 * warm.multiply_float, "an int8 model"
    assert 0 < warm.instructions < cold.instructions
    assert warm.l2_misses < cold.l2_misses, "the caches start empty and this model fits into them"
    assert peak is not None
    assert 100_000 < peak < 1_000_000


OF_EVERY_CLASS = {
    "load": "ldr x0, [sp]; ldp x0, x1, [sp]; ldrb w0, [sp]; ldrsw x0, [sp]; ldr x0, #-8; ldur x0, [sp, #1]",
    "load_vector": "ldr q0, [sp]; ldp q0, q1, [sp]; ld1 {v0.16b}, [sp]; ld1r {v0.4s}, [sp]; ldr s0, [sp]",
    "store": "str x0, [sp, #-16]; stp x0, x1, [sp, #-16]; strb w0, [sp, #-16]",
    "store_vector": "str q0, [sp, #-16]; stur q0, [sp, #-32]; str d0, [sp, #-16]",
    "multiply_float": "fmla v0.4s, v1.4s, v2.4s; fmul v0.4s, v1.4s, v2.s[1]; fmla v0.8h, v1.8h, v2.8h; "
    "fmadd s0, s1, s2, s3; fmul d0, d1, d2; fmla v0.4s, v1.4s, v2.s[0]",
    "multiply_int": "smlal v0.8h, v1.8b, v2.8b; smull v0.4s, v1.4h, v2.h[0]; mla v0.8h, v1.8h, v2.8h; "
    "sdot v0.4s, v1.16b, v2.16b; sdot v0.4s, v1.16b, v2.4b[1]; sqrdmulh v0.4s, v1.4s, v2.4s",
    "divide": "fdiv v0.4s, v1.4s, v2.4s; fsqrt v0.4s, v1.4s; fdiv s0, s1, s2; fsqrt d0, d1; udiv x0, x1, x2; "
    "fdiv v0.8h, v1.8h, v2.8h",
    "vector": "fadd v0.4s, v1.4s, v2.4s; fmax v0.4s, v1.4s, v2.4s; zip1 v0.8h, v1.8h, v2.8h; dup v0.4s, w0; "
    "sqxtn v0.8b, v1.8h; fcvtns v0.4s, v1.4s; sshr v0.4s, v1.4s, #3; scvtf s0, w0; fmov s0, w0",
    "branch": "b 1f; 1: cbz x0, 2f; 2: tbz x0, #0, 3f; 3:",
    "other": "add x0, x1, x2; mov x0, #1; madd x0, x1, x2, x3; lsl x0, x1, #3; csel x0, x1, x2, eq",
}


@emulated
def test_every_instruction_is_told_by_its_class(tmp_path: Path) -> None:
    for name, code in OF_EVERY_CLASS.items():
        source, program = tmp_path / f"{name}.s", tmp_path / name
        lines = "\n".join(code.split("; "))
        source.write_text(
            f".arch armv8.2-a+fp16+dotprod\n.globl _start\n_start:\nsub sp, sp, #64\nhint #0x55\n{lines}\n"
            "hint #0x56\nmov x8, #93\nmov x0, #0\nsvc #0\n"
        )
        zig = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-nostdlib", "-static"]
        built = proc.run([*zig, source, "-o", program], deadline_s=120)
        assert built.returncode == 0, built.stderr_tail
        folder = tmp_path / f"{name}.run"
        folder.mkdir()
        stage = qemu.Stage(folder, tools.locate(), core("android-arm64-high"), "arm64")
        qemu.lay_root(stage)
        qemu.run_guest(stage, [str(program)], program, cache_counts=True, deadline_s=DEADLINE_S)
        (region,) = qemu.read_regions(stage)
        count = len([word for word in code.split("; ") if not word.endswith(":")])
        found = {name: getattr(region, name) for name in OF_EVERY_CLASS}
        # Each region ends with the hint that closes it.
        assert found == dict.fromkeys(OF_EVERY_CLASS, 0) | {name: count} | {"other": found["other"]}, name
        assert found["other"] - (count if name == "other" else 0) in (0, 1)


@emulated
def test_a_smaller_cache_misses_more() -> None:
    big = core("android-arm64-low")
    small = msgspec.structs.replace(big, l1d=msgspec.structs.replace(big.l1d, size_bytes=4096))
    wide = arm.count(FLOAT32, histories(1), big, deadline_s=DEADLINE_S)
    tight = arm.count(FLOAT32, histories(1), small, deadline_s=DEADLINE_S)
    assert tight.warm.l1d_misses > wide.warm.l1d_misses
    assert tight.warm.instructions == wide.warm.instructions


@emulated
def test_the_peak_holds_the_models_pages_and_its_unpacked_weights() -> None:
    int8, float32 = (count_on("android-arm64-low", path).peak_memory_bytes for path in (INT8, FLOAT32))
    assert int8 is not None
    assert float32 is not None
    assert float32 - int8 > 40_000  # the weights are 45 kB bigger, as pages of the file and packed


@emulated
def test_armv7_scores_are_those_of_the_same_runtime_on_the_host_and_its_counts_repeat() -> None:
    inputs, target = histories(5), core("android-armv7")
    on_host = host.run("tflite-runtime", INT8, inputs, deadline_s=DEADLINE_S)
    on_arm = armv7.run(INT8, inputs, target, deadline_s=DEADLINE_S)
    assert on_arm.tobytes() == on_host.tobytes()
    first, second = (count_on("android-armv7") for _ in range(2))
    assert first[:3] == second[:3]
    assert 10_000 < first.warm.instructions < 40_000, "Python's own start must not be in it"
    assert first.peak_memory_bytes is None


@emulated
def test_a_measurement_has_every_number_exact_and_milliseconds_modelled_from_the_fits_kernels() -> None:
    found = measure(INT8, "ab" * 32, PROFILES["android-arm64-low"], histories(1))
    named = {number.name: number for number in found.numbers}
    exact = ("instructions", "instructions_cold", "l1d_misses", "l2_misses", "peak_memory_bytes")
    assert all(named[name].exact and named[name].provenance == "emulated" for name in exact)
    assert named["instructions"].value == count_on("android-arm64-low").warm.instructions
    assert "LiteRT 1.4.0" in named["instructions"].source
    assert named["latency_p50_ms"].provenance == "modelled"
    assert named["latency_p50_ms"].value is None
    assert "from counts of Cortex-A72 kernels" in named["latency_p50_ms"].source


@emulated
def test_armv7_is_called_a_stand_in_and_says_why_it_has_no_memory_figure() -> None:
    found = measure(INT8, "ab" * 32, PROFILES["android-armv7"], histories(1))
    instructions, peak = found.get("instructions"), found.get("peak_memory_bytes")
    assert instructions is not None
    assert "stand-in" in instructions.source
    assert peak is not None
    assert peak.value is None
    assert "Python process" in peak.source


@pytest.mark.parametrize("target", [name for name, p in PROFILES.items() if p.emulation is not None])
def test_every_shipped_profile_describes_one_core(target: str) -> None:
    machine: qemu.Machine = "arm64" if target in ARM64 else "armhf"
    qemu.check_core(core(target), machine)


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"features": "fp asimd asimddp"}, "emulation.features: asimddp cannot be executed"),
        ({"part": "0xd0b"}, "emulation.part: 0xd0b is a core with dot products"),
        ({"cpu": "cortex-a55"}, "emulation.cpu: 'cortex-a55' is not a core"),
    ],
)
def test_a_core_that_contradicts_itself_is_refused_before_the_run(changed: dict[str, str], key: str) -> None:
    wrong = msgspec.structs.replace(core("android-arm64-mid"), **changed)
    with pytest.raises(ConfigError, match=key):
        qemu.check_core(wrong, "arm64")


@emulated
def test_an_instruction_that_the_core_lacks_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "check_core", lambda *_: None)
    high = core("android-arm64-high")
    with pytest.raises(MeasureError, match="an instruction that the core lacks"):
        arm.run(INT8, histories(1), msgspec.structs.replace(high, cpu="cortex-a72"), deadline_s=DEADLINE_S)


@emulated
@pytest.mark.parametrize("engine", [arm, armv7])
def test_a_model_of_another_length_is_a_breach_of_the_contract(engine: object) -> None:
    wrong = {"history": np.ones((1, 7), np.int32)}
    target = core("android-arm64-low" if engine is arm else "android-armv7")
    with pytest.raises(ConvertError, match="int32"):
        engine.run(INT8, wrong, target, deadline_s=DEADLINE_S)  # type: ignore[attr-defined]


@emulated
def test_a_file_that_is_no_model_is_a_measure_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + b"\xff" * 5_000)
    with pytest.raises(MeasureError, match=r"broken\.tflite on emulated Cortex-A53"):
        arm.run(path, histories(1), core("android-arm64-low"), deadline_s=DEADLINE_S)


@emulated
def test_a_run_past_its_deadline_is_stopped_and_named() -> None:
    with pytest.raises(LimitError, match=r"int8\.tflite on emulated Cortex-A53: still running"):
        arm.run(INT8, histories(20_000), core("android-arm64-low"), deadline_s=0.2)


def test_a_missing_tool_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPACK_HOME", str(tmp_path))
    assert [tool.path for tool in tools.status() if tool.name != "qemu-user"] == [None, None, None]
    with pytest.raises(ToolError, match="edgepack setup"):
        arm.run(INT8, histories(1), core("android-arm64-low"), deadline_s=DEADLINE_S)


def test_an_emulator_without_plugins_is_not_taken(tmp_path: Path) -> None:
    static = tmp_path / "qemu-aarch64"
    static.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "qemu-aarch64 version 7.2.22" && exit\n'
        "echo \"qemu: unknown option 'plugin'\" >&2; exit 1\n"
    )
    static.chmod(0o755)
    assert tools._usable(static, static, None) is None


def test_a_runtime_version_that_is_not_measured_is_refused() -> None:
    low = PROFILES["android-arm64-low"]
    newer = msgspec.structs.replace(low.runtime, version="2.0.0")
    other: Profile = msgspec.structs.replace(low, runtime=newer)
    with pytest.raises(ConfigError, match=r"runtime\.version: 2\.0\.0"):
        measure(INT8, "ab" * 32, other, histories(1))


def test_a_death_by_signal_is_told_by_its_name() -> None:
    from edgepack.proc import Completed

    dead = Completed(-signal.SIGSEGV, b"", "INFO: chatter\nqemu: uncaught target signal 11", 0.1)
    assert "died with SIGSEGV (last words: qemu: uncaught target signal 11)" in str(qemu._failure("m", dead))
