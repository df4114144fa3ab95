import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.toy import AUDIO_VOCAB, toy_network
from voice_core.decoding import prefill
from voice_core.decoding.decoder import BatchDecoder, Outcome
from voice_core.decoding.rows import Row, prompt_row_codes, row_target_frames
from voice_core.errors import RequestError, SynthesisError
from voice_core.model.checkpoint import load_network
from voice_core.model.config import ModelConfig, read_config
from voice_core.model.network import CrossMemory, Network
from voice_core.model.packing import pack_linears
from voice_core.speech import FinishReason, Sampling

CPU = torch.device("cpu")


def decoder_of(
    network: Network, max_rows: int = 32, *, deterministic: bool = False, traced: bool = True
) -> BatchDecoder:
    return BatchDecoder(
        network, max_rows=max_rows, max_frames=800, max_tokens=80, deterministic=deterministic, traced=traced
    )


# The ground truth: the reference's own runs.

_networks: dict[str, Network] = {}


def cases(fixtures: Path) -> list[dict[str, Any]]:
    """The reference's runs whose options our rows have (greedy ones are exact; the others drew global noise)."""
    found = []
    for file in sorted((fixtures / "model" / "cases").glob("*.json")):
        case = json.loads(file.read_text())
        if case["sampling"] == {"top_k": 1}:
            found.append(case | {"arrays": np.load(file.with_suffix(".npz"))})
    return found


def network_of(case: dict[str, Any], fixtures: Path) -> Network:
    if case["variant"] not in _networks:
        model = fixtures / "model"
        config = read_config(model / "variants" / case["variant"])
        weights = model / "ckpt" / case["weights_from"]
        network = load_network(weights, config, device=CPU, dtype=torch.float32)
        pack_linears(network)  # as it is served
        _networks[case["variant"]] = network
    return _networks[case["variant"]]


def rows_of(case: dict[str, Any]) -> list[Row]:
    texts, targets = case["x"], case["tgt_y_lens"]
    targets = targets if isinstance(targets, list) else [targets]
    count = max(len(texts), len(targets), len(case["arrays"]["tokens"]))
    texts, targets = (values * count if len(values) == 1 else values for values in (texts, targets))
    greedy = Sampling(1.0, 1, 1.0)
    return [
        Row(tuple(text), target, tuple(case["y"]), sampling=greedy) for text, target in zip(texts, targets, strict=True)
    ]


def test_every_greedy_run_of_the_reference_is_reproduced_code_for_code(fixtures: Path) -> None:
    for case in cases(fixtures):
        tokens = case["arrays"]["tokens"]
        spoken = decoder_of(network_of(case, fixtures)).speak(rows_of(case))
        for row, theirs, length in zip(spoken, tokens, case["arrays"]["lens"], strict=True):
            assert list(row.ids) == theirs[: length - 1].tolist(), case["case"]  # their last one is the end code


def test_rows_end_for_the_references_reasons(fixtures: Path) -> None:
    reasons = {"eos": FinishReason.STOP, "budget": FinishReason.LENGTH}
    for case in cases(fixtures):
        if "stop" in case:
            spoken = decoder_of(network_of(case, fixtures)).speak(rows_of(case))
            theirs = case["stop"] if isinstance(case["stop"], list) else [case["stop"]]
            assert [row.finish_reason for row in spoken] == [reasons[stop] for stop in theirs], case["case"]


def test_logits_and_hidden_states_are_the_references(fixtures: Path) -> None:
    for case in cases(fixtures):
        if case["method"] != "multi":
            continue
        network, arrays = network_of(case, fixtures), case["arrays"]
        for number, row in enumerate(rows_of(case)):
            seen = watched(network, row)
            length = int(arrays["lens"][number])
            theirs = torch.tensor(arrays["logits"][: min(length, 20), number])
            ours = torch.cat(seen["head"])[: len(theirs)]
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
            if "enc_last_hidden" not in arrays:
                continue  # variants that must equal another one keep tokens and logits only
            memory = torch.tensor(arrays["enc_last_hidden"][number, : len(row.text_ids)])
            torch.testing.assert_close(seen["encoder.norm"][0][0], memory, rtol=0, atol=1e-4)
            prefill = torch.tensor(arrays["prefill_hidden"][number])
            torch.testing.assert_close(seen["decoder.norm"][0][0], prefill, rtol=0, atol=1e-4)


def watched(network: Network, row: Row) -> dict[str, list[Tensor]]:
    """What each part of the network put out while it spoke one row."""
    seen: dict[str, list[Tensor]] = {"encoder.norm": [], "decoder.norm": [], "head": []}
    hooks = []
    for name, outputs in seen.items():
        part = network.get_submodule(name)
        # A copy: the decoding rule works in place on the logits that the head gave.
        hooks.append(part.register_forward_hook(lambda _m, _i, out, outputs=outputs: outputs.append(out.clone())))
    decoder_of(network, traced=False).speak([row])
    for hook in hooks:
        hook.remove()
    return seen


# Promises of our own, on the real module classes at toy size.


