"""Segments as they were wished for: the best of several, again when bad, from the cache when known."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from fake_crew import FACTS, Reply, spoken

from deployments.errors import ApiError
from deployments.logs import EXTRA_FIELDS
from deployments.segment_cache import MemoryCache
from deployments.speaking import Speaker, Utterance, Wishes
from voice_core.speech import FinishReason, Segment, Speech

SEGMENT = Segment("Hello there.", 2.0, seeds=(5, 6))

Change = Callable[[int, Speech], Speech]  # of the speech of a call, counted from 1


class Voice:
    """Speaks hums, changed as a test wants; remembers every segment that it was asked for."""

    def __init__(self, change: Change = lambda _, speech: speech) -> None:
        self.asked: list[Segment] = []
        self._change = change

    def __call__(self, segment: Segment) -> Reply:
        self.asked.append(segment)
        return Reply([self._change(len(self.asked), speech) for speech in spoken(segment)])


def speak(voice: Voice, **wishes: object) -> list[Utterance]:
    return asyncio.run(Speaker(voice).speak(SEGMENT, Wishes(**wishes), FACTS))  # type: ignore[arg-type]


def unended(speech: Speech) -> Speech:
    return replace(speech, finish_reason=FinishReason.LENGTH)


def test_nobody_waits_for_a_place_that_takes_long_to_keep() -> None:
    class Slow(MemoryCache):
        async def put(self, key: str, speech: Speech) -> None:
            await asyncio.sleep(0.5)
            await super().put(key, speech)

    async def spoken_and_kept() -> tuple[float, list[Utterance]]:
        speaker, loop = Speaker(Voice(), Slow(1_000_000)), asyncio.get_running_loop()
        begun = loop.time()
        await speaker.speak(SEGMENT, Wishes(), FACTS)
        took = loop.time() - begun
        await asyncio.sleep(0.7)
        return took, await speaker.speak(SEGMENT, Wishes(), FACTS)

    took, again = asyncio.run(spoken_and_kept())
    assert took < 0.4
    assert all(utterance.cached for utterance in again)


def test_a_good_segment_is_spoken_once_for_every_seed() -> None:
    voice = Voice()
    utterances = speak(voice)
    assert [utterance.speech.seed for utterance in utterances] == [5, 6]
    assert [utterance.attempts for utterance in utterances] == [1, 1]
    assert len(voice.asked) == 1


def test_only_the_bad_sample_is_spoken_again_and_with_another_seed() -> None:
    voice = Voice(lambda call, speech: unended(speech) if call == 1 and speech.seed == 6 else speech)
    first, second = speak(voice)
    assert (first.speech.seed, first.attempts) == (5, 1)
    assert second.attempts == 2
    assert voice.asked[1].seeds == (second.speech.seed,)
    assert second.speech.seed not in (5, 6)


def test_the_same_request_is_retried_with_the_same_seeds() -> None:
    def change(call: int, speech: Speech) -> Speech:
        return unended(speech) if call < 3 else speech

    voices = Voice(change), Voice(change)
    assert [one.speech.seed for one in speak(voices[0])] == [one.speech.seed for one in speak(voices[1])]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (unended, "did not end by itself"),
        (lambda speech: replace(speech, samples=np.zeros_like(speech.samples)), "silent"),
        (lambda speech: replace(speech, samples=speech.samples[:8000]), "it took 0.50 s"),
    ],
)
def test_what_stays_bad_fails_with_its_fault_after_three_times(change: Callable[[Speech], Speech], fault: str) -> None:
    voice = Voice(lambda _, speech: change(speech))
    with pytest.raises(ApiError, match=fault) as failure:
        speak(voice, tolerance_seconds=0.2)
    assert (failure.value.status, failure.value.code) == (422, "bad_segment")
    assert len(voice.asked) == 3


def test_what_stays_bad_is_logged_with_its_faults_and_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ApiError), caplog.at_level(logging.WARNING):
        speak(Voice(lambda _, speech: unended(speech)))
    (record,) = {record.created: record for record in caplog.records}.values()  # once, whoever passes it on
    assert record.message == "segment 1 stays bad: it did not end by itself (length)"
    fields = getattr(record, EXTRA_FIELDS)
    assert (fields["segment"], fields["attempts"]) == (0, 3)
    assert SEGMENT.text not in str(fields)


def test_without_retries_a_bad_segment_fails_at_once_or_is_kept_with_its_fault() -> None:
    voice = Voice(lambda _, speech: unended(speech))
    with pytest.raises(ApiError, match="once"):
        speak(voice, retries=0)
    kept = speak(voice, retries=0, keep_bad=True)
    assert all("did not end" in utterance.faults[0] for utterance in kept)
    assert len(voice.asked) == 2


def test_marks_alone_may_be_silent() -> None:
    voice = Voice(lambda _, speech: replace(speech, samples=np.zeros_like(speech.samples)))
    asyncio.run(Speaker(voice).speak(replace(SEGMENT, text="…"), Wishes(), FACTS))


def test_the_best_of_several_candidates_is_kept_and_all_are_told() -> None:
    voice = Voice(lambda _, speech: speech if speech.seed % 2 else unended(speech))
    utterances = speak(voice, best_of=4)
    assert len(voice.asked[0].seeds) == 8
    assert len(set(voice.asked[0].seeds)) == 8
    for utterance in utterances:
        assert len(utterance.candidates) == 4
        assert utterance.speech.seed in [candidate.seed for candidate in utterance.candidates]
        best = min(candidate.judgement.score for candidate in utterance.candidates)
        chosen = [one for one in utterance.candidates if one.seed == utterance.speech.seed]
        assert chosen[0].judgement.score == best


def test_a_retry_seed_and_a_candidate_seed_are_never_those_of_another_sample() -> None:
    voice = Voice(lambda _, speech: unended(speech))
    speak(voice, retries=2, keep_bad=True, best_of=3)
    seeds = [seed for segment in voice.asked for seed in segment.seeds]
    assert len(set(seeds)) == len(seeds) == 18


def test_what_was_spoken_before_is_not_spoken_again() -> None:
    async def twice(voice: Voice) -> tuple[list[Utterance], list[Utterance]]:
        speaker = Speaker(voice, MemoryCache(10**7))
        first = await speaker.speak(replace(SEGMENT, seeds=(5,), request="one"), Wishes(), FACTS)
        return first, await speaker.speak(replace(SEGMENT, request="another"), Wishes(), FACTS)

    voice = Voice()
    first, second = asyncio.run(twice(voice))
    assert [segment.seeds for segment in voice.asked] == [(5,), (6,)]
    assert [utterance.cached for utterance in first + second] == [False, True, False]
    assert np.array_equal(first[0].speech.samples, second[0].speech.samples)


def test_what_a_model_has_spoken_that_is_just_going_is_not_kept_for_the_next() -> None:
    voice = Voice(lambda _, speech: replace(speech, model_fingerprint="the old one"))
    speaker = Speaker(voice, MemoryCache(10**7))
    for _ in range(2):
        asyncio.run(speaker.speak(SEGMENT, Wishes(), replace(FACTS, model_fingerprint="the new one")))
    assert len(voice.asked) == 2
    for _ in range(2):
        asyncio.run(speaker.speak(SEGMENT, Wishes(), replace(FACTS, model_fingerprint="the old one")))
    assert len(voice.asked) == 3


def test_speech_at_another_rate_is_not_put_into_an_answer() -> None:
    voice = Voice(lambda _, speech: replace(speech, sample_rate=44100))
    with pytest.raises(ApiError, match="another sample rate") as raised:
        speak(voice)
    assert raised.value.status == 503  # asked again, it is planned with the new model


def test_another_model_or_a_request_that_passes_the_cache_by_is_spoken_anew() -> None:
    async def thrice(voice: Voice) -> None:
        speaker = Speaker(voice, MemoryCache(10**7))
        await speaker.speak(SEGMENT, Wishes(), FACTS)
        await speaker.speak(SEGMENT, Wishes(), replace(FACTS, model_fingerprint="another model"))
        await speaker.speak(SEGMENT, Wishes(cached=False), FACTS)

    voice = Voice()
    asyncio.run(thrice(voice))
    assert [segment.seeds for segment in voice.asked] == [(5, 6)] * 3
