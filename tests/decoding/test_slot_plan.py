"""What is chosen for a memory of so many bytes; the shape is that of T5Gemma-TTS 2b-2b."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from tests.toy import toy_config
from voice_core.decoding.decoder import BatchDecoder
from voice_core.decoding.slot_plan import LONGEST_TEXT_TOKENS, MEMORY_SHARE, SlotPlan, plan_slots
from voice_core.embedded import DIRECTORY as EMBEDDED
from voice_core.errors import SettingError
from voice_core.model.checkpoint import load_network
from voice_core.model.config import ModelConfig, parse_config, read_config

BIG = {"num_hidden_layers": 26, "num_key_value_heads": 4, "head_dim": 256, "layer_types": ["full_attention"] * 26}
FRAME_BYTES = 2 * 26 * 4 * 256 * 2  # keys and values of all layers and heads in bfloat16
FULL_BYTES = FRAME_BYTES * (50 * (30 + 40 + 5) + 4 + 1024)  # prompt, speech, overrun; marks and rounding; text
LEAST_BYTES = FULL_BYTES - FRAME_BYTES * 50 * 30  # segments of 10 s


def config() -> ModelConfig:
    raw = toy_config(extra_cutoff=5.0)
    raw["t5_config_dict"]["decoder"] |= BIG
    return parse_config(raw, "config.json")


def plan_for(slot_bytes: float, *, device: str = "cuda", **settings: Any) -> SlotPlan:
    """Plan for a memory of which slots may take `slot_bytes`."""
    free_bytes = int(slot_bytes / MEMORY_SHARE) + 10
    return plan_slots(config(), torch.bfloat16, torch.device(device), free_bytes, **settings)


def test_a_slot_takes_what_its_longest_row_needs() -> None:
    assert SlotPlan(1, 40, 30).slot_bytes(config(), torch.bfloat16) == FULL_BYTES == 508_837_888
    assert SlotPlan(1, 10, 30).slot_bytes(config(), torch.bfloat16) == LEAST_BYTES


@pytest.mark.parametrize(("device", "rows"), [("cuda", 128), ("cpu", 16)])
def test_with_plenty_of_memory_there_are_as_many_rows_as_bring_speed(device: str, rows: int) -> None:
    assert plan_for(200 * FULL_BYTES, device=device) == SlotPlan(rows, 40, 30)


def test_as_many_rows_as_fit_are_made_of_the_checkpoints_own_length(caplog: pytest.LogCaptureFixture) -> None:
    assert plan_for(7.9 * FULL_BYTES) == SlotPlan(7, 40, 30)
    assert plan_for(4 * FULL_BYTES) == SlotPlan(4, 40, 30)
    assert plan_for(9 * FULL_BYTES, max_rows=2) == SlotPlan(2, 40, 30)
    assert not caplog.records


def test_where_few_rows_fit_segments_give_way_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert plan_for(4 * FULL_BYTES - 100) == SlotPlan(4, 30, 30)
    assert "at most 30 s instead of the checkpoint's 40 s" in caplog.text
    assert "4 instead of 3" in caplog.text
    assert plan_for(4 * LEAST_BYTES) == SlotPlan(4, 10, 30)
    assert plan_for(6 * LEAST_BYTES, max_rows=6) == SlotPlan(6, 10, 30)


def test_no_segment_gives_way_for_rows_that_would_not_fit_all_the_same() -> None:
    assert plan_for(1.1 * FULL_BYTES) == SlotPlan(1, 40, 30)
    assert plan_for(LEAST_BYTES) == SlotPlan(1, 10, 30)


def test_shorter_segments_and_prompts_are_traded_for_rows() -> None:
    memory = 10 * FULL_BYTES
    assert plan_for(memory, longest_segment_seconds=10) == SlotPlan(14, 10, 30)
    assert plan_for(memory, longest_segment_seconds=10, longest_reference_seconds=10) == SlotPlan(20, 10, 10)


def test_what_is_set_never_gives_way() -> None:
    assert plan_for(2 * FULL_BYTES, longest_segment_seconds=40) == SlotPlan(2, 40, 30)
    with pytest.raises(SettingError, match="1 row for segments of 40 s"):
        plan_for(FULL_BYTES - 100, longest_segment_seconds=40)


def test_too_little_memory_is_refused_with_what_helps() -> None:
    with pytest.raises(
        SettingError, match=r"^max_rows: 1 row for segments of 10 s and voice prompts of 30 s need 0\.3 GB"
    ):
        plan_for(LEAST_BYTES - 100)
    with pytest.raises(
        SettingError, match=r"^max_rows: 6 rows .* cuda has .*longest_reference_seconds make rows smaller"
    ):
        plan_for(6 * LEAST_BYTES - 100, max_rows=6)


def test_a_decoder_takes_hardly_more_memory_than_its_plan_says() -> None:
    config = read_config(EMBEDDED)
    slot_plan = SlotPlan(4, 8.0, 30.0)
    network = load_network(EMBEDDED, config, device=torch.device("cpu"), dtype=torch.float32)
    frames = slot_plan.frames(config)
    decoder = BatchDecoder(network, max_rows=4, max_frames=frames, max_tokens=LONGEST_TEXT_TOKENS)
    columns = [value for value in vars(decoder._state).values() if isinstance(value, torch.Tensor)]
    taken = decoder.slots.nbytes + sum(column.nbytes for column in (*columns, *decoder._state.options))
    planned = 4 * slot_plan.slot_bytes(config, torch.float32)
    assert planned <= taken <= 1.1 * planned


@pytest.mark.parametrize("seconds", [0.0, -1.0, 41.0, float("nan")])
def test_a_segment_that_the_checkpoint_cannot_speak_is_refused_by_name(seconds: float) -> None:
    with pytest.raises(SettingError, match=r"^longest_segment_seconds: .* speaks at most 40 s in one go"):
        plan_for(9 * FULL_BYTES, longest_segment_seconds=seconds)


def test_a_checkpoint_of_short_segments_keeps_its_own() -> None:
    raw = toy_config(audio_max_length=8.0)
    toy = parse_config(raw, "config.json")
    each_bytes = SlotPlan(1, 8, 30).slot_bytes(toy, torch.float32)
    free_bytes = int(2 * each_bytes / MEMORY_SHARE) + 10
    assert plan_slots(toy, torch.float32, torch.device("cpu"), free_bytes) == SlotPlan(2, 8, 30)
