"""What the tests share. They run where the wheel is installed: `pytest python/tests`."""

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
NINE = ROOT / "assets" / "nine.png"


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of the original code's answers."""
    return GOLDEN


@pytest.fixture(scope="session")
def nine() -> Path:
    """A handwritten nine."""
    return NINE


@pytest.fixture(scope="session")
def program():
    """Runs a program of the wheel: `program("nat-infer", "classify", …)`."""

    def run(name: str, *arguments: object, **options: object) -> subprocess.CompletedProcess:
        path = Path(sysconfig.get_path("scripts")) / name
        command = [str(path), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)

    return run


@pytest.fixture(scope="session")
def records(program):
    """The records that `nat-infer` writes: `records("classify", …)`."""

    def run(*arguments: object) -> list:
        done = program("nat-infer", *arguments, "--format", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
