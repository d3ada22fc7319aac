"""Shared fixtures; a test that needs the real logs or an external tool skips and names what is missing."""

import signal
from pathlib import Path

import pytest

DATASETS = Path(__file__).parents[2] / "shared" / "datasets"


@pytest.fixture
def datasets() -> Path:
    if not DATASETS.is_dir():
        pytest.skip("the real logs (../shared/datasets) are not on this machine")
    return DATASETS


def pytest_configure() -> None:
    # A shell without job control starts what it puts in the background with SIGINT ignored, and every process
    # that a test starts would inherit that: an interrupt would then interrupt nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
