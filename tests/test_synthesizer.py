import gc
import json
import shutil
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deployments.segment_cache import packed, unpacked
from voice_core import hub
from voice_core.codec.checkpoint import load_decoder
from voice_core.codec.codec import Codec
from voice_core.decoding.engine import RowHandle
from voice_core.decoding.rows import Row, SpokenRow
from voice_core.embedded import DIRECTORY
from voice_core.errors import CheckpointError, RequestError, SettingError, SynthesisError
from voice_core.planning import plan
from voice_core.speech import FinishReason, Sampling, Segment, VoicePrompt
from voice_core.synthesizer import Synthesizer, _when_all_done, codec_directory

HELLO = Segment("hello there.", 0.9)


@pytest.fixture(scope="module")
def synthesizer() -> Iterator[Synthesizer]:
    loaded = Synthesizer.load("embedded", device="cpu", max_rows=32)
    yield loaded
    loaded.close()


def test_it_is_warm_when_it_is_loaded_and_says_how_long_that_took(synthesizer: Synthesizer) -> None:
    assert synthesizer.counters.rows_spoken >= 1
    assert synthesizer.facts.load_seconds > 0


def test_a_segment_comes_back_as_speech(synthesizer: Synthesizer) -> None:
    ((speech,),) = synthesizer.speak([HELLO])
    assert speech.sample_rate == 16000
    assert speech.finish_reason is FinishReason.STOP
    assert speech.seconds == pytest.approx(0.9, abs=0.3)
    assert 0.05 < np.abs(speech.samples).max() <= 1.5


def test_every_seed_gives_a_sample_and_the_same_seed_the_same_sound(synthesizer: Synthesizer) -> None:
    (samples,) = synthesizer.speak([Segment("one and two", 1.0, seeds=(1, 2, 1))])
    assert [speech.seed for speech in samples] == [1, 2, 1]
    assert np.array_equal(samples[0].samples, samples[2].samples)
    assert not np.array_equal(samples[0].samples, samples[1].samples)


def test_a_voice_in_the_codes_of_another_codec_is_not_spoken_with(synthesizer: Synthesizer) -> None:
    own = VoicePrompt((5, 6, 7, 8), "hm", code_fingerprint=synthesizer.facts.code_fingerprint)
    other = replace(own, code_fingerprint="of the model before")
    _, refused = synthesizer.submit([replace(HELLO, prompt=prompt) for prompt in (own, other)])
    assert synthesizer.speak([replace(HELLO, prompt=own)])
    error = refused.future.exception()
    assert isinstance(error, SynthesisError)
    assert error.may_succeed_later


def test_neighbours_do_not_change_what_a_segment_says(synthesizer: Synthesizer) -> None:
    prompt = VoicePrompt(codes=(5, 6, 7, 8), transcript="hm")
    segments = [
        HELLO,
        Segment("what a fine day it is", 2.0, index=1, seeds=(3, 4)),
        Segment("yes", 0.5, index=2, sampling=Sampling(0.0)),
        Segment("and so on", 1.0, index=3, prompt=prompt),
    ]
    together = synthesizer.speak(segments)
    for segment, speeches in zip(segments, together, strict=True):
        (alone,) = synthesizer.speak([segment])
        for ours, theirs in zip(alone, speeches, strict=True):
            assert ours.finish_reason == theirs.finish_reason
            # The codes are the same; the codec's masked batch equals its items to rounding.
            np.testing.assert_allclose(ours.samples, theirs.samples, atol=1e-4)


def test_segments_sent_together_are_one_pass(synthesizer: Synthesizer) -> None:
    before = synthesizer.counters
    synthesizer.speak([Segment("word", 0.6, index=index) for index in range(16)])
    after = synthesizer.counters
    assert (after.passes - before.passes, after.rows_spoken - before.rows_spoken) == (1, 16)


def test_a_text_without_a_readable_letter_fails_alone(synthesizer: Synthesizer) -> None:
    bad, good = synthesizer.submit([Segment("日本", 1.0), HELLO])
    with pytest.raises(RequestError, match="input: '日本' holds nothing that this voice can read"):
        bad.future.result(10)
    assert good.future.result(10)


def test_a_cancelled_segment_frees_its_rows(synthesizer: Synthesizer) -> None:
    (ticket,) = synthesizer.submit([Segment("a rather long sentence to be said", 7.5, seeds=tuple(range(8)))])
    ticket.cancel()
    with pytest.raises(SynthesisError, match="called off"):
        ticket.future.result(10)


