"""What goes wrong while measuring: each a clear error within a deadline, and no process left behind.

A core that contradicts itself, and an instruction that it lacks, are in tests/test_arm.py.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from edgepack import build, proc
from edgepack.convert import flatbuffer
from edgepack.errors import EdgepackError, LimitError, MeasureError, ToolError
from edgepack.runtimes import arm, armv7, host
from edgepack.runtimes.refusal import lacking_operator
from edgepack.tools import arm as tools
from tests.test_arm import DEADLINE_S, INT8, core, emulated, histories

LOW, OLD = "android-arm64-low", "android-armv7"
PATIENCE_S = 20


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that puts a shell script in the emulator's place."""

    def replace(script: str) -> None:
        program = tmp_path / "qemu-aarch64"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        real = tools.locate()
        monkeypatch.setattr(tools, "locate", lambda: real._replace(qemu=real.qemu._replace(aarch64=program)))

    return replace


@emulated
@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("kill -SEGV $$", "the emulator itself died with SIGSEGV"),
        (
            "echo 'tcg.c: Assertion failed' >&2; kill -ABRT $$",
            "died with SIGABRT .last words: tcg.c: Assertion",
        ),
        (
            "kill -KILL $$",
            "the emulator itself died with SIGKILL .last words: it said nothing.. See that enough",
        ),
        (
            "echo 'qemu: uncaught target signal 11 (Segmentation fault) - core dumped' >&2; kill -SEGV $$",
            "the runtime died with SIGSEGV",
        ),
    ],
)
def test_a_crash_of_the_emulator_is_told_from_a_crash_in_it(
    emulator: Callable[[str], None], script: str, sentence: str
) -> None:
    emulator(script)
    with pytest.raises(MeasureError, match=rf"int8\.tflite on emulated Cortex-A53: .*{sentence}"):
        arm.count(INT8, histories(1), core(LOW), deadline_s=DEADLINE_S)


@emulated
def test_an_emulator_that_takes_no_plugins_is_a_missing_tool(emulator: Callable[[str], None]) -> None:
    # The words and the status of Debian 12's qemu-user-static.
    emulator("echo \"qemu: unknown option 'plugin'\" >&2; exit 1")
    with pytest.raises(ToolError, match=r"takes no plugins\. Run `edgepack setup`"):
        arm.count(INT8, histories(1), core(LOW), deadline_s=DEADLINE_S)


@emulated
def test_a_hang_ends_at_the_deadline_with_all_that_the_emulator_started(
    emulator: Callable[[str], None], tmp_path: Path
) -> None:
    emulator(f"sleep 1000 & echo $! $$ >{tmp_path}/pids; wait")
    with pytest.raises(LimitError, match=r"int8\.tflite on emulated Cortex-A53: still running after 1 s"):
        arm.run(INT8, histories(1), core(LOW), deadline_s=1)
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    wait_until(lambda: not any(map(is_running, pids)))


def needing(tmp_path: Path, operator: str) -> Path:
    """Write a model whose last operator is a custom one."""
    model = flatbuffer.read(INT8.read_bytes())
    code = model.operatorCodes[model.subgraphs[0].operators[-1].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = flatbuffer.schema.BuiltinOperator.CUSTOM
    code.customCode = operator.encode()
    path = tmp_path / "needy.tflite"
    path.write_bytes(flatbuffer.write(model))
    return path


@emulated
@pytest.mark.parametrize("operator", ["FancyTopK", "FlexMatMul"])
@pytest.mark.parametrize("where", ["host", LOW, OLD])
def test_an_operator_that_the_runtime_lacks_is_named(where: str, operator: str, tmp_path: Path) -> None:
    model = needing(tmp_path, operator)
    with pytest.raises(MeasureError, match=rf"needy\.tflite .*: the runtime has no operator {operator}\."):
        if where == "host":
            host.signature(model)
        else:
            engine = arm if where == LOW else armv7
            engine.run(model, histories(1), core(where), deadline_s=DEADLINE_S)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Didn't find op for builtin opcode 'GATHER' version '99'. An older version", "GATHER in version 99"),
        ("Fatal error: com.acme:FancyTopK(-1) is not a registered function/op", "com.acme:FancyTopK"),
        ("Error No Op registered for FancyTopK with domain_version of 17", "FancyTopK in version 17"),
    ],
)
def test_other_ways_of_saying_that_an_operator_is_lacking_are_understood(said: str, name: str) -> None:
    assert f"m: the runtime has no operator {name}. Replace" in str(lacking_operator("m", said))


def test_other_failures_are_not_taken_for_a_lacking_operator() -> None:
    assert lacking_operator("m", "Node number 4 (RESHAPE) failed to prepare.") is None


SLEEPERS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from edgepack import build, proc
def sleep(): proc.run(["sh", "-c", f"echo $$ >>{sys.argv[1]}; exec sleep 1000"], deadline_s=1000)
build._side_by_side([sleep] * 2, print)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_processes_that_threads_started_end_with_us(tmp_path: Path, number: signal.Signals) -> None:
    pids = tmp_path / "pids"
    pids.touch()
    child = subprocess.Popen([sys.executable, "-c", SLEEPERS, str(pids)], stderr=subprocess.DEVNULL)
    wait_until(lambda: pids.read_text().count("\n") == min(2, os.cpu_count() or 1))
    sleepers = [int(word) for word in pids.read_text().split()]
    child.send_signal(number)
    child.wait(PATIENCE_S)
    wait_until(lambda: not any(map(is_running, sleepers)))


