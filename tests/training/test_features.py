"""Mel frames and the codebook: two mel frames a codec frame, and the nearest centroid wins."""

from pathlib import Path

import torch
from torch import Tensor

from training.features import BANDS, LogMel, fit_codebook, load_codebook, mel_bank, stacked_mel
from training.teacher import FRAME_SAMPLES, SAMPLE_RATE
from training.train_codec import code_map
from voice_core.embedded import DIRECTORY as EMBEDDED


def tone(hertz: float, frames: int) -> Tensor:
    """Return [1, N]."""
    return 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(frames * FRAME_SAMPLES) / SAMPLE_RATE)[None]


def test_a_codec_frame_is_two_mel_frames() -> None:
    mel = LogMel()
    assert mel(tone(440, 10)).shape == (1, 20, BANDS)
    assert stacked_mel(mel, tone(440, 10)).shape == (1, 10, 2 * BANDS)


def test_a_higher_tone_is_loudest_in_a_higher_band() -> None:
    loudest = [int(LogMel()(tone(hertz, 10))[0, 10].argmax()) for hertz in (200, 1000, 5000)]
    assert loudest == sorted(set(loudest))


def test_mel_filters_peak_at_one_at_most_and_leave_out_no_band() -> None:
    bank = mel_bank(2048, BANDS)
    assert bank.max() <= 1
    assert (bank.sum(1) > 0).all()


def test_kmeans_tells_tones_apart(tmp_path: Path) -> None:
    mel = LogMel()
    tones = [tone(hertz, 50) for hertz in (200, 700, 3000)]
    codebook = fit_codebook(torch.cat([stacked_mel(mel, each)[0] for each in tones]), seed=0, codes=12)
    inner = [set(codebook(each)[0, 5:-5].tolist()) for each in tones]  # the edges of a tone sound different
    assert len(inner[0] | inner[1] | inner[2]) == sum(map(len, inner))

    codebook.save(tmp_path)
    assert torch.equal(load_codebook(tmp_path)(tones[0]), codebook(tones[0]))


def test_the_packaged_codebook_gives_a_code_a_frame() -> None:
    codes = load_codebook(EMBEDDED / "codec")(tone(300, 25))
    assert codes.shape == (1, 25)
    assert codes.max() < 512


def test_every_code_has_a_codebook_index_of_its_own() -> None:
    indices = code_map(load_codebook(EMBEDDED / "codec"))
    assert len(set(indices)) == 512
    assert max(indices) < 4**8
