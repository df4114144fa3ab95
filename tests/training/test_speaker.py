"""What the speaker learns from: batches with an end, disturbed inputs, an encoder that may grow."""

from pathlib import Path

import pytest
import torch

from training.speaker import (
    FRAMES_PER_BATCH,
    IGNORED,
    Lesson,
    Speaker,
    batches,
    collate,
    disturbed,
    losses,
)
from training.train_speaker import new_network
from training.voice_files import QUICK_SIZE, VoiceSize, write_voice_files
from voice_core.embedded import DIRECTORY as EMBEDDED
from voice_core.model.checkpoint import save_network
from voice_core.model.config import ModelConfig, read_config
from voice_core.model.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    directory = tmp_path_factory.mktemp("voice")
    write_voice_files(directory, QUICK_SIZE)
    return read_config(directory)


def lesson(frames: int, code: int = 7) -> Lesson:
    return Lesson((1, 2, 3, 1), (1, 2), torch.full((frames,), code))


def test_a_row_begins_with_the_start_code_and_ends_with_the_end_code(config: ModelConfig) -> None:
    batch = collate([lesson(2), lesson(4)], config)
    assert batch.inputs[0].tolist() == [config.start_code, 7, 7, config.start_code, config.start_code]
    assert batch.targets[0].tolist() == [7, 7, config.end_code, IGNORED, IGNORED]
    assert batch.targets[1].tolist() == [7, 7, 7, 7, config.end_code]
    assert batch.lengths.tolist() == [3, 5]


def test_batches_hold_all_lessons_once_and_no_more_than_their_frames(config: ModelConfig) -> None:
    lessons = [lesson(frames) for frames in range(10, 210)]
    stream = batches(lessons, config, torch.Generator().manual_seed(0))
    met: list[int] = []
    while len(met) < len(lessons):
        batch = next(stream)
        assert batch.inputs.numel() <= FRAMES_PER_BATCH
        met += batch.lengths.tolist()
    assert sorted(met) == [each.inputs for each in lessons]


def test_disturbing_changes_some_inputs_but_neither_start_nor_targets(config: ModelConfig) -> None:
    batch = collate([lesson(100) for _ in range(20)], config)
    changed, totals = disturbed(batch, config, torch.Generator().manual_seed(0))
    assert torch.equal(changed.inputs[:, 0], batch.inputs[:, 0])
    assert torch.equal(changed.targets, batch.targets)
    assert 0.02 < (changed.inputs != batch.inputs).float().mean() < 0.15
    assert 90 < totals.min() < 101 < totals.max() < 110


def test_both_losses_reach_the_weights(config: ModelConfig) -> None:
    speaker = Speaker(new_network(config, None), ["a", "b"])
    batch = collate([lesson(5), lesson(9)], config)
    speaking, reading, accuracy = losses(speaker, batch, batch.lengths.float())
    (speaking + reading).backward()
    assert 0 <= accuracy <= 1
    assert all(parameter.grad is not None for parameter in speaker.parameters())


def test_a_grown_encoder_says_at_first_what_the_smaller_one_said(tmp_path: Path) -> None:
    small = tmp_path / "small"
    write_voice_files(small, QUICK_SIZE)
    torch.manual_seed(0)
    network = new_network(read_config(small), None)
    save_network(network, small, torch.float32)

    large = tmp_path / "large"
    write_voice_files(large, VoiceSize(hidden=32, inner=64, encoder_layers=3, decoder_layers=1, heads=2, kv_heads=1))
    grown = new_network(read_config(large), start=small)
    text_ids, lengths = torch.tensor([[1, 5, 9, 1]]), torch.tensor([4])
    assert torch.allclose(grown.encoder(text_ids, lengths), network.encoder(text_ids, lengths), atol=1e-6)


def test_the_written_tokenizer_is_the_packaged_one(tmp_path: Path) -> None:
    write_voice_files(tmp_path, QUICK_SIZE)
    written = load_tokenizer(tmp_path, read_config(tmp_path))
    packaged = load_tokenizer(EMBEDDED, read_config(EMBEDDED))
    text = 'Hello - it\'s "me", 100% (really)?!'
    assert written.row_ids(text) == packaged.row_ids(text)
