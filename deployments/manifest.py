"""Tells what became of every segment: the manifest of an answer, and its captions."""

from __future__ import annotations

from deployments.composer import Span
from deployments.script import Script
from deployments.shapes import CandidateRow, Manifest, SegmentRow
from deployments.speaking import Candidate, Utterance
from deployments.speech_request import SpeechRequest
from deployments.spoken_request import CaptionFormat
from voice_core.subtitles import Cue, write_captions


def segment_row(utterance: Utterance, span: Span, sample_rate: int) -> SegmentRow:
    """Return everything that is to be told of one segment of a file of `sample_rate` Hz."""
    segment, speech = utterance.segment, utterance.speech
    row: SegmentRow = {
        "index": segment.index,
        "text": segment.text,
        "start_sample": span.start_samples,
        "end_sample": span.end_samples,
        "start_seconds": round(span.start_samples / sample_rate, 4),
        "end_seconds": round(span.end_samples / sample_rate, 4),
        "seed": speech.seed,
        "finish_reason": speech.finish_reason.value,
        "asked_seconds": round(speech.asked_seconds, 3),
        "got_seconds": round(speech.seconds, 3),
        "attempts": utterance.attempts,
        "cached": utterance.cached,
        "faults": list(utterance.faults),
        "dropped_codes": speech.dropped_codes,
    }
    if utterance.candidates:
        row["candidates"] = [_candidate(candidate) for candidate in utterance.candidates]
    return row


def whole_manifest(
    wanted: SpeechRequest, script: Script, seed: int, rows: list[SegmentRow], samples: int, sample_rate: int
) -> Manifest:
    """Return the manifest of one sample: the file's facts and the rows of its segments."""
    return {
        "format": wanted.response_format,
        "sample_rate": sample_rate,
        "samples": samples,
        "seconds": round(samples / sample_rate, 4),
        "seed": seed,
        "language": str(script.language),
        "voice": wanted.voice,
        "segments": rows,
    }


def captions(rows: list[SegmentRow], kind: CaptionFormat) -> str:
    """Return captions of all segments that can be heard, each over the time of its sound."""
    cues = [
        Cue(row["start_seconds"], row["end_seconds"], row["text"])
        for row in rows
        if row["end_sample"] > row["start_sample"]
    ]
    return write_captions(cues, kind)


def _candidate(candidate: Candidate) -> CandidateRow:
    judgement = candidate.judgement
    return {
        "seed": candidate.seed,
        "score": round(judgement.score, 4),
        "length_error": round(judgement.length_error, 4),
        "ended": judgement.ended,
        "repeated_share": round(judgement.repeated_share, 4),
        "silence_share": round(judgement.silence_share, 4),
    }
