"""What the speaker learns from: batches with an end, voice prompts, disturbed inputs, codes that voices share."""

import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from training.corpus import Utterance
from training.speaker import (
    FRAMES_PER_BATCH,
    IGNORED,
    TONE_CODES,
    Batch,
    Lesson,
    OffPace,
    Speaker,
    batches,
    collate,
    disturbed,
    losses,
)
from training.train_speaker import HELD_OUT, apart, new_network, with_prompts
from training.voice_files import QUICK_SIZE, write_voice_files
from voice_core.embedded import DIRECTORY as EMBEDDED
from voice_core.model.checkpoint import load_network, save_network
from voice_core.model.config import ModelConfig, read_config
from voice_core.model.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    directory = tmp_path_factory.mktemp("voice")
    write_voice_files(directory, QUICK_SIZE)
    return read_config(directory)


def lesson(frames: int, code: int = 7, voice: int = 0) -> Lesson:
    return Lesson((1, 2, 3, 1), (1, 2), torch.full((frames,), code), voice)


def test_a_row_begins_with_the_start_code_and_ends_with_the_end_code(config: ModelConfig) -> None:
    batch = collate([lesson(2), lesson(4)], config)
    assert batch.inputs[0].tolist() == [config.start_code, 7, 7, config.start_code, config.start_code]
    assert batch.targets[0].tolist() == [7, 7, config.end_code, IGNORED, IGNORED]
    assert batch.targets[1].tolist() == [7, 7, 7, 7, config.end_code]
    assert batch.lengths.tolist() == [3, 5]


def test_while_a_code_is_held_what_comes_after_it_is_due(config: ModelConfig) -> None:
    spoken = replace(lesson(4), codes=torch.tensor([5, 6, 7, 8]))
    generator = torch.Generator().manual_seed(0)
    batch = collate(
        [spoken, spoken.delayed(3, 2, generator, hurry=0.4), spoken.delayed(1, 3, generator, hurry=0.4)], config
    )
    start, end = config.start_code, config.end_code
    assert batch.inputs.tolist()[1:] == [[start, 5, 6, 7, 8, 8, 8, start], [start, 5, 6, 6, 6, 6, 7, 8]]
    assert batch.targets.tolist()[1:] == [[5, 6, 7, 8, end, end, end, IGNORED], [5, 6, 7, 7, 7, 7, 8, end]]
    assert batch.lengths.tolist() == [5, 5, 5]  # of the time that was asked for
    timely, _, held = batch.places
    assert held.tolist() == [*timely[:3].tolist(), *[timely[2].item()] * 3, *timely[3:5].tolist()]


@pytest.mark.parametrize("spread", [False, True])
def test_a_delay_never_teaches_to_stay_where_a_code_is_repeated(config: ModelConfig, spread: bool) -> None:
    spoken = replace(lesson(7), codes=torch.tensor([5, 6, 6, 6, 7, 8, 8]))
    late = spoken.delayed(1, 2, torch.Generator().manual_seed(0), hurry=0, spread=spread)
    batch = collate([late], config)
    inputs = [5, 6, 6, 6, 6, 7, 7, 8, 8] if spread else [5, 6, 6, 6, 6, 6, 7, 8, 8]
    targets = [6, 6, 6, 7, 7, 8, 8, 8, config.end_code] if spread else [6, 6, 6, 7, 7, 7, 8, 8, config.end_code]
    assert batch.inputs[0].tolist() == [config.start_code, *inputs]
    assert batch.targets[0].tolist() == [5, *targets]


def test_speech_hurries_after_a_delay_and_leaves_out_repeated_codes_first(config: ModelConfig) -> None:
    codes = torch.tensor([4, 9, 5, 5, 6, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22])
    spoken, generator = replace(lesson(22), codes=codes), torch.Generator().manual_seed(0)
    batch = collate([spoken.delayed(1, 2, generator, hurry=0.4), spoken.delayed(1, 9, generator, hurry=0.4)], config)
    shortly, long = batch.inputs.tolist()
    assert shortly[:23] == [config.start_code, 4, 9, 9, 9, 5, *range(6, 23)]
    assert batch.targets[0, 2:6].tolist() == [5, 5, 5, 6]
    assert len(long) == 1 + 22 + 9 - 8  # 0.4 of the 20 frames that were left are made up
    assert long[:12] == [config.start_code, 4, *[9] * 10]
    assert long[12:] == sorted(set(long[12:]))
    assert batch.targets[1, -1] == config.end_code


