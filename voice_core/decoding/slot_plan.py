"""How many slots the decoder gets, and what each has room for: worked out at start, from the memory that is free."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch

from voice_core.decoding.slots import slot_bytes
from voice_core.errors import SettingError
from voice_core.memory import free_host_bytes
from voice_core.model.config import ModelConfig

logger = logging.getLogger(__name__)

LONGEST_REFERENCE_SECONDS = 30.0  # room for the voice prompt, where nobody says how much
LONGEST_TEXT_TOKENS = 1024  # of a segment and its prompt's transcript; 70 s of fast English, letter by letter
MARK_FRAMES = 2  # the start code, and the separator behind the prompt
ROUNDING_FRAMES = 2  # a codec may round a recording up

# Slots where nobody says how many. More than these bring no speed: a CPU is busy with a few rows, and a GPU's step
# grows with every row once it no longer waits for the weights.
MOST_ROWS = {"cpu": 16, "cuda": 128}
MEMORY_SHARE = 0.8  # of the free memory that slots may take; the rest is for passes through encoder, prefill and codec

# Where memory is short, long segments give way to rows, for a text can be cut into shorter ones.
FEWEST_ROWS = 4  # that are worth it: fewer leave a single row to a request that gets half of them
LEAST_SEGMENT_SECONDS = 10.0  # that they give way to: nearly every sentence is still spoken in one go
SHRINKING_SECONDS = 10.0  # so much at a time: replicas with a little more or less free memory shall agree


@dataclass(frozen=True)
class SlotPlan:
    """How many slots there are, and the longest that each has room for."""

    rows: int
    segment_seconds: float
    prompt_seconds: float

    def frames(self, config: ModelConfig) -> int:
        """Return how many decoder positions the longest row needs: marks, prompt, speech, overrun."""
        speech_frames = int(config.frames_per_second * (self.prompt_seconds + self.segment_seconds))
        return speech_frames + config.extra_frames + MARK_FRAMES + ROUNDING_FRAMES

    def prompt_frames(self, config: ModelConfig) -> int:
        """Return the codes of the longest voice prompt."""
        return int(config.frames_per_second * self.prompt_seconds) + ROUNDING_FRAMES

    def slot_bytes(self, config: ModelConfig, dtype: torch.dtype) -> int:
        return slot_bytes(config.decoder, self.frames(config), LONGEST_TEXT_TOKENS, dtype)


def free_device_bytes(device: torch.device) -> int:
    """Return the memory that can still be taken on a device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_host_bytes()


def plan_slots(
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    free_bytes: int,
    *,
    max_rows: int | None = None,
    longest_segment_seconds: float | None = None,
    longest_reference_seconds: float = LONGEST_REFERENCE_SECONDS,
) -> SlotPlan:
    """Return what fits into `free_bytes`; what isn't given is chosen.

    Segments are as long as the checkpoint's own. Only where so few rows fit that fewer than `max_rows`, or FEWEST_ROWS,
    would be left, they are made shorter, down to LEAST_SEGMENT_SECONDS; the log says so. Raises SettingError for a
    segment that the checkpoint can't speak, and where the memory doesn't hold what is asked for, or not a single row.
    """
    own_seconds = config.longest_seconds
    if longest_segment_seconds is not None and not 0 < longest_segment_seconds <= own_seconds:
        reason = f"{longest_segment_seconds:g} s, this checkpoint speaks at most {own_seconds:g} s in one go"
        raise SettingError(f"longest_segment_seconds: {reason}")

    def rows_of(segment_seconds: float) -> int:
        each_bytes = SlotPlan(1, segment_seconds, longest_reference_seconds).slot_bytes(config, dtype)
        return int(MEMORY_SHARE * free_bytes) // each_bytes

    segment_seconds = least_seconds = longest_segment_seconds or own_seconds
    if longest_segment_seconds is None:
        least_seconds = min(LEAST_SEGMENT_SECONDS, own_seconds)
    most_rows = rows_of(least_seconds)
    if most_rows < (max_rows or 1):
        least = SlotPlan(max_rows or 1, least_seconds, longest_reference_seconds)
        raise _too_little(least, least.slot_bytes(config, dtype), device, free_bytes)
    wanted_rows = min(max_rows or FEWEST_ROWS, most_rows)
    while rows_of(segment_seconds) < wanted_rows:
        shorter_seconds = (math.ceil(segment_seconds / SHRINKING_SECONDS) - 1) * SHRINKING_SECONDS
        segment_seconds = max(least_seconds, shorter_seconds)
    rows = max_rows or min(rows_of(segment_seconds), MOST_ROWS[device.type])
    if longest_segment_seconds is None and segment_seconds < own_seconds:
        logger.warning(
            "Segments take at most %g s instead of the checkpoint's %g s, which makes room for more rows: %d instead "
            "of %d in the %.1f GB that are free on %s. longest_segment_seconds sets another length; a smaller "
            "longest_reference_seconds makes room too",
            *(segment_seconds, own_seconds, rows, rows_of(own_seconds), free_bytes / 1e9, device),
        )
    return SlotPlan(rows, segment_seconds, longest_reference_seconds)


def _too_little(least: SlotPlan, each_bytes: int, device: torch.device, free_bytes: int) -> SettingError:
    rows = "1 row" if least.rows == 1 else f"{least.rows} rows"
    return SettingError(
        f"max_rows: {rows} for segments of {least.segment_seconds:g} s and voice prompts of {least.prompt_seconds:g} s "
        f"need {least.rows * each_bytes / 1e9:.1f} GB, {device} has {free_bytes / 1e9:.1f} GB free and "
        f"{MEMORY_SHARE:.0%} of it may be used; longest_segment_seconds and longest_reference_seconds make rows smaller"
    )
