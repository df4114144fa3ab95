"""`python -m deployments bulk manifest.jsonl out/`: speaks each line of a manifest into a file of its own."""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.bulk_manifest import DONE_FILE, ERRORS_FILE, BadLine, Job, LineError, read_manifest
from deployments.client import Patience, Server, ServerError, add_server_options
from deployments.commands import INTERRUPTED_EXIT_CODE, CommandError, replaced
from deployments.progress import Progress
from voice_core.audio.endings import ENDINGS
from voice_core.speech import DEFAULT_VOICE

PATH = "/v1/audio/speech"
CONCURRENCY = 16


@dataclass
class Tally:
    """How far it is."""

    total: int
    kept: int = 0  # from a run before
    spoken: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> int:
        return self.kept + self.spoken + len(self.errors)

    def fail(self, bad: BadLine) -> None:
        self.errors.append({"line": bad.line, "id": bad.id, "error": bad.error.error})


class DoneList:
    """Remembers beside the files which request each is the answer to: a line for each, written after its file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / DONE_FILE
        self._known: dict[str, tuple[str, int]] = {}  # by output: key and size
        if self._path.is_file():
            text = self._path.read_text(encoding="utf-8")
            if text and not text.endswith("\n"):  # a run was killed in mid-line
                with self._path.open("a", encoding="utf-8") as file:
                    file.write("\n")
            for line in text.splitlines():
                try:
                    row = json.loads(line)
                    self._known[row["output"]] = (row["key"], row["bytes"])
                except (ValueError, KeyError, TypeError):
                    continue  # the file of half a line is made again

    def has(self, job: Job) -> bool:
        """Is the whole file there, and the answer to this very request?"""
        key, size = self._known.get(job.output, ("", -1))
        file = self._folder / job.output
        return key == job.key and file.is_file() and file.stat().st_size == size

    def add(self, job: Job, size: int) -> None:
        row = json.dumps({"output": job.output, "key": job.key, "bytes": size, "id": job.id})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{row}\n")


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    options = parser().parse_args(arguments)
    progress = Progress(sys.stderr, "lines")
    try:
        tally = bulk(options, progress)
    except (CommandError, OSError) as error:
        progress.close()
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress.close()
        print("Stopped. The same command goes on where this one ended.", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    progress.close()
    told = f"{options.output}: {tally.spoken} spoken, {tally.kept} were there, {len(tally.errors)} failed"
    print(told + (f"; see {options.output / ERRORS_FILE}" if tally.errors else ""))
    return 1 if tally.errors else 0


def bulk(options: argparse.Namespace, progress: Progress) -> Tally:
    """Speak what isn't there yet; errors of single lines are counted, and kept beside the files."""
    options.output.mkdir(parents=True, exist_ok=True)
    for part in options.output.rglob(".*.part"):  # of a run that was killed
        part.unlink(missing_ok=True)
    (options.output / ERRORS_FILE).unlink(missing_ok=True)
    # Files of one model are no answer to what another is asked; what a server's model is, is the server's matter.
    model = options.model if options.ray_data else "voice"
    lines = read_manifest(options.manifest, options.voice, options.format, model)
    tally, done = Tally(len(lines)), DoneList(options.output)
    jobs = []
    try:
        for line in lines:
            if isinstance(line, BadLine):
                tally.fail(line)
            elif done.has(line):
                tally.kept += 1
            else:
                jobs.append(line)
        progress.start(tally.done)
        if options.ray_data:
            from deployments.bulk_ray import speak_all
        else:
            speak_all = _speak_all
        for job, outcome in speak_all(jobs, options):
            if isinstance(outcome, LineError):
                tally.fail(BadLine(job.line, job.id, outcome))
            else:
                _keep(options.output / job.output, outcome)
                done.add(job, len(outcome))
                tally.spoken += 1
            progress.tell(tally.done, tally.total, f" ({len(tally.errors)} failed)" if tally.errors else "")
    finally:
        if tally.errors:
            with replaced(options.output / ERRORS_FILE) as file:
                for error in sorted(tally.errors, key=lambda error: int(error["line"])):
                    # Half of a surrogate pair has no UTF-8; its escape is JSON's own.
                    file.write(json.dumps(error, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")
    return tally


def _keep(file: Path, audio: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replaced(file) as part:
        part.write(audio)


def _speak_all(jobs: list[Job], options: argparse.Namespace) -> Iterator[tuple[Job, bytes | LineError]]:
    """Ask for so many at once; yield each as it comes. Threads are left behind if nobody waits for them any more."""
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    outcomes: queue.Queue[tuple[Job, bytes | LineError | Exception]] = queue.Queue()
    for job in jobs:
        waiting.put(job)

    def work() -> None:
        server = Server(options.url, options.api_key)
        while True:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                outcomes.put((job, _spoken(server, job, options.patience)))
            except LineError as error:
                outcomes.put((job, error))
            except Exception as error:  # whatever it is, the command must learn of it, not wait for ever
                outcomes.put((job, error))
                return

    for _ in range(min(options.concurrency, len(jobs))):
        threading.Thread(target=work, daemon=True).start()
    for _ in jobs:
        job, outcome = outcomes.get()
        if isinstance(outcome, ServerError):
            raise CommandError(str(outcome)) from outcome
        if isinstance(outcome, Exception) and not isinstance(outcome, LineError):
            raise outcome
        yield job, outcome


def _spoken(server: Server, job: Job, patience_seconds: float) -> bytes:
    """Return the file; a server that is busy is asked again, one that is gone ends the command."""
    patience = Patience(patience_seconds)
    while True:
        try:
            with server.post(PATH, job.request) as answer:
                if not (kind := answer.headers.get("Content-Type", "")).startswith("audio/"):
                    raise LineError(f"the server answered {kind or 'no type'}, which is no sound")
                return answer.read()
        except ServerError as error:
            if error.status is None:
                raise
            if error.wait_seconds is None:
                raise LineError(str(error), error.error) from error
            try:
                patience.wait(error)
            except ServerError:
                raise LineError(f"the server was busy for too long: {error}", error.error) from error


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployments bulk",
        description=__doc__.partition(": ")[2],
        epilog='A line: {"input": "Hello.", "id": "greeting", "voice": "Ann", "seconds": 2, "output": "a/hello.mp3"}; '
        f"all but input may be left out, and every field of a request for speech may stand there. OUT/{ERRORS_FILE} "
        "lists what failed. Exit codes: 0 all is there, 1 something failed, 130 stopped.",
    )
    parser.add_argument(
        "manifest", metavar="MANIFEST", help="a file with a JSON object on every line; - is standard input"
    )
    parser.add_argument("output", metavar="OUT", type=Path, help="the folder of the files; made if there is none")
    add_server_options(parser)
    parser.add_argument("--voice", default=DEFAULT_VOICE, help="of lines that name none")
    parser.add_argument("--format", default="wav", choices=sorted(ENDINGS), help="of lines that name none")
    parser.add_argument("--concurrency", type=_count, default=CONCURRENCY, metavar="N", help="requests in flight")
    parser.add_argument("--ray-data", action="store_true", help="without a server, on a Ray cluster: see --model")
    parser.add_argument("--ray-address", metavar="ADDRESS", help="of the cluster; by default a Ray of this machine")
    parser.add_argument(
        "--model", default="embedded", help="with --ray-data: a checkpoint's folder, a hub id, embedded"
    )
    parser.add_argument("--device", default="auto", choices=["auto", "cuda", "cpu"], help="with --ray-data")
    parser.add_argument("--actors", type=_count, default=1, metavar="N", help="with --ray-data: models in the pool")
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError
    return count
