"""A row: what the decoder is asked to say, and what it said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from voice_core.errors import RequestError
from voice_core.model.config import ModelConfig
from voice_core.speech import FinishReason, Sampling


@dataclass(frozen=True)
class Row:
    """One sample of one segment as the decoder sees it."""

    text_ids: tuple[int, ...]  # [T] the prompt's transcript, its separator and the text
    target_frames: int  # prompt and speech together: the denominator of progress
    prompt_codes: tuple[int, ...] = ()  # [P] codes of the voice prompt with the separator last, or nothing
    seed: int = 0
    segment_index: int = 0
    sampling: Sampling = field(default_factory=Sampling)

    @property
    def prompt_frames(self) -> int:
        return len(self.prompt_codes)

    @property
    def prefilled_frames(self) -> int:
        """Decoder positions that are taken in before the row's first step, start code and prompt.

        Without a prompt there are none: the first step takes the start code in, beside the codes of other rows.
        """
        return 1 + self.prompt_frames if self.prompt_codes else 0

    def total_frames(self) -> int:
        """Return the decoder positions over which progress runs from 0 to 1, the start code included."""
        return max(self.target_frames + 1, self.prompt_frames + 1)

    def last_step(self, config: ModelConfig) -> int:
        """Return the last step at which a code is still taken as speech; the step after it ends the row."""
        steps = self.target_frames - (self.prompt_frames + 1) + config.extra_frames
        if config.guard_frames_per_token > 0:
            steps = min(steps, len(self.text_ids) * config.guard_frames_per_token)
        return max(steps, -1)

    def capacity_frames(self, config: ModelConfig) -> int:
        """Return the decoder positions that the row needs at most: start code, prompt, speech."""
        return 1 + self.prompt_frames + self.last_step(config) + 1


@dataclass(frozen=True)
class SpokenRow:
    """What came out of a row: its codes without the end code, and why it ended."""

    ids: tuple[int, ...]  # as drawn, shifted back to codec codes; may hold special ids
    finish_reason: FinishReason
    audio_vocab_size: int

    @property
    def codes(self) -> list[int]:
        """The ids that a codec can decode, [F]; special ids are dropped where they stand, not counted off the end."""
        return [code for code in self.ids if 0 <= code < self.audio_vocab_size]

    @property
    def dropped_codes(self) -> int:
        return len(self.ids) - len(self.codes)


def row_target_frames(prompt_frames: int, seconds: float, config: ModelConfig) -> int:
    """Return prompt and speech in frames, rounded down once as the reference does."""
    return int(prompt_frames + config.frames_per_second * seconds)


def prompt_row_codes(codes: Iterable[int], config: ModelConfig) -> tuple[int, ...]:
    """Return the codes of a voice prompt with the separator that closes them; raises RequestError for a wrong code."""
    prompt = tuple(codes)
    for code in prompt:
        if not 0 <= code < config.audio_vocab_size:
            raise RequestError("prompt", f"code {code} lies outside the codec's {config.audio_vocab_size} codes")
    return (*prompt, config.prompt_separator_code) if prompt else ()
