"""Speaks a manifest without a server: Ray Data hands its lines to a pool of actors, each with a model of its own.

A line with a seed gives the same speech as from a server: it is planned, spoken, tried again and composed by the same
code.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import logging
import os
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from deployments.bulk_manifest import Job, LineError
from deployments.commands import CommandError

if TYPE_CHECKING:  # torch and Ray come with them, and only an actor may pay for that
    from deployments.speech_request import SpeechRequest
    from voice_core.speech import Segment, Speech
    from voice_core.synthesizer import SpeechTicket

NOISY_LOGGERS = ("ray.data", "ray._private.authentication.authentication_token_setup")
LINES_AT_ONCE = 32  # of one actor; their segments fill the rows of its decoder

Row = dict[str, Any]


def speak_all(jobs: list[Job], options: argparse.Namespace) -> Iterator[tuple[Job, bytes | LineError]]:
    """Yield every line's file, or what is wrong with it, as they come."""
    if not jobs:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its own remarks on the terminal; files have the rest
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for package in ("pyarrow", "pandas"):  # Ray Data's own words for what is missing are a traceback
        if importlib.util.find_spec(package) is None:
            raise CommandError(f"--ray-data needs {package}, which isn't installed: pip install 'voice-serve[bulk]'")
    import ray
    import ray.data

    address = options.ray_address or "local"
    ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = [{"place": place, "request": json.dumps(job.request)} for place, job in enumerate(jobs)]
        blocks = max(options.actors, -(-len(rows) // LINES_AT_ONCE))
        spoken = ray.data.from_items(rows, override_num_blocks=min(blocks, len(rows))).map_batches(
            LineReader,
            fn_constructor_args=(options.model, options.device),
            batch_size=LINES_AT_ONCE,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=options.actors),
            num_gpus=1 if options.device == "cuda" else 0,
        )
        for row in spoken.iter_rows():
            wrong = json.loads(row["error"])
            yield jobs[int(row["place"])], LineError(wrong["message"], wrong) if wrong else bytes(row["audio"])
    finally:
        ray.shutdown()


class LineReader:
    """An actor of the pool: a model, and what a server does around it."""

    def __init__(self, model: str, device: str) -> None:
        from deployments.speaking import Speaker
        from voice_core.synthesizer import Synthesizer
        from voice_core.upkeep import keep_memory_low

        keep_memory_low()
        self._synthesizer = Synthesizer.load(model, device=device)
        self._speaker = Speaker(self._ask)

    def __call__(self, batch: Row) -> Row:
        outcomes = asyncio.run(self._all(list(batch["request"])))
        return {
            "place": batch["place"],
            "audio": [audio for audio, _ in outcomes],
            "error": [json.dumps(error) for _, error in outcomes],
        }

    async def _all(self, requests: Sequence[str]) -> list[tuple[bytes, Row]]:
        return await asyncio.gather(*map(self._one, requests))

    async def _one(self, request: str) -> tuple[bytes, Row]:
        """Return the file of one line and no error, or no file and what is wrong."""
        from deployments.errors import ApiError
        from deployments.settings import Settings
        from deployments.speech_request import SpeechRequest
        from voice_core.errors import RequestError, SynthesisError

        try:
            fields = json.loads(request)
            wanted = SpeechRequest.checked(fields)
            wanted.check_length(Settings().longest_text_characters)  # as a server that is told nothing else
            return await self._spoken(wanted), {}
        except ApiError as error:
            return b"", dict(error.envelope()["error"])
        except RequestError as error:
            return b"", {"message": str(error), "param": error.field, "code": "invalid_value"}
        except SynthesisError as error:
            return b"", {"message": f"could not be spoken: {error}", "param": None, "code": "synthesis_failed"}

    async def _spoken(self, wanted: SpeechRequest) -> bytes:
        from deployments.composer import compose
        from deployments.script import write_script
        from voice_core.errors import RequestError
        from voice_core.speech import DEFAULT_VOICE

        if wanted.voice != DEFAULT_VOICE or wanted.reference_audio is not None:
            raise RequestError("voice", "without a server there is only the model's own, 'default'")
        facts = self._synthesizer.facts
        script = await asyncio.to_thread(write_script, wanted, facts)
        speaking = (self._speaker.speak(segment, wanted.wishes, facts) for segment in script.segments)
        speeches = [utterance.speech for (utterance,) in await asyncio.gather(*speaking)]
        composed = await asyncio.to_thread(compose, speeches, wanted.response_format, script.pause_seconds)
        return composed.audio

    def _ask(self, segment: Segment) -> _Reply:
        (ticket,) = self._synthesizer.submit([segment])
        return _Reply(ticket)


class _Reply:
    """A segment on its way, as the speaker awaits those of a server."""

    def __init__(self, ticket: SpeechTicket) -> None:
        self._ticket = ticket

    def __await__(self) -> Generator[Any, None, list[Speech]]:
        return asyncio.wrap_future(self._ticket.future).__await__()

    def cancel(self) -> None:
        self._ticket.cancel()
