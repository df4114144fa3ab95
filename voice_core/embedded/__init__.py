"""The voice that comes with the package: a checkpoint like every other, only small."""

from pathlib import Path

DIRECTORY = Path(__file__).resolve().parent
