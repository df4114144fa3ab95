"""Voices in a batch: each row speaks as if it were alone."""

from __future__ import annotations

import random

from tests.toy import AUDIO_VOCAB, toy_network
from voice_core.decoding.decoder import BatchDecoder
from voice_core.decoding.rows import Row, prompt_row_codes, row_target_frames
from voice_core.speech import Sampling

VOICES = 32


def rows_of_many_voices(decoder: BatchDecoder) -> list[Row]:
    """Rows whose voices, transcripts, texts, lengths and ways of drawing all differ."""
    chance = random.Random(5)
    rows = []
    for number in range(VOICES):
        codes = [chance.randrange(AUDIO_VOCAB) for _ in range(5 + 7 * number)]
        prompt = prompt_row_codes(codes, decoder.config)
        text_ids = tuple(chance.randrange(60) for _ in range(4 + number % 9))
        target_frames = row_target_frames(len(prompt), chance.uniform(0.3, 1.5), decoder.config)
        sampling = Sampling(temperature=number % 3 / 2)
        rows.append(Row(text_ids, target_frames, prompt, number, number % 4, sampling))
    return rows


def test_32_voices_in_one_pass_say_the_codes_of_each_alone() -> None:
    network = toy_network()
    decoder = BatchDecoder(network, max_rows=VOICES, max_frames=800, max_tokens=80)
    rows = rows_of_many_voices(decoder)
    assert len({row.prompt_codes for row in rows}) == VOICES
    together = decoder.speak(rows)
    alone = [decoder.speak([row])[0] for row in rows]
    assert [spoken.codes for spoken in together] == [spoken.codes for spoken in alone]
    assert len({tuple(spoken.codes) for spoken in together}) > VOICES // 2
