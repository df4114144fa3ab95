"""Voices that come with a checkpoint: read by name, refused where they are none."""

import json
from pathlib import Path

import pytest

from voice_core.errors import CheckpointError
from voice_core.voices.built_in import read_built_in_voices

ALTO = {"transcript": "This is alto.", "language": "en", "codes": [0, 9, 4]}


def put(checkpoint: Path, name: str, told: object) -> None:
    (checkpoint / "voices").mkdir(exist_ok=True)
    (checkpoint / "voices" / f"{name}.json").write_text(json.dumps(told), encoding="utf-8")


def test_a_checkpoint_without_voices_has_none(tmp_path: Path) -> None:
    assert read_built_in_voices(tmp_path, codes=10) == ()


def test_voices_are_read_by_name(tmp_path: Path) -> None:
    put(tmp_path, "bass", {"transcript": "And this is bass.", "codes": [5]})
    put(tmp_path, "alto", ALTO)
    alto, bass = read_built_in_voices(tmp_path, codes=10)
    assert (alto.name, alto.prompt.codes, alto.prompt.transcript) == ("alto", (0, 9, 4), "This is alto.")
    assert (bass.name, bass.prompt.language) == ("bass", None)


@pytest.mark.parametrize(
    "told",
    [
        ALTO | {"codes": [0, 10]},
        ALTO | {"codes": [-1]},
        ALTO | {"codes": [True]},
        ALTO | {"codes": []},
        ALTO | {"codes": 3},
        ALTO | {"transcript": " "},
        ALTO | {"transcript": 3},
        ALTO | {"language": 3},
        {"transcript": "No codes."},
        ["no object"],
    ],
)
def test_what_is_no_voice_is_refused_with_its_file(tmp_path: Path, told: object) -> None:
    put(tmp_path, "alto", told)
    with pytest.raises(CheckpointError, match=r"alto\.json"):
        read_built_in_voices(tmp_path, codes=10)


def test_no_file_may_take_the_place_of_the_voice_without_a_prompt(tmp_path: Path) -> None:
    put(tmp_path, "default", ALTO)
    with pytest.raises(CheckpointError, match="without a prompt"):
        read_built_in_voices(tmp_path, codes=10)
