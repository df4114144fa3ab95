"""What goes back when all is spoken: one file with its facts in headers, or several in one JSON object."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import JSONResponse, Response

from deployments.composer import Composed
from voice_core.speech import FinishReason, Speech

# Servers and proxies take some 8 KB of headers; longer lists are told as counts and sums.
MOST_LISTED = 64


@dataclass(frozen=True)
class Take:
    """One sample of the whole request."""

    seed: int
    speeches: Sequence[Speech]  # one for each segment
    composed: Composed

    @property
    def finish_reasons(self) -> list[FinishReason]:
        return [speech.finish_reason for speech in self.speeches]

    @property
    def asked_seconds(self) -> list[float]:
        return [round(speech.asked_seconds, 3) for speech in self.speeches]

    @property
    def got_seconds(self) -> list[float]:
        """As the model spoke them: without pauses, before anything is trimmed."""
        return [round(speech.seconds, 3) for speech in self.speeches]

    @property
    def dropped_codes(self) -> int:
        return sum(speech.dropped_codes for speech in self.speeches)


def file_answer(take: Take) -> Response:
    headers = {
        "X-Sample-Rate": str(take.composed.sample_rate),
        "X-Audio-Seconds": f"{take.composed.seconds:.3f}",
        "X-Segments": str(len(take.speeches)),
        "X-Seed": str(take.seed),
        "X-Finish-Reasons": told_reasons(take.finish_reasons),
        "X-Asked-Seconds": told_seconds(take.asked_seconds),
        "X-Got-Seconds": told_seconds(take.got_seconds),
    }
    if take.dropped_codes:
        headers["X-Dropped-Codes"] = str(take.dropped_codes)
    return Response(take.composed.audio, media_type=take.composed.media_type, headers=headers)


def json_answer(takes: list[Take], audio_format: str) -> JSONResponse:
    return JSONResponse(
        {
            "audios": [
                {
                    "seed": take.seed,
                    "audio": base64.b64encode(take.composed.audio).decode(),
                    "format": audio_format,
                    "media_type": take.composed.media_type,
                    "sample_rate": take.composed.sample_rate,
                    "seconds": round(take.composed.seconds, 3),
                    "finish_reasons": take.finish_reasons,
                    "asked_seconds": take.asked_seconds,
                    "got_seconds": take.got_seconds,
                    "dropped_codes": take.dropped_codes,
                }
                for take in takes
            ]
        }
    )


def told_reasons(reasons: Sequence[FinishReason]) -> str:
    """`stop,stop,length` for a few segments, `stop=310,length=2` for many."""
    if len(reasons) <= MOST_LISTED:
        return ",".join(reasons)
    return ",".join(f"{reason}={count}" for reason, count in Counter(reasons).items())


def told_seconds(seconds: Sequence[float]) -> str:
    """`1.25,3.5` for a few segments, `total=512.75` for many."""
    if len(seconds) <= MOST_LISTED:
        return ",".join(f"{one:g}" for one in seconds)
    return f"total={sum(seconds):.3f}"