def test_a_spread_delay_says_many_codes_twice(config: ModelConfig) -> None:
    spoken = replace(lesson(6), codes=torch.tensor([5, 6, 7, 8, 9, 10]))
    late = spoken.delayed(1, 3, torch.Generator().manual_seed(0), hurry=0.4, spread=True)
    end = spoken.delayed(4, 3, torch.Generator().manual_seed(0), hurry=0.4, spread=True)
    batch = collate([late, end], config)
    assert batch.inputs[0].tolist() == [config.start_code, 5, 6, 6, 7, 7, 8, 8, 9, 10]
    assert batch.targets[0].tolist() == [5, 6, 7, 7, 8, 8, 9, 9, 10, config.end_code]
    assert batch.inputs[1, :9].tolist() == [config.start_code, 5, 6, 7, 8, 9, 9, 10, 10]


def test_a_lesson_that_runs_ahead_slows_down_until_it_is_in_time_and_never_teaches_to_rush(config: ModelConfig) -> None:
    codes = torch.tensor([4, 5, 5, 5, 6, 7, 7, 8, 9, 9, 10, 11, 11, 12, 13, 13, 14, 15, 15, 16])
    spoken = replace(lesson(20), codes=codes)
    ahead = spoken.ahead(1, 2, torch.Generator().manual_seed(0))
    batch = collate([ahead], config)
    inputs, targets = batch.inputs[0].tolist(), batch.targets[0].tolist()
    assert inputs[:5] == [config.start_code, 4, 5, 6, 7]  # two of the next four are left out, those that are repeated
    assert targets[:5] == [4, 5, 5, 7, 7]  # but they are due
    assert targets[5:] == [*inputs[6:], config.end_code]  # what is said twice is due twice
    assert len(inputs[5:]) == len(codes[6:]) + 2
    assert set(inputs[5:]) == set(codes[6:].tolist())


@pytest.mark.parametrize("place", [0, 5, 17, 19])
@pytest.mark.parametrize("frames", [1, 20])
def test_a_lesson_that_runs_ahead_is_in_time_at_its_end(place: int, frames: int) -> None:
    spoken = replace(lesson(20), codes=torch.arange(20) % 7)
    ahead = spoken.ahead(place, frames, torch.Generator().manual_seed(0))
    assert ahead.inputs == spoken.inputs
    assert ahead.moments is not None
    assert ahead.moments[-1] == 19
    if (place, frames) == (0, 20):
        assert (ahead.moments - torch.arange(20)).max() == 3  # 0.3 of the ten that follow


def test_a_lesson_that_runs_ahead_is_soon_in_time_again() -> None:
    spoken = replace(lesson(100), codes=torch.arange(100))
    ahead = spoken.ahead(10, 6, torch.Generator().manual_seed(0))
    assert ahead.moments is not None
    lead_frames = ahead.moments - torch.arange(100)
    assert lead_frames.max() == 6
    assert lead_frames[:11].max() == 0
    assert lead_frames[10 + 6 + 1 + 20 + 6 :].max() == 0  # 6 are three tenths of 20


def test_as_many_lessons_run_ahead_as_are_asked_to(config: ModelConfig) -> None:
    def rushing(share: float) -> float:
        spoken = replace(lesson(40), codes=torch.arange(40))
        stream = batches([spoken] * 400, config, torch.Generator().manual_seed(1), off_pace=OffPace(0, ahead=share))
        unprompted = torch.cat([batch.inputs[batch.prompts == 0, 1:41] for batch in islice(stream, 12)])
        return (unprompted.diff() > 1).any(1).float().mean().item()

    assert rushing(0) == 0
    assert 0.8 < rushing(1) < 1  # too near to the end there is nothing to be left out
    assert 0.35 < rushing(0.5) < 0.6


def test_delays_are_as_late_and_as_hurried_as_they_are_asked_to_be(config: ModelConfig) -> None:
    def made(off_pace: OffPace) -> list[Batch]:
        spoken = replace(lesson(40), codes=torch.arange(40) % 7)
        stream = batches([spoken] * 400, config, torch.Generator().manual_seed(1), off_pace=off_pace)
        return list(islice(stream, 12))

    def ends(batch: Batch) -> Tensor:
        return batch.targets == config.end_code  # [B, S]; an end that comes late is due all the while

    def lateness_frames(batch: Batch) -> int:
        last_end = torch.where(ends(batch), torch.arange(batch.targets.shape[1]), -1).amax(1)
        return int((last_end + 1 - batch.lengths).sum())

    timely_ends, late_ends = made(OffPace(late_ends=0, hurry=0)), made(OffPace(late_ends=1, hurry=0))
    assert max(int(ends(batch).sum(1).max()) for batch in timely_ends) <= 2  # the last code may be said twice
    assert max(int(ends(batch).sum(1).max()) for batch in late_ends) > 30
    hurried = made(OffPace(late_ends=0, hurry=1))
    assert sum(map(lateness_frames, timely_ends)) > 2 * sum(map(lateness_frames, hurried)) > 0
    assert sum(map(lateness_frames, made(OffPace(delayed=0)))) == 0


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_beyond_all_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="hurry is a share"):
        OffPace(hurry=share)
    with pytest.raises(ValueError, match="late_ends is a share"):
        OffPace(late_ends=share)
    with pytest.raises(ValueError, match="ahead is a share"):
        OffPace(ahead=share)
    with pytest.raises(ValueError, match="delayed is a share"):
        OffPace(delayed=share)


