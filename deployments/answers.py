"""What goes back when all is spoken: one file with its facts in headers, or several in one JSON object."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass

from starlette.responses import JSONResponse, Response

from deployments.composer import Composed
from voice_core.speech import FinishReason

# Servers and proxies take some 8 KB of headers; longer lists of reasons are told as counts.
MOST_LISTED_REASONS = 64


@dataclass(frozen=True)
class Take:
    """One sample of the whole request."""

    seed: int
    finish_reasons: tuple[FinishReason, ...]  # one for each segment
    composed: Composed


def file_answer(take: Take) -> Response:
    headers = {
        "X-Sample-Rate": str(take.composed.sample_rate),
        "X-Audio-Seconds": f"{take.composed.seconds:.3f}",
        "X-Segments": str(len(take.finish_reasons)),
        "X-Seed": str(take.seed),
        "X-Finish-Reasons": told_reasons(take.finish_reasons),
    }
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
                    "finish_reasons": list(take.finish_reasons),
                }
                for take in takes
            ]
        }
    )


def told_reasons(reasons: tuple[FinishReason, ...]) -> str:
    """`stop,stop,length` for a few segments, `stop=310,length=2` for many."""
    if len(reasons) <= MOST_LISTED_REASONS:
        return ",".join(reasons)
    return ",".join(f"{reason}={count}" for reason, count in Counter(reasons).items())
