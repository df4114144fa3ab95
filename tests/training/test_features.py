"""Mel frames and the codebook: two mel frames a codec frame, and the nearest centroid wins."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.alignment import aligned, cheapest_path
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


def test_kmeans_tells_tones_apart_and_knows_which_are_each_others_like(tmp_path: Path) -> None:
    mel = LogMel()
    tones = [tone(hertz, 50) for hertz in (200, 700, 3000)]
    high_tones = [tone(2 * hertz, 50) for hertz in (200, 700, 3000)]
    frames = [torch.cat([stacked_mel(mel, each)[0] for each in voice]) for voice in (tones, high_tones)]
    codebook = fit_codebook(torch.stack(frames), seed=0, codes=12)
    inner = [set(codebook(each)[0, 5:-5].tolist()) for each in tones]  # the edges of a tone sound different
    assert len(inner[0] | inner[1] | inner[2]) == sum(map(len, inner))
    assert max(inner[0] | inner[1] | inner[2]) < 12
    high = [set(codebook(each, voice=1)[0, 5:-5].tolist()) for each in high_tones]
    assert [{code - 12 for code in codes} for codes in high] == inner

    codebook.save(tmp_path)
    assert torch.equal(load_codebook(tmp_path)(tones[0]), codebook(tones[0]))


def test_frames_of_a_slower_voice_find_those_that_say_the_same() -> None:
    mel = LogMel()
    quick = torch.cat([tone(hertz, 10) for hertz in (300, 1500, 600)], dim=1)
    slow = torch.cat([tone(hertz, 12) for hertz in (300, 1500, 600)], dim=1)
    one, other = aligned(stacked_mel(mel, quick)[0], stacked_mel(mel, slow)[0])
    assert len(one) == len(other) >= 36
    assert (one - other).abs().mean() < 0.2  # shifted by two frames they differ by more than 2


def test_the_cheapest_path_goes_along_the_diagonal_of_equals() -> None:
    distances = 1 - np.eye(4)
    assert cheapest_path(distances) == [(0, 0), (1, 1), (2, 2), (3, 3)]


def test_the_packaged_codebook_gives_a_code_a_frame() -> None:
    codes = load_codebook(EMBEDDED / "codec")(tone(300, 25))
    assert codes.shape == (1, 25)
    assert codes.max() < len(load_codebook(EMBEDDED / "codec").centroids)


def test_every_code_has_a_codebook_index_of_its_own() -> None:
    codebook = load_codebook(EMBEDDED / "codec")
    indices = code_map(codebook)
    assert len(set(indices)) == len(codebook.centroids)
    assert max(indices) < 4**8