def different_rows(config: ModelConfig, count: int) -> list[Row]:
    """Rows that differ in text, prompt, its length, target, options and seed."""
    rng = random.Random(11)
    samplings = [
        Sampling(),
        Sampling(1.2, 0, 1.0),
        Sampling(0.0),
        Sampling(0.7, 5, 0.5),
        Sampling(1.0, 0, 0.8, 0.01),
        Sampling(1.0, 1, 1.0),
        Sampling(0.9, 50, 1.0, 0.05),
    ]
    rows = []
    for number in range(count):
        prompt = prompt_row_codes([rng.randrange(AUDIO_VOCAB) for _ in range(rng.choice([0, 0, 3, 17, 40]))], config)
        text = tuple(rng.randrange(63) for _ in range(rng.randrange(1, 40)))
        target = len(prompt) + rng.randrange(20, 120)
        sampling = samplings[number % len(samplings)]
        rows.append(Row(text, target, prompt, seed=rng.randrange(2**53), segment_index=number, sampling=sampling))
    return rows


@pytest.mark.parametrize(
    "changes", [{}, {"use_pm_rope": 0}, {"special_first": 1, "empty_token": 0, "eos": 3, "y_sep_token": 4}]
)
def test_a_row_says_the_same_together_alone_and_in_reversed_order(changes: dict[str, int]) -> None:
    network = toy_network(**changes)
    rows = different_rows(network.config, 12)
    together = decoder_of(network).speak(rows)
    assert len({row.ids for row in together}) == 12
    assert decoder_of(network).speak(rows[::-1]) == together[::-1]
    assert [decoder_of(network).speak([row])[0] for row in rows] == together
    assert decoder_of(network, max_rows=1).speak(rows) == together


def test_rows_end_by_themselves_and_by_their_budget() -> None:
    network = toy_network()
    spoken = decoder_of(network).speak(different_rows(network.config, 32))
    assert {row.finish_reason for row in spoken} == {FinishReason.STOP, FinishReason.LENGTH}


def test_rows_admitted_while_others_speak_say_the_same() -> None:
    network = toy_network()
    rows = different_rows(network.config, 12)
    expected = decoder_of(network).speak(rows)
    decoder = decoder_of(network, max_rows=8)
    rng = random.Random(5)
    waiting, places, said = list(range(12)), {}, {}
    while waiting or decoder.live_rows:
        group = [
            waiting.pop(rng.randrange(len(waiting)))
            for _ in range(min(len(waiting), decoder.free_slots, rng.randrange(4)))
        ]
        places |= dict(zip(decoder.admit([rows[index] for index in group]), group, strict=True))
        for _ in range(rng.randrange(1, 9)):
            said |= {places[number]: spoken for number, spoken in decoder.retire()}
            if decoder.live_rows:
                decoder.step()
    assert [said[index] for index in range(12)] == expected


def test_samples_of_one_text_share_its_encoder_row_and_prefill() -> None:
    network = toy_network()
    decoder = decoder_of(network)  # the first one of a network traces its parts
    seen = []
    hook = network.encoder.embedding.register_forward_hook(lambda _m, ids, _o: seen.append(ids[0].shape[0]))
    rows = [Row((5, 6, 7), 40, seed=seed) for seed in range(6)] + [Row((8, 9), 40)]
    decoder.speak(rows)
    hook.remove()
    assert seen == [2]


def test_prompts_with_long_texts_are_taken_in_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    network = toy_network()
    rows = [Row((number, *range(1, 30)), 40, (3, 1, 4, 1, 5), seed=number) for number in range(1, 7)]
    expected = decoder_of(network).speak(rows)
    sizes: list[int] = []
    joined = prefill._joined

    def watched(texts: Sequence[CrossMemory], dtype: torch.dtype) -> tuple[CrossMemory, Tensor]:
        sizes.append(len(texts))
        return joined(texts, dtype)

    monkeypatch.setattr(prefill, "_joined", watched)
    monkeypatch.setattr(prefill, "MOST_TEXT_POSITIONS", 4 * 30)
    assert decoder_of(network).speak(rows) == expected
    assert sizes == [4, 2]


def test_equal_requests_repeat_and_other_seeds_or_segments_differ() -> None:
    network = toy_network()
    hot = Sampling(1.0, 0, 1.0)

    def said(seed: int, segment: int) -> tuple[int, ...]:
        return decoder_of(network).speak([Row((5, 6, 7), 60, seed=seed, segment_index=segment, sampling=hot)])[0].ids

    assert said(1, 0) == said(1, 0)
    assert len({said(1, 0), said(2, 0), said(1, 1)}) == 3


def test_a_cancelled_row_leaves_at_once_and_its_neighbours_speak_on() -> None:
    network = toy_network()
    rows = different_rows(network.config, 6)
    expected = decoder_of(network).speak(rows)
    decoder = decoder_of(network)
    numbers = decoder.admit(rows)
    for _ in range(4):
        decoder.step()
    cut = decoder.cancel(numbers[2])
    assert cut is not None
    assert cut.finish_reason is FinishReason.CANCELLED
    assert cut.ids == expected[2].ids[: 4 + bool(rows[2].prompt_codes)]  # after a prompt the first code needs no step
    assert decoder.cancel(numbers[2]) is None
    assert decoder.live_rows == 5
    said = {}
    while decoder.live_rows:
        said |= dict(decoder.retire())
        if decoder.live_rows:
            decoder.step()
    assert [said[number] for number in numbers if number != numbers[2]] == expected[:2] + expected[3:]


