"""Recordings to codes: the fixtures of XCodec2 code for code, and the embedded codec's own encoder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from voice_core.audio.waveform import Waveform
from voice_core.codec.codec import Codec
from voice_core.codec.encoder import code_fingerprint, load_encoder
from voice_core.codec.mel_encoder import MelEncoder, read_codebook
from voice_core.embedded import DIRECTORY
from voice_core.errors import CheckpointError
from voice_core.speech import Segment
from voice_core.synthesizer import Synthesizer

EMBEDDED_CODEC = DIRECTORY / "codec"
LOG_MEL_DISTANCE = 0.21  # nats, mean over all bands: of the codec on recordings of its voice


@pytest.mark.parametrize("checkpoint", ["tiny_16k", "tiny_44k"])
def test_a_recording_becomes_the_originals_codes(fixtures: Path, checkpoint: str) -> None:
    expected = np.load(fixtures / "codec" / checkpoint / "expected.npz")
    encoder = load_encoder(fixtures / "codec" / checkpoint)
    for samples in (320, 6399, 12803):
        codes = encoder.encode(Waveform(expected[f"in16k_{samples}"], encoder.sample_rate))
        assert len(codes) == samples // 320 + 1
        assert list(codes) == expected[f"enc_{samples}"].tolist()


def test_the_embedded_codec_gives_back_its_voice_within_its_stated_distance() -> None:
    synthesizer = Synthesizer.load("embedded", device="cpu", max_rows=1)
    ((speech,),) = synthesizer.speak([Segment("hello there, how are you today?", 2.2)])
    synthesizer.close()
    encoder, codec = MelEncoder(read_codebook(EMBEDDED_CODEC)), Codec.load(EMBEDDED_CODEC)
    said = Waveform(speech.samples, speech.sample_rate)
    again = Waveform(codec.decode_batch([encoder.encode(said)])[0], codec.sample_rate)
    assert len(again.samples) == len(said.samples)
    distance = (encoder.log_mel(said) - encoder.log_mel(again)).abs().mean()
    assert distance < LOG_MEL_DISTANCE


def test_embedded_codes_are_the_speakers_own_numbers() -> None:
    encoder = load_encoder(EMBEDDED_CODEC)
    silence = Waveform(np.zeros(16000, dtype=np.float32), encoder.sample_rate)
    codes = encoder.encode(silence)
    assert len(codes) == 50
    assert len(set(codes)) == 1
    assert 0 <= codes[0] < Codec.load(EMBEDDED_CODEC).codebook_size


def test_codecs_are_told_apart_by_what_their_codes_mean(fixtures: Path) -> None:
    directories = [EMBEDDED_CODEC, fixtures / "codec" / "tiny_16k", fixtures / "codec" / "tiny_44k"]
    fingerprints = [code_fingerprint(directory) for directory in directories]
    assert len(set(fingerprints)) == 3
    assert fingerprints == [code_fingerprint(directory) for directory in directories]


def test_a_codec_without_an_encoder_says_so(fixtures: Path, tmp_path: Path) -> None:
    shutil.copy(fixtures / "codec" / "small_trained_16k" / "decoder.safetensors", tmp_path)
    with pytest.raises(CheckpointError, match="holds no encoder"):
        load_encoder(tmp_path)


def test_a_broken_encoder_is_refused_by_file_and_key(fixtures: Path, tmp_path: Path) -> None:
    weights = load_file(fixtures / "codec" / "tiny_16k" / "model.safetensors")
    del weights["CodecEnc.conv_blocks.2.block.0.block.0.act.alpha"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"acoustic_encoder\.block\.1\.res_unit1\.snake1\.act\.alpha: is missing"):
        load_encoder(tmp_path)
    (tmp_path / "encoder.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is no codebook"):
        load_encoder(tmp_path)
