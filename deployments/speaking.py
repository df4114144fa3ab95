"""Has segments spoken as well as was wished: from the cache, best of several, again where something went wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from deployments import metrics
from deployments.door import Work
from deployments.errors import ApiError, not_ready
from deployments.fan_out import PendingReply, ask_again
from deployments.logs import tell
from deployments.segment_cache import SegmentCache, segment_key
from deployments.visit import current_visit
from voice_core.judging import Judgement, is_silent, judge
from voice_core.seeds import candidate_seeds, retry_seed
from voice_core.speech import FinishReason, ModelFacts, Segment, Speech
from voice_core.text import has_words

MOST_RETRIES = 2  # of a bad segment; the third speech that is as bad says that it is the text
KEEP_SECONDS = 0.05  # that sound waits for being kept; a folder takes less, a bucket may take more
MOST_KEPT_LATER = 256  # speeches of one ingress, in memory until the place has taken them; beyond, it forgets
LEAST_WORK_SECONDS = 1.0  # of one segment: what it takes to get it there, read and back


@dataclass(frozen=True)
class Wishes:
    """What a request asks of every segment beside its text."""

    retries: int = MOST_RETRIES  # of a bad segment, each with a derived seed
    keep_bad: bool = False  # after the retries; or else the request fails
    tolerance_seconds: float | None = None  # by which got seconds may miss asked seconds
    best_of: int = 1  # candidates for every sample, spoken in the same pass
    cached: bool = True  # look for it among what was spoken before, and keep it there


@dataclass(frozen=True)
class Candidate:
    """One of those that a sample was chosen from."""

    seed: int
    judgement: Judgement


@dataclass(frozen=True)
class Utterance:
    """One sample of one segment as it goes into the answer, and how it came about."""

    segment: Segment
    speech: Speech
    attempts: int = 1
    cached: bool = False
    faults: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = ()  # of the last attempt, the chosen one among them


class Speaker:
    """Speaks segments for one request or many."""

    def __init__(
        self, speak: Callable[[Segment], PendingReply[list[Speech]]], cache: SegmentCache | None = None
    ) -> None:
        self._speak = speak
        self._cache = cache
        self._keeping: set[asyncio.Task[None]] = set()

    async def speak(self, segment: Segment, wishes: Wishes, facts: ModelFacts) -> list[Utterance]:
        """Return one utterance for every seed of the segment. Raises ApiError for one that stays bad.

        `facts` are those that the answer was planned with: what was spoken before counts only if the same model spoke
        it, and what another one speaks at another rate can't be put into it.
        """
        utterances: dict[int, Utterance] = {}  # by place among the seeds
        attempt = 0
        while missing := [place for place in range(len(segment.seeds)) if place not in utterances]:
            seeds = [retry_seed(segment.seeds[place], attempt) for place in missing]
            tried = await self._attempt(segment, seeds, attempt, wishes, facts)
            last = attempt >= wishes.retries
            for place, utterance in zip(missing, tried, strict=True):
                if not utterance.faults or (last and wishes.keep_bad):
                    utterances[place] = utterance
                elif last:
                    tell_bad(utterance)
                    raise bad_segment(utterance)
            attempt += 1
            again = len(segment.seeds) - len(utterances)
            metrics.count("voice_segment_retries_total", again, reason="bad_segment")
        return [utterances[place] for place in range(len(segment.seeds))]

    async def speak_for(self, work: Work, segment: Segment, wishes: Wishes, facts: ModelFacts) -> list[Utterance]:
        """Speak a segment as a part of a request's work, which is told when it is begun and what comes of it."""
        each_seconds = wishes.best_of * work_seconds(segment)  # of a sample, with all its candidates
        rows = wishes.best_of * len(segment.seeds)
        work.began(each_seconds * len(segment.seeds))
        utterances = await self.speak(replace(segment, batch=work.priority == "batch"), wishes, facts)
        fresh_seconds = each_seconds * sum(not utterance.cached for utterance in utterances)
        work.spoke(each_seconds * len(utterances), rows, fresh_seconds=fresh_seconds)
        audio_seconds = sum(utterance.speech.seconds for utterance in utterances)
        current_visit().audio_seconds += audio_seconds
        metrics.count("voice_audio_seconds_total", audio_seconds)
        return utterances

    async def _attempt(
        self, segment: Segment, seeds: Sequence[int], attempt: int, wishes: Wishes, facts: ModelFacts
    ) -> list[Utterance]:
        """Speak the candidates of every seed together and choose one for each."""
        all_seeds = chain(*(candidate_seeds(seed, wishes.best_of) for seed in seeds))
        asked = replace(segment, seeds=tuple(all_seeds))
        cache = self._cache if wishes.cached else None
        spoken = await self._spoken(asked, cache, facts)
        utterances = []
        for start in range(0, len(spoken), wishes.best_of):
            group = spoken[start : start + wishes.best_of]
            tried = [
                Utterance(segment, speech, attempt + 1, cached, find_faults(segment, speech, wishes))
                for speech, cached in group
            ]
            utterances.append(tried[0] if wishes.best_of == 1 else _best(tried))
        return utterances

    async def _spoken(
        self, segment: Segment, cache: SegmentCache | None, facts: ModelFacts
    ) -> list[tuple[Speech, bool]]:
        """Return a speech for every seed, and whether it had been spoken before."""
        if cache is None:
            return [(speech, False) for speech in await self._fresh(segment, facts)]
        keys = segment_key(segment, facts.model_fingerprint)
        known = await asyncio.gather(*(cache.get(key) for key in keys))
        missing = [seed for seed, speech in zip(segment.seeds, known, strict=True) if speech is None]
        metrics.count("voice_cache_misses_total", len(missing))
        metrics.count("voice_cache_hits_total", len(keys) - len(missing))
        unknown = replace(segment, seeds=tuple(missing))
        fresh = iter(await self._fresh(unknown, facts) if missing else [])
        spoken = [(next(fresh), False) if speech is None else (speech, True) for speech in known]
        to_keep = {
            key: speech
            for key, (speech, cached) in zip(keys, spoken, strict=True)
            # Not what a model has spoken that just came, or goes.
            if not cached and speech.model_fingerprint in ("", facts.model_fingerprint)
        }
        await self._keep(cache, to_keep)
        return spoken

    async def _keep(self, cache: SegmentCache, speeches: Mapping[str, Speech]) -> None:
        """Have speeches kept under their keys; where that takes long, nobody waits, and in the end none is kept."""
        if len(self._keeping) + len(speeches) > MOST_KEPT_LATER:
            return
        keeping = {asyncio.create_task(cache.put(key, speech)) for key, speech in speeches.items()}
        self._keeping |= keeping
        for task in keeping:
            task.add_done_callback(self._keeping.discard)
        if keeping:
            await asyncio.wait(keeping, timeout=KEEP_SECONDS)

    async def _fresh(self, segment: Segment, facts: ModelFacts) -> list[Speech]:
        """Have a segment spoken by the decoder."""
        speeches = await ask_again(lambda: self._speak(segment))
        for speech in speeches:
            if speech.sample_rate != facts.sample_rate:
                raise not_ready("the model was changed meanwhile, and the new one has another sample rate")
            metrics.count("voice_segments_total", finish_reason=str(speech.finish_reason))
        return speeches