BROKEN_TOKEN = 50  # a text with it is NaN from the start


def broken_network() -> Network:
    network = toy_network()
    network.encoder.embedding.weight[BROKEN_TOKEN] = torch.nan
    return network


def said_until_empty(decoder: BatchDecoder) -> dict[int, Outcome]:
    said: dict[int, Outcome] = {}
    while decoder.live_rows:
        decoder.step()
        said |= dict(decoder.retire())
    return said


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("last", [False, True])
def test_a_broken_row_leaves_no_nan_where_it_was_moved_from(last: bool, steps: int, traced: bool) -> None:
    """Before anybody has looked at it: a GPU's rows are looked at every few steps only."""
    network = broken_network()
    leaving, staying, coming = Row((1, 2), 40), Row((3, 4), 40), Row((5, 6), 40)
    expected = decoder_of(network).speak([staying, coming])
    broken = Row((BROKEN_TOKEN, *range(1, 30)), 40)
    decoder = decoder_of(network, max_rows=3, traced=traced)
    first, *others = decoder.admit([leaving, staying, broken] if last else [leaving, broken, staying])
    for _ in range(steps):
        decoder.step()
    decoder.cancel(first)  # the last of the others moves into its slot, or both move down
    others += decoder.admit([coming])  # into the slot that got free
    said = said_until_empty(decoder)
    broken_number = others.pop(1 if last else 0)
    assert isinstance(said[broken_number], SynthesisError)
    assert [said[number] for number in others] == expected


@pytest.mark.parametrize("traced", [False, True])
def test_a_broken_row_that_is_cancelled_before_its_first_step_leaves_no_nan_behind(traced: bool) -> None:
    network = broken_network()
    text = tuple(range(1, 30))
    rows = [Row((1, 2), 40), Row(text, 40)]
    decoder = decoder_of(network, max_rows=2, traced=traced)
    (broken,) = decoder.admit([Row((BROKEN_TOKEN, *text), 40)])
    decoder.cancel(broken)
    numbers = decoder.admit(rows)  # the first into its slot; both read as many tokens as the second has
    said = said_until_empty(decoder)
    assert [said[number] for number in numbers] == decoder_of(network).speak(rows)


def test_a_row_that_ended_costs_nothing_afterwards() -> None:
    network = toy_network()
    decoder = decoder_of(network)
    short, long = Row((1, 2), 5), Row((3, 4), 200, sampling=Sampling(1.0, 1, 1.0))
    spoken = decoder.speak([short, long])
    assert decoder.row_steps == sum(len(row.ids) + 1 for row in spoken)


def test_text_guard_limits_frames_by_text_length() -> None:
    network = toy_network(text_guard_frames_per_token=7)
    network.head[2].bias[network.config.end_code] -= 100  # it never ends by itself
    spoken = decoder_of(network).speak([Row((1, 2, 3), 500)])[0]
    assert (len(spoken.ids), spoken.finish_reason) == (3 * 7 + 1, FinishReason.LENGTH)


def test_no_row_ends_before_a_fifth_of_a_second() -> None:
    network = toy_network()
    network.head[2].bias[network.config.end_code] += 100  # it would end at once
    assert len(decoder_of(network).speak([Row((1, 2), 50)])[0].ids) == 11


def test_what_can_never_fit_is_refused_and_nothing_was_admitted() -> None:
    decoder = BatchDecoder(toy_network(), max_rows=4, max_frames=100, max_tokens=10)
    good = Row((1, 2), 20)
    for bad, field in [(Row((), 20), "input"), (Row((1,) * 11, 20), "input"), (Row((1,), 200), "seconds")]:
        with pytest.raises(RequestError) as caught:
            decoder.admit([good, bad])
        assert caught.value.field == field
        assert decoder.live_rows == 0


def test_special_codes_in_mid_speech_are_dropped_where_they_stand_and_counted() -> None:
    network = toy_network()
    network.head[2].bias[257] += 8.0  # a special id that does not end the row
    spoken = decoder_of(network).speak([Row((4, 5), 80, sampling=Sampling(1.0, 0, 1.0))])[0]
    assert 257 in spoken.ids[:-1]
    assert spoken.codes == [code for code in spoken.ids if code < AUDIO_VOCAB]
    assert spoken.dropped_codes == len(spoken.ids) - len(spoken.codes) > 0


def test_target_frames_round_down_prompt_and_speech_together() -> None:
    config = toy_network().config
    assert row_target_frames(16, 1.999, config) == 115


def test_prompt_codes_are_closed_by_the_separator_and_checked() -> None:
    config = toy_network().config
    assert prompt_row_codes([], config) == ()
    assert prompt_row_codes([3, 4], config) == (3, 4, 260)
    with pytest.raises(RequestError, match="code 256 lies outside"):
        prompt_row_codes([256], config)
