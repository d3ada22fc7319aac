"""Shared fixtures; a test that needs the real logs or an external tool skips and names what is missing."""

from pathlib import Path

import pytest

DATASETS = Path(__file__).parents[2] / "shared" / "datasets"


@pytest.fixture
def datasets() -> Path:
    if not DATASETS.is_dir():
        pytest.skip("the real logs (../shared/datasets) are not on this machine")
    return DATASETS