def _best(tried: Sequence[Utterance]) -> Utterance:
    """Return the one of the best score, of those without faults if there are any."""
    candidates = tuple(Candidate(utterance.speech.seed, judge(utterance.speech)) for utterance in tried)
    best, _ = min(zip(tried, candidates, strict=True), key=lambda pair: (bool(pair[0].faults), pair[1].judgement.score))
    return replace(best, candidates=candidates)


def work_seconds(segment: Segment) -> float:
    """Return how much work one row of a segment is, in seconds of speech."""
    return max(LEAST_WORK_SECONDS, segment.seconds)


def find_faults(segment: Segment, speech: Speech, wishes: Wishes) -> tuple[str, ...]:
    """Say what is wrong with a speech, in words that a caller reads; nothing for a good one."""
    faults = []
    if speech.finish_reason is not FinishReason.STOP:
        faults.append(f"it did not end by itself ({speech.finish_reason})")
    if is_silent(speech) and has_words(segment.text):
        faults.append("it came out silent")
    missed_seconds = abs(speech.seconds - speech.asked_seconds)
    if wishes.tolerance_seconds is not None and missed_seconds > wishes.tolerance_seconds:
        asked = f"{speech.asked_seconds:.2f} ± {wishes.tolerance_seconds:g} s"
        faults.append(f"it took {speech.seconds:.2f} s, asked for were {asked}")
    return tuple(faults)


def tell_bad(utterance: Utterance) -> None:
    """Log a segment that stays bad, and why: its text is nobody's business, its seed makes it again."""
    tell(
        f"segment {utterance.segment.index + 1} stays bad: {' and '.join(utterance.faults)}",
        logging.WARNING,
        visit=utterance.segment.request,
        segment=utterance.segment.index,
        asked_seconds=round(utterance.segment.seconds, 3),
        seed=utterance.speech.seed,
        attempts=utterance.attempts,
    )


def bad_segment(utterance: Utterance) -> ApiError:
    """A segment that stays bad is its request's failure: the same request would fail the same way."""
    times = "once" if utterance.attempts == 1 else f"{utterance.attempts} times"
    message = (
        f"input: segment {utterance.segment.index + 1} ({utterance.segment.seconds:.2f} s) was spoken {times}, and "
        f"{' and '.join(utterance.faults)}; another text, 'seconds' or 'seed' may help, "
        "on_bad_segment 'keep' takes it as it is"
    )
    return ApiError(422, message, param="input", code="bad_segment")