def test_batches_hold_all_lessons_once_and_no_more_than_their_frames(config: ModelConfig) -> None:
    lessons = [replace(lesson(frames), phoneme_ids=(frames,)) for frames in range(10, 210)]
    stream = batches(lessons, config, torch.Generator().manual_seed(0))
    met: list[int] = []
    while len(met) < len(lessons):
        batch = next(stream)
        assert batch.inputs.numel() <= FRAMES_PER_BATCH
        met += batch.phonemes[batch.phoneme_counts.cumsum(0) - 1].tolist()  # the last one is no prompt's
    assert sorted(met) == list(range(10, 210))


def test_disturbing_changes_some_inputs_but_neither_start_nor_targets(config: ModelConfig) -> None:
    batch = collate([lesson(100) for _ in range(20)], config)
    changed, totals = disturbed(batch, config, torch.Generator().manual_seed(0))
    assert torch.equal(changed.inputs[:, 0], batch.inputs[:, 0])
    assert torch.equal(changed.targets, batch.targets)
    assert changed.inputs[:, 1:].max() < config.audio_vocab_size // 2  # the wrong codes are of the right voice
    assert 0.02 < (changed.inputs != batch.inputs).float().mean() < 0.15
    assert 95 < totals.min() < 101 < totals.max() < 105


def test_both_losses_reach_the_weights(config: ModelConfig) -> None:
    speaker = Speaker(new_network(config), ["a", "b"])
    batch = collate([lesson(5), lesson(9)], config)
    speaking, reading, accuracy = losses(speaker, batch, batch.lengths.float())
    (speaking + reading).backward()
    assert 0 <= accuracy <= 1
    assert all(parameter.grad is not None for parameter in speaker.parameters())


def test_a_prompted_lesson_is_laid_out_as_the_product_does(config: ModelConfig, tmp_path: Path) -> None:
    write_voice_files(tmp_path, QUICK_SIZE)
    tokenizer = load_tokenizer(tmp_path, config)
    prompt, text = "my voice.", "says this!"
    first = Lesson(tokenizer.row_ids(prompt), (1,), torch.tensor([3, 4]), voice=1)
    second = Lesson(tokenizer.row_ids(text), (2,), torch.tensor([5]), voice=1)
    both = second.after(first, config.prompt_separator_code)
    assert both.text_ids == tokenizer.row_ids(text, transcript=prompt)
    assert both.codes.tolist() == [3, 4, config.prompt_separator_code, 5]
    assert both.phoneme_ids == (1, 2)

    batch = collate([both], config)
    assert batch.inputs.tolist() == [[config.start_code, 3, 4, config.prompt_separator_code, 5]]
    assert batch.targets[0, 3:].tolist() == [5, config.end_code]
    assert batch.targets[0, 2] == IGNORED  # whoever speaks can't know that the prompt is over
    _, totals = disturbed(batch, config, torch.Generator().manual_seed(0))
    assert totals.tolist() == [5]  # the prompt's 3 inputs, the start and one frame


def test_places_run_evenly_over_prompt_and_utterance(config: ModelConfig) -> None:
    prompt = Lesson((1, 2, 1), (), torch.full((5,), 7), voice=0)
    spoken = Lesson((1, 2, 2, 2, 1), (), torch.full((3,), 7), voice=0)
    batch = collate([spoken.after(prompt, config.prompt_separator_code)], config)
    assert batch.places[0].tolist() == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6])


def test_the_first_voice_speaks_without_a_prompt_too_the_other_never(config: ModelConfig) -> None:
    lessons = [lesson(50, code=7, voice=number % 2) for number in range(200)]
    stream = batches(lessons, config, torch.Generator().manual_seed(0))
    met = [next(stream) for _ in range(100)]
    prompted = [torch.cat([batch.prompts[batch.voices == voice] for batch in met]) > 0 for voice in (0, 1)]
    assert 0.1 < prompted[0].float().mean() < 0.5
    assert prompted[1].all()