def test_a_sample_that_fails_ends_those_beside_it() -> None:
    handles, done = [RowHandle(Row((1,), 10), "") for _ in range(3)], list[int]()
    _when_all_done(handles, lambda: done.append(1))
    handles[0].future.set_exception(SynthesisError("no memory", may_succeed_later=True))
    assert all(handle.cancelled for handle in handles[1:])
    assert not done
    for handle in handles[1:]:
        handle.future.set_result(SpokenRow((), FinishReason.CANCELLED, 8))
    assert done == [1]


@pytest.mark.parametrize("place", ["Synthesizer._warm_up", "_model_fingerprint"])
def test_a_load_that_fails_leaves_no_thread_behind(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr(f"voice_core.synthesizer.{place}", fail)
    with pytest.raises(RuntimeError, match="no more"):
        Synthesizer.load("embedded", device="cpu", max_rows=1)
    assert not {thread.name for thread in set(threading.enumerate()) - before} & {"decoder", "codec"}


def test_what_goes_wrong_on_the_way_to_the_codec_fails_the_segment(
    synthesizer: Synthesizer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_codes: object) -> None:
        raise RuntimeError("no more")

    with monkeypatch.context() as patch:
        patch.setattr(synthesizer._codec, "submit", fail)
        with pytest.raises(SynthesisError, match="no more"):
            synthesizer.speak([HELLO])
    assert "could not be delivered" in caplog.text
    assert len(synthesizer.speak([HELLO])) == 1


def test_speech_that_nobody_needs_is_gone_at_once(synthesizer: Synthesizer) -> None:
    """Without waiting for Python's collector: it comes seldom, and what it then finds are megabytes."""
    gc.collect()
    gc.disable()
    try:
        (ticket,) = synthesizer.submit([replace(HELLO, seeds=(1, 2))])
        remains = [weakref.ref(speech) for speech in ticket.future.result()] + [weakref.ref(ticket)]
        del ticket
        synthesizer.speak([HELLO])  # a thread may hold its last piece of work
        assert [remain() for remain in remains] == [None] * 3
    finally:
        gc.enable()


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_codec_that_gains_from_batches_decodes_apart_what_must_be_the_same_to_the_bit(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = Codec(load_decoder(DIRECTORY / "codec"), batched=True)
    monkeypatch.setattr(Codec, "load", lambda *_: codec)
    Synthesizer.load("embedded", device="cpu", max_rows=1, deterministic=deterministic).close()
    assert codec.batched is not deterministic


def test_an_unknown_checkpoint_is_named() -> None:
    with pytest.raises(CheckpointError, match="/nowhere"):
        Synthesizer.load("/nowhere")


def test_a_codec_that_does_not_know_the_models_codes_is_refused(tmp_path: Path) -> None:
    shutil.copytree(DIRECTORY, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "codec" / "config.json"
    codec = json.loads(file.read_text())
    file.write_text(json.dumps(codec | {"code_map": codec["code_map"][:100]}))
    with pytest.raises(CheckpointError, match=f"knows 100 codes, the model speaks {len(codec['code_map'])}"):
        Synthesizer.load(str(tmp_path), device="cpu")


def test_another_codec_than_the_checkpoints_may_be_named(tmp_path: Path) -> None:
    shutil.copytree(DIRECTORY / "codec", tmp_path / "codec")
    named = Synthesizer.load("embedded", device="cpu", max_rows=1, codec=str(tmp_path / "codec"))
    usual = Synthesizer.load("embedded", device="cpu", max_rows=1)
    assert named.facts.code_fingerprint == usual.facts.code_fingerprint
    for loaded in (named, usual):
        loaded.close()
    file = tmp_path / "codec" / "config.json"
    codec = json.loads(file.read_text())
    file.write_text(json.dumps(codec | {"code_map": codec["code_map"][:100]}))
    with pytest.raises(SettingError, match=r"codec: the codec .* knows 100 codes"):
        Synthesizer.load("embedded", device="cpu", codec=str(tmp_path / "codec"))


def test_what_is_small_or_may_be_refused_is_fetched_before_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub may keep a tokenizer behind a form to be filled in, and weights take minutes."""
    shutil.copytree(DIRECTORY, tmp_path / "snapshot")
    fetched: list[Sequence[str]] = []

    def fetch(hub_id: str, files: Sequence[str]) -> Path:
        fetched.append(files)
        return tmp_path / "snapshot"

    monkeypatch.setattr(hub, "_download", fetch)
    (tmp_path / "snapshot" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="embedded: no such directory"):  # the tokenizer that the config names
        Synthesizer.load("somebody/model", device="cpu")
    assert fetched
    assert not any("*.safetensors" in files for files in fetched)
    fetched.clear()
    config = json.loads((tmp_path / "snapshot" / "config.json").read_text())
    (tmp_path / "snapshot" / "config.json").write_text(json.dumps(config | {"xcodec2_model_name": "somebody/codec"}))
    codec_directory("somebody/model")
    assert fetched == [("config.json",), hub.MODEL_FILES]  # of the model, of the codec


@pytest.mark.parametrize(
    ("device", "reason"),
    [("mps", "not supported yet"), ("toaster", "none of auto"), ("meta", "none of auto"), ("cuda", "no GPU here")],
)
def test_a_device_that_cannot_be_had_is_refused_with_the_reason(device: str, reason: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SettingError, match=f"^device: '{device}' .*{reason}"):
        Synthesizer.load("embedded", device=device)


@pytest.fixture(scope="module")
def small() -> Iterator[Synthesizer]:
    """With slots for segments of 3 s and voice prompts of 6 s."""
    loaded = Synthesizer.load(
        "embedded", device="cpu", max_rows=2, longest_segment_seconds=3, longest_reference_seconds=6
    )
    yield loaded
    loaded.close()


def test_smaller_slots_are_told_by_the_facts_and_texts_are_split_for_them(small: Synthesizer) -> None:
    facts = small.facts
    assert (facts.longest_seconds, facts.checkpoint_longest_seconds) == (3, 8)
    text = "It was not the answer that we had hoped for when we came, but it was an answer."
    planned = plan(text, longest_seconds=facts.longest_seconds, alphabet=facts.alphabet)
    assert len(planned.segments) > 1
    small.speak([Segment(piece.text, piece.seconds, index) for index, piece in enumerate(planned.segments)])


def test_a_segment_longer_than_its_slot_is_refused_by_name(small: Synthesizer) -> None:
    # 3 s and a prompt of 6 s, an overrun of 1 s, 4 frames for marks and rounding; 11 s without a prompt are too much
    with pytest.raises(RequestError, match="seconds: a row needs 601 frames, at most 504 fit"):
        small.speak([Segment("a long one", 11.0)])


def test_a_voice_prompt_longer_than_its_slot_is_refused_by_name(small: Synthesizer) -> None:
    with pytest.raises(RequestError, match=r"voice: the recording takes 7\.0 s, at most 6 s fit"):
        small.speak([Segment("hello", 1.0, prompt=VoicePrompt((5,) * 350, "hm"))])
    small.speak([Segment("hello", 3.0, prompt=VoicePrompt((5,) * 300, "hm"))])


def test_the_checkpoints_own_voices_fit_however_short_a_prompt_may_be() -> None:
    loaded = Synthesizer.load("embedded", device="cpu", max_rows=1, longest_reference_seconds=1)
    (alto,) = loaded.facts.built_in_voices
    assert len(alto.prompt.codes) > 1 * loaded.facts.frames_per_second
    loaded.speak([Segment("hello", 8.0, prompt=alto.prompt)])
    loaded.close()


def test_as_many_rows_are_made_as_the_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    free: list[int] = []
    monkeypatch.setattr("voice_core.synthesizer.free_device_bytes", lambda _: free[-1])
    rows = []
    for free_bytes in (100_000_000_000, 100_000_000):
        free.append(free_bytes)
        loaded = Synthesizer.load("embedded", device="cpu")
        rows.append(loaded.facts.max_rows)
        loaded.close()
    assert rows[0] == 16
    assert 1 <= rows[1] < 16
    free.append(1_000_000)
    with pytest.raises(SettingError, match=r"^max_rows: 1 row for segments of 8 s and voice prompts of 30 s need"):
        Synthesizer.load("embedded", device="cpu")


def test_the_facts_tell_how_texts_must_be_written(synthesizer: Synthesizer) -> None:
    assert synthesizer.facts.text_normaliser == "english_words"
    assert synthesizer.facts.alphabet is not None
    assert "a" in synthesizer.facts.alphabet


def test_the_facts_tell_models_apart_that_sound_otherwise(synthesizer: Synthesizer) -> None:
    again = Synthesizer.load("embedded", device="cpu", max_rows=1)
    exact = Synthesizer.load("embedded", device="cpu", max_rows=1, deterministic=True)
    again.close()
    exact.close()
    assert again.facts.model_fingerprint == synthesizer.facts.model_fingerprint
    assert exact.facts.model_fingerprint != synthesizer.facts.model_fingerprint


def test_a_speech_can_be_kept_and_found_again_to_the_bit(synthesizer: Synthesizer) -> None:
    """Its facts are plain numbers; a numpy scalar among them would never reach the cache."""
    ((speech,),) = synthesizer.speak([HELLO])
    found = unpacked("key", packed("key", speech))
    assert np.array_equal(found.samples, speech.samples)
    assert replace(found, samples=speech.samples) == speech
