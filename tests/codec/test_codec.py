from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from voice_core.codec.checkpoint import load_decoder
from voice_core.codec.codec import Codec
from voice_core.codec.config import CodecConfig
from voice_core.errors import CheckpointError, SynthesisError
from voice_core.model.config import read_config

from .toy import TOY_16K, TOY_44K, save, toy_decoder

EMBEDDED = Path(__file__).resolve().parents[2] / "voice_core" / "embedded" / "codec"
TOLERANCE = 1e-4  # of float32 sums in another order; 2e-6 is seen
CASES = ("1", "2", "7", "40", "61", "corner")


def toy_codec(config: CodecConfig = TOY_16K) -> Codec:
    return Codec(toy_decoder(config), batched=True)


def random_items(*lengths_frames: int, codebook_size: int = 65536) -> list[NDArray[np.int64]]:
    random = np.random.default_rng(11)
    return [random.integers(0, codebook_size, frames) for frames in lengths_frames]


def assert_close(sound: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert sound.shape == expected.shape
    assert np.abs(sound - expected).max(initial=0.0) < TOLERANCE


@pytest.mark.parametrize(("name", "sample_rate"), [("tiny_16k", 16000), ("tiny_44k", 44100)])
def test_original_checkpoints_sound_as_the_original_does(fixtures: Path, name: str, sample_rate: int) -> None:
    codec = Codec.load(fixtures / "codec" / name)
    truth = np.load(fixtures / "codec" / name / "expected.npz")
    assert codec.sample_rate == sample_rate
    assert codec.samples_per_frame == sample_rate // 50
    assert codec.codebook_size == 65536
    alone = [codec.decode_batch([truth[f"codes_{case}"]])[0] for case in CASES]
    batched = Codec(load_decoder(fixtures / "codec" / name), batched=True)
    together = batched.decode_batch([truth[f"codes_{case}"] for case in CASES])
    for case, one, of_many in zip(CASES, alone, together, strict=True):
        assert_close(one, truth[f"wave_{case}"])
        assert_close(of_many, truth[f"wave_{case}"])


@pytest.mark.parametrize("config", [TOY_16K, TOY_44K, replace(TOY_16K, rope_axis="time")])
def test_a_batch_sounds_as_its_items_do_alone(config: CodecConfig) -> None:
    codec = toy_codec(config)
    items = random_items(30, 1, 25, 0, 30, 2, 24, 28, 13)
    for item, sound in zip(items, codec.decode_batch(items), strict=True):
        assert len(sound) == len(item) * codec.samples_per_frame
        assert_close(sound, codec.decode_batch([item])[0])


@pytest.mark.parametrize("config", [TOY_16K, TOY_44K])
def test_a_traced_codec_gives_the_same_bits_for_every_length(config: CodecConfig) -> None:
    items = random_items(1, 15, 16, 17, 64, 90)
    codec = Codec(toy_decoder(config))
    expected = codec.decode_batch(items)
    codec.trace()
    assert codec.traced
    for sound, same in zip(codec.decode_batch(items), expected, strict=True):
        assert np.array_equal(sound, same)


def test_on_a_cpu_an_item_has_the_same_bits_whatever_else_waits() -> None:
    codec = Codec(toy_decoder(TOY_44K))
    items = random_items(30, 1, 25, 28)
    for item, sound in zip(items, codec.decode_batch(items), strict=True):
        assert np.array_equal(sound, codec.decode_batch([item])[0])


@pytest.mark.gpu
def test_a_batch_on_a_gpu_sounds_as_its_items_do_alone_on_a_cpu() -> None:
    items = random_items(30, 1, 25, 28)
    for item, sound in zip(items, Codec(toy_decoder(TOY_44K), "cuda").decode_batch(items), strict=True):
        assert_close(sound, toy_codec(TOY_44K).decode_batch([item])[0])


def test_the_trained_toy_codec_loads_and_is_heard(fixtures: Path) -> None:
    codec = Codec.load(fixtures / "codec" / "small_trained_16k")
    (sound,) = codec.decode_batch(random_items(20))
    assert codec.sample_rate == 16000
    assert 0.01 < np.abs(sound).max() < 2


def test_the_embedded_codec_takes_the_speakers_codes() -> None:
    codec, codes = Codec.load(EMBEDDED), read_config(EMBEDDED.parent).audio_vocab_size
    assert (codec.sample_rate, codec.frames_per_second, codec.codebook_size) == (16000, 50, codes)
    items = random_items(50, 40, codebook_size=codes)
    for item, sound in zip(items, codec.decode_batch(items), strict=True):
        assert_close(sound, codec.decode_batch([item])[0])
        assert np.abs(sound).max() > 0.01
    with pytest.raises(ValueError, match=f"code {codes} of frame 0"):
        codec.decode_batch([[codes]])


def test_a_code_map_leads_to_the_codebook() -> None:
    mapped = toy_codec(replace(TOY_16K, code_map=(700, 3, 65535)))
    assert_close(mapped.decode_batch([[2, 0, 1]])[0], toy_codec().decode_batch([[65535, 700, 3]])[0])


def test_items_may_be_lists_arrays_or_tensors() -> None:
    codec = toy_codec()
    codes = [5, 60000, 7]
    spellings = [
        codes,
        tuple(codes),
        np.array(codes, dtype=np.uint16),
        torch.tensor(codes, dtype=torch.int32),
    ]
    first, *others = codec.decode_batch(spellings)
    for other in others:
        assert_close(other, first)


def test_nothing_in_nothing_out() -> None:
    assert toy_codec().decode_batch([]) == []
    (sound,) = toy_codec().decode_batch([[]])
    assert sound.shape == (0,)
    assert sound.dtype == np.float32


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ([1, 65536], "item 1: code 65536 of frame 1 is not in 0..65535"),
        ([-1], "item 1: code -1 of frame 0"),
        ([2**63], "item 1: code 9223372036854775808"),
        ([0.5], "whole numbers"),
        ([True], "whole numbers"),
        ([[1, 2]], "one dimension"),
    ],
)
def test_what_is_no_code_is_refused_before_the_network(item: list[int], reason: str) -> None:
    decoder = toy_decoder()
    decoder.register_forward_pre_hook(lambda *_: pytest.fail("the network was asked"))
    with pytest.raises(ValueError, match=reason):
        Codec(decoder).decode_batch([[1, 2], item])


def test_a_sound_that_is_no_number_is_an_error() -> None:
    decoder = toy_decoder()
    torch.nn.init.constant_(decoder.fc_post_a.bias, torch.nan)
    with pytest.raises(SynthesisError, match="item 1"):
        Codec(decoder).decode_batch([[], [1, 2, 3]])


def test_a_checkpoint_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        Codec.load(tmp_path / "nowhere")


def test_a_saved_codec_sounds_as_before(tmp_path: Path) -> None:
    decoder = toy_decoder(TOY_44K)
    (item,) = random_items(5)
    loaded = Codec.load(save(tmp_path, decoder.state_dict(), TOY_44K))
    assert_close(loaded.decode_batch([item])[0], Codec(decoder).decode_batch([item])[0])