def test_what_is_abandoned_is_not_taken_for_a_failure_of_the_model() -> None:
    taken: list[EdgepackError] = []

    def measure() -> None:
        try:
            proc.run(["sleep", "1000"], deadline_s=1000)
        except EdgepackError as error:
            taken.append(error)

    def fail() -> None:
        wait_until(lambda: bool(proc._running))
        raise MeasureError("another model", "failed", remedy="Mend it.")

    if (os.cpu_count() or 1) > 1:
        with pytest.raises(MeasureError, match="another model"):
            build._side_by_side([measure, fail], lambda _: None)
    assert taken == []
    assert not proc._running


# Thirty interruptions

RUNS, SIDE_BY_SIDE = 30, 2
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
LONGEST_S = 0.8


class Interrupted(NamedTuple):
    """One run: the signal, how many processes were running beside edgepack's then, and what came of it."""

    number: signal.Signals
    children: int
    returncode: int
    said: str
    processes_left: list[int]
    files_left: list[str]


def processes_of(folder: Path) -> list[int]:
    """Return the processes that work in `folder`, or have its name in their arguments or environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            facts = [(path / name).read_bytes() for name in ("cmdline", "environ")]
            if any(str(folder).encode() in fact for fact in facts) or (
                Path.readlink(path / "cwd").is_relative_to(folder)
            ):
                found.append(int(path.name))
        except OSError:  # it has ended meanwhile
            continue
    return [pid for pid in found if is_running(pid)]


def interrupt(folder: Path, number: signal.Signals, after_s: float) -> Interrupted:
    """Measure on an emulated core, and send a signal `after_s` after the emulation began."""
    (folder / "tmp").mkdir(parents=True)
    model = folder / "model.tflite"
    model.write_bytes(INT8.read_bytes())
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    words = [sys.executable, "-m", "edgepack", "measure", str(model), "-t", OLD]
    child = subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    first = child.stderr.readline()
    time.sleep(after_s)
    assert child.poll() is None, "the run was over before the signal"
    children = len(set(processes_of(folder)) - {child.pid})
    child.send_signal(number)
    said = first + child.stderr.read()
    child.wait(PATIENCE_S)
    end = time.monotonic() + 2
    while (left := processes_of(folder)) and time.monotonic() < end:
        time.sleep(0.02)
    files = sorted(path.name for path in (folder / "tmp").iterdir())
    return Interrupted(number, children, child.returncode, said, left, files)


@emulated
def test_thirty_interrupted_runs_leave_no_process_and_no_file(tmp_path: Path) -> None:
    """kill -9 alone leaves a folder of some links in the temporary folder: nobody is there to remove it."""
    draw = random.Random(5)  # noqa: S311
    moments = [(list(SIGNALS)[run % 3], draw.uniform(0.05, LONGEST_S)) for run in range(RUNS)]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        runs = list(pool.map(lambda run: interrupt(tmp_path / str(run), *moments[run]), range(RUNS)))
    assert sum(run.children > 0 for run in runs) > RUNS / 2, "most signals must strike a running emulator"
    assert [run.processes_left for run in runs] == [[]] * RUNS
    assert {(run.number, run.returncode) for run in runs} == set(SIGNALS.items())
    assert not any("Traceback" in run.said for run in runs)
    for run in runs:
        assert run.files_left == [] or run.number == signal.SIGKILL
        assert all(name.startswith("edgepack-arm") for name in run.files_left)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_while_a_process_is_started_is_not_lost(number: signal.Signals) -> None:
    code = (
        "import os, signal, sys\nfrom edgepack import cli, proc\n"
        f"os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), {int(number)}))\n"
        "cli.cli.main = lambda **_: proc.run(['sleep', '20'], deadline_s=30)\ncli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == SIGNALS[number]
    assert "Exception ignored" not in done.stderr


def test_a_signal_that_comes_while_a_folder_is_made_or_removed_leaves_none(tmp_path: Path) -> None:
    # os.rmdir and not shutil.rmtree: Python 3.11.2 (Debian's) has bound that one before it can be replaced.
    code = (
        "import os, signal, tempfile\nfrom edgepack import proc\n"
        "real = {'mkdtemp': tempfile.mkdtemp, 'rmdir': os.rmdir}\n"
        "def struck(name):\n"
        "    def call(*given, **named):\n"
        "        made = real[name](*given, **named) if name == 'mkdtemp' else None\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        return made or real[name](*given, **named)\n"
        "    return call\n"
        "for module, name in ((tempfile, 'mkdtemp'), (os, 'rmdir')):\n"
        "    setattr(module, name, struck(name))\n"
        "    try:\n"
        "        with proc.temporary_folder('edgepack-test-') as folder:\n"
        "            open(os.path.join(folder, 'file'), 'w').close()\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted')\n"
        "    setattr(module, name, real[name])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.stdout == "interrupted\ninterrupted\n"
    assert list(tmp_path.iterdir()) == []
