"""What goes back when all is spoken: one file with its facts in headers, files side by side, or one JSON object."""

from __future__ import annotations

import base64
import json
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.body import JSON, accepted_types
from deployments.composer import Composed
from deployments.manifest import captions, segment_row, whole_manifest
from deployments.script import Script
from deployments.shapes import Manifest, SampleObject, SegmentRow, SpeechObject
from deployments.speaking import Utterance
from deployments.speech_request import SpeechRequest
from voice_core.audio.endings import ENDINGS
from voice_core.speech import FinishReason
from voice_core.subtitles import CAPTION_FORMATS

# Servers and proxies take some 8 KB of headers; longer lists are told as counts and sums.
MOST_LISTED = 64


@dataclass(frozen=True)
class Take:
    """One sample of the whole request."""

    seed: int
    utterances: Sequence[Utterance]  # one for each segment
    composed: Composed

    @property
    def finish_reasons(self) -> list[FinishReason]:
        return [utterance.speech.finish_reason for utterance in self.utterances]

    @property
    def asked_seconds(self) -> list[float]:
        return [round(utterance.speech.asked_seconds, 3) for utterance in self.utterances]

    @property
    def got_seconds(self) -> list[float]:
        """As the model spoke them: without pauses, before anything is trimmed."""
        return [round(utterance.speech.seconds, 3) for utterance in self.utterances]

    @property
    def dropped_codes(self) -> int:
        return sum(utterance.speech.dropped_codes for utterance in self.utterances)

    @property
    def segment_rows(self) -> list[SegmentRow]:
        rate = self.composed.sample_rate
        return [
            segment_row(utterance, span, rate)
            for utterance, span in zip(self.utterances, self.composed.spans, strict=True)
        ]


def answer(request: Request, wanted: SpeechRequest, script: Script, takes: list[Take]) -> Response:
    """Return what was asked for: several samples, and whoever accepts JSON and no sound, get an object."""
    if wanted.n > 1 or _wants_json(request):
        audios = [_described(wanted, script, take) for take in takes]
        whole: SpeechObject = {"audios": audios, "warnings": list(script.warnings)}
        return JSONResponse(whole)
    (take,) = takes
    headers = file_headers(take) | warning_headers(script)
    if wanted.captions is None and not wanted.manifest:
        return Response(take.composed.audio, media_type=take.composed.media_type, headers=headers)
    return _side_by_side(wanted, script, take, headers)


def _wants_json(request: Request) -> bool:
    """Tell if JSON is accepted and sound isn't: many HTTP libraries send JSON first in a list that ends in */*."""
    accepted = accepted_types(request)
    return JSON in accepted and not any(kind == "*/*" or kind.startswith("audio/") for kind in accepted)


def file_headers(take: Take) -> dict[str, str]:
    headers = {
        "X-Sample-Rate": str(take.composed.sample_rate),
        "X-Audio-Seconds": f"{take.composed.seconds:.3f}",
        "X-Segments": str(len(take.utterances)),
        "X-Seed": str(take.seed),
        "X-Finish-Reasons": told_reasons(take.finish_reasons),
        "X-Asked-Seconds": told_seconds(take.asked_seconds),
        "X-Got-Seconds": told_seconds(take.got_seconds),
    }
    if take.dropped_codes:
        headers["X-Dropped-Codes"] = str(take.dropped_codes)
    return headers


def warning_headers(script: Script) -> dict[str, str]:
    """Return the header that tells what has no effect, where there is anything to tell."""
    return {"X-Warnings": "; ".join(script.warnings)} if script.warnings else {}


def _described(wanted: SpeechRequest, script: Script, take: Take) -> SampleObject:
    described: SampleObject = {
        "seed": take.seed,
        "audio": base64.b64encode(take.composed.audio).decode(),
        "format": wanted.response_format,
        "media_type": take.composed.media_type,
        "sample_rate": take.composed.sample_rate,
        "seconds": round(take.composed.seconds, 3),
        "finish_reasons": [reason.value for reason in take.finish_reasons],
        "asked_seconds": take.asked_seconds,
        "got_seconds": take.got_seconds,
        "dropped_codes": take.dropped_codes,
    }
    if wanted.captions is not None:
        text = captions(take.segment_rows, wanted.captions)
        described["captions"] = json.loads(text) if wanted.captions == "json" else text
    if wanted.manifest:
        described["manifest"] = _manifest(wanted, script, take)
    return described


def _side_by_side(wanted: SpeechRequest, script: Script, take: Take, headers: dict[str, str]) -> Response:
    """Return a multipart/mixed answer (RFC 2046, section 5.1.3): the audio first, then what was asked for with it."""
    composed = take.composed
    parts = [("audio", f"speech.{ENDINGS[wanted.response_format]}", composed.media_type, composed.audio)]
    if wanted.captions is not None:
        text = captions(take.segment_rows, wanted.captions).encode()
        parts.append(("captions", f"speech.{wanted.captions}", CAPTION_FORMATS[wanted.captions], text))
    if wanted.manifest:
        manifest = json.dumps(_manifest(wanted, script, take), ensure_ascii=False).encode()
        parts.append(("manifest", "manifest.json", JSON, manifest))
    boundary = secrets.token_hex(16)
    body = bytearray()
    for name, file, media_type, content in parts:
        disposition = f'Content-Disposition: attachment; name="{name}"; filename="{file}"'
        head = f"--{boundary}\r\nContent-Type: {media_type}\r\n{disposition}\r\nContent-Length: {len(content)}\r\n\r\n"
        body += head.encode() + content + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return Response(bytes(body), media_type=f"multipart/mixed; boundary={boundary}", headers=headers)


def _manifest(wanted: SpeechRequest, script: Script, take: Take) -> Manifest:
    composed = take.composed
    return whole_manifest(wanted, script, take.seed, take.segment_rows, composed.samples, composed.sample_rate)


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