def test_some_prompts_are_no_speech_or_other_words_and_nothing_is_learned_of_them(config: ModelConfig) -> None:
    lessons = [replace(lesson(frames), codes=torch.arange(frames) % 8, voice=1) for frames in range(45, 85)]
    stream = batches(lessons, config, torch.Generator().manual_seed(0))
    told = {True: 0, False: 0}
    few_codes = 0
    for batch in (next(stream) for _ in range(60)):
        for inputs, targets, prompt in zip(batch.inputs, batch.targets, batch.prompts.tolist(), strict=True):
            codes, learned = inputs[1:prompt], targets[: prompt - 1] != IGNORED
            assert not learned[:6].any()
            told[bool(learned[6:].any())] += 1
            if learned[6:].any():
                assert learned[6:].all()
                assert len(codes.unique()) == 8
            elif len(codes.unique()) <= TONE_CODES:
                few_codes += 1
                assert codes.min() >= config.audio_vocab_size // 2  # of the voice that is to speak
            assert targets[prompt] != IGNORED
    assert 0.1 < told[False] / sum(told.values()) < 0.3
    assert 0.4 < few_codes / told[False] < 0.8


def test_what_is_learned_of_a_code_is_known_in_every_voice(config: ModelConfig) -> None:
    speaker = Speaker(new_network(config), ["a"])
    codes = config.audio_vocab_size // 2
    with torch.no_grad():
        for parameter in speaker.network.decoder.embedding.parameters():
            parameter.normal_()
    plain = speaker.plain_network().decoder.embedding.weight
    assert plain.shape == (config.code_vocab_size, config.decoder.hidden_size)
    between_voices = plain[codes : 2 * codes] - plain[:codes]
    assert torch.allclose(between_voices, between_voices[:1].expand_as(between_voices), atol=1e-5)


def test_the_plain_network_says_what_the_learning_one_says(config: ModelConfig, tmp_path: Path) -> None:
    write_voice_files(tmp_path, QUICK_SIZE)
    speaker = Speaker(new_network(config), ["a"])
    hidden = torch.randn(2, config.decoder.hidden_size)
    save_network(speaker.plain_network(), tmp_path, torch.float32)
    loaded = load_network(tmp_path, config, device=torch.device("cpu"), dtype=torch.float32)
    assert torch.allclose(loaded.head(hidden), speaker.network.head(hidden), atol=1e-6)


def test_guidance_makes_far_text_invisible(config: ModelConfig) -> None:
    speaker = Speaker(new_network(config), ["a"])
    batch = collate([Lesson(tuple(range(1, 31)) * 3, (1,), torch.full((40,), 7), voice=0)], config)
    other_end = batch._replace(text_ids=torch.cat((batch.text_ids[:, :80], 1 + batch.text_ids[:, 80:]), 1))
    # The encoder spreads the difference over the whole text; it must not, for this test.
    for layer in speaker.network.encoder.layers:
        torch.nn.init.zeros_(layer.after_attention.gain)
    with torch.no_grad():
        free, led = (
            [speaker(each, each.lengths.float(), guidance)[0][0, 5] for each in (batch, other_end)]
            for guidance in (0.0, 1.0)
        )
    assert (free[0] - free[1]).abs().max() > 100 * (led[0] - led[1]).abs().max()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_a_compiled_speaker_learns_the_same(config: ModelConfig) -> None:
    torch.manual_seed(0)
    speaker = Speaker(new_network(config), ["a", "b"])
    compiled = torch.compile(speaker, dynamic=True)
    for frames, guidance in ((40, 1.0), (50, 0.5), (50, 0.0)):
        batch = collate([lesson(frames), lesson(frames - 9, code=600, voice=1)], config)
        told = []
        for each in (speaker, compiled):
            speaker.zero_grad()
            speaking, reading, _ = losses(each, batch, batch.lengths.float(), torch.tensor(guidance))
            (speaking + reading).backward()
            gradients = torch.cat([parameter.grad.flatten() for parameter in speaker.parameters()])
            told.append((speaking.item(), reading.item(), gradients))
        ours, theirs = told
        assert ours[:2] == pytest.approx(theirs[:2], rel=1e-2)
        assert torch.nn.functional.cosine_similarity(ours[2], theirs[2], dim=0) > 0.99


def test_the_written_tokenizer_is_the_packaged_one(tmp_path: Path) -> None:
    write_voice_files(tmp_path, QUICK_SIZE)
    written = load_tokenizer(tmp_path, read_config(tmp_path))
    packaged = load_tokenizer(EMBEDDED, read_config(EMBEDDED))
    text = 'Hello - it\'s "me", 100% (really)?!'
    assert written.row_ids(text) == packaged.row_ids(text)


def test_what_is_validated_on_is_never_learned_and_prompted_where_its_voice_needs_it(config: ModelConfig) -> None:
    corpus = [Utterance(f"text {number % 200}", "a", number % 2, np.zeros(50, np.int16)) for number in range(400)]
    held_out, learned = apart(corpus)
    assert len(held_out) == HELD_OUT
    assert {each.text for each in held_out}.isdisjoint(each.text for each in learned)
    lessons = with_prompts([lesson(60, voice=0), lesson(30, code=8, voice=1), lesson(60, code=8, voice=1)], config)
    assert [each.prompt_inputs for each in lessons] == [0, 61]
