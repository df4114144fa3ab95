"""Export writes a checkpoint that loads, sharper by the factor asked for; pictures are PNG files."""

import struct
from pathlib import Path

import numpy as np
import torch

from training.draw import png, spectrogram
from training.export import LARGEST_MEGABYTES, export
from voice_core.embedded import DIRECTORY as EMBEDDED
from voice_core.model.checkpoint import load_network
from voice_core.model.config import read_config
from voice_core.model.network import Network


def network_of(directory: Path) -> Network:
    return load_network(directory, read_config(directory), device=torch.device("cpu"), dtype=torch.float32)


def test_an_exported_voice_has_logits_as_much_larger_as_asked(tmp_path: Path) -> None:
    megabytes = export([EMBEDDED], tmp_path, sharpness=2.0)
    assert 1 < megabytes <= LARGEST_MEGABYTES
    hidden = torch.randn(3, 192, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network_of(tmp_path).head(hidden), 2 * network_of(EMBEDDED).head(hidden), atol=1e-3)


def test_an_exported_voice_ends_as_much_more_gladly_as_asked(tmp_path: Path) -> None:
    export([EMBEDDED], tmp_path, end_bias=3.0)
    end_code = read_config(EMBEDDED).end_code
    hidden = torch.randn(3, 192, generator=torch.Generator().manual_seed(0))
    more = network_of(tmp_path).head(hidden) - network_of(EMBEDDED).head(hidden)
    assert torch.allclose(more[:, end_code], torch.tensor(3.0), atol=1e-2)
    assert more[:, :end_code].abs().max() < 1e-3


def test_several_states_of_a_run_become_their_mean(tmp_path: Path) -> None:
    export([EMBEDDED], tmp_path / "sharper", sharpness=3.0)
    export([EMBEDDED, tmp_path / "sharper"], tmp_path / "mean")
    ours, mean = network_of(EMBEDDED), network_of(tmp_path / "mean")
    hidden = torch.randn(3, 192, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(mean.head(hidden), 2 * ours.head(hidden), atol=1e-3)
    assert torch.equal(mean.decoder.embedding.weight, ours.decoder.embedding.weight)


def test_a_tone_is_a_dark_line_in_its_spectrogram() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    picture = spectrogram(tone)
    frequencies = np.linspace(8000, 0, len(picture))  # the highest on top
    assert abs(frequencies[picture[:, 100].argmin()] - 1000) < 40


def test_a_picture_states_its_size() -> None:
    file = png(np.zeros((3, 5), np.uint8))
    assert file.startswith(b"\x89PNG")
    assert struct.unpack(">II", file[16:24]) == (5, 3)
