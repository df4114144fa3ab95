"""`python -m deployments dub film.srt -o film.wav`: has a running server speak subtitles, each at its own time."""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.client import Patience, Server, ServerError, add_server_options
from deployments.commands import FORMAT_OF, INTERRUPTED_EXIT_CODE, CommandError, replaced
from deployments.progress import Progress
from voice_core.speech import DEFAULT_VOICE
from voice_core.subtitles import CAPTION_FORMATS

PATH = "/v1/audio/dub"
UNHEARD_EXIT_CODE = 3  # the track is there, but not all words are on it
OUT_OF_TIME = "deadline_exceeded"
LISTED = 20  # cues that are told one by one
MISSING_FLAGS = {"unreadable", "failed", "silent", "unfinished", "cut"}  # words that may not be on the track


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    options = parser().parse_args(arguments)
    progress = Progress(sys.stderr, "cues")
    try:
        done = dub(options, progress)
    except (CommandError, ServerError, OSError) as error:
        progress.close()
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress.close()
        print("Stopped. The server keeps what it has spoken: the same command speaks only the rest.", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    return _tell(options.output, done)


def dub(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Write the track, and what else is asked for; returns the last event of the server."""
    for path in filter(None, (options.output, options.report, options.captions)):
        if not path.parent.is_dir():
            raise CommandError(f"{path}: there is no folder {path.parent}")
    wanted = request(options)
    server, patience = Server(options.url, options.api_key), Patience(options.patience)
    furthest = 0  # cue, at which the time for a request was over
    while True:
        run = Run()
        try:
            done = _receive(server, wanted, options.output, progress, run)
            break
        except ServerError as error:
            if run.fresh:  # it went on since it was last waited
                patience = Patience(options.patience)
            if error.status is not None and error.error.get("code") != OUT_OF_TIME:
                patience.wait(error)
            elif not run.fresh or options.no_cache:  # nobody there, or nothing came of it: a person decides
                raise
            elif error.error.get("code") == OUT_OF_TIME and run.done <= furthest:
                told = f"{error}, and asked again it got no further than cue {furthest} of the track"
                limits = "its segment_cache_bytes hold less than the track, or longest_request_seconds are too few"
                raise CommandError(f"{told}: the server's settings stand in the way, {limits}") from error
            else:  # the connection broke, or the time for one request was over; the cache has what was spoken
                furthest = max(furthest, run.done)
                progress.close()
                print(f"{error}; asking again for the rest", file=sys.stderr)
    if options.report is not None:
        _write(options.report, json.dumps(done["report"], ensure_ascii=False, indent=1) + "\n")
    if options.captions is not None:
        captions = done["captions"]
        _write(options.captions, captions if isinstance(captions, str) else json.dumps(captions, ensure_ascii=False))
    return done


def request(options: argparse.Namespace) -> dict[str, Any]:
    """Return the request's fields; those that weren't given are the server's to choose."""
    wanted: dict[str, Any] = {
        "model": "voice",
        "voice": options.voice,
        "cues": _cues(options.input),
        "voices": _speakers(options.speaker),
        "stream_format": "sse",
        "response_format": options.format or _ending(options.output, FORMAT_OF, "output", "--format names another"),
    }
    if options.captions is not None:
        wanted["captions"] = _ending(options.captions, {f".{name}": name for name in CAPTION_FORMATS}, "captions")
    for name in REQUEST_OPTIONS:
        value = getattr(options, name)
        if value is not None:
            wanted[name] = None if value == "off" else value
    if options.no_cache:
        wanted["cache"] = False
    return wanted


@dataclass
class Run:
    """What came of one request."""

    kept: int = 0  # cues that were spoken before
    fresh: int = 0
    done: int = 0  # both


def _receive(server: Server, wanted: dict[str, Any], output: Path, progress: Progress, run: Run) -> dict[str, Any]:
    """Follow the events; the track appears under its name when it is whole."""
    with replaced(output) as track:
        for event in server.events(PATH, wanted):
            match event["type"]:
                case "dub.progress":
                    run.kept += bool(event["cue"]["cached"])
                    run.done = event["done"]
                    run.fresh += event["cue"]["attempts"] > 0 and not event["cue"]["cached"]
                    progress.tell(event["done"], event["total"], f" ({run.kept} spoken before)" if run.kept else "")
                case "dub.audio.delta":
                    track.write(base64.b64decode(event["audio"]))
                case "dub.done":
                    progress.close()
                    return event
                case "dub.error":
                    raise _refusal(event)
        raise ServerError("the server's answer ended before the track did")


def _refusal(event: dict[str, Any]) -> ServerError:
    """What ends a dub half-way: a server's trouble of the moment may be over when it is asked again."""
    later = event.get("retry_after_seconds")
    refusal = ServerError(event["error"]["message"], status=500 if later is None else 503, wait_seconds=later)
    refusal.error = event["error"]
    return refusal


def _tell(output: Path, done: dict[str, Any]) -> int:
    report = done["report"]
    cues = report["cues"]
    flags = Counter(flag for cue in cues for flag in cue["flags"])
    kept = sum(cue["cached"] for cue in cues)
    told = ", ".join(f"{count} {flag}" for flag, count in sorted(flags.items()))
    print(f"{output}: {len(cues)} cues on {report['track_seconds']:.3f} s, {kept} spoken before; {told or 'no flags'}")
    for warning in report.get("warnings", []):
        print(f"warning: {warning}", file=sys.stderr)
    missing = [cue for cue in cues if MISSING_FLAGS & set(cue["flags"])]
    for cue in missing[:LISTED]:
        flagged = ", ".join(sorted(MISSING_FLAGS & set(cue["flags"])))
        reason = f": {cue['reason']}" if cue.get("reason") else ""
        print(f"cue {cue['index'] + 1} at {cue['start_seconds']:g} s is {flagged}{reason}", file=sys.stderr)
    if len(missing) > LISTED:
        print(f"... and {len(missing) - LISTED} more; --report lists all", file=sys.stderr)
    return UNHEARD_EXIT_CODE if missing else 0


def _write(path: Path, text: str) -> None:
    with replaced(path) as file:
        file.write(text.encode())


def _cues(path: str) -> str:
    content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(f"{path}: is not UTF-8 (byte {error.start}); convert it first") from error


def _speakers(given: list[str]) -> dict[str, str]:
    speakers = {}
    for one in given:
        speaker, equals, voice = one.partition("=")
        if not (speaker.strip() and equals and voice.strip()):
            raise CommandError(f"--speaker {one}: must be NAME=VOICE")
        speakers[speaker.strip()] = voice.strip()
    return speakers


def _ending(path: Path, formats: dict[str, str], what: str, other_way: str = "") -> str:
    if path.suffix.lower() not in formats:
        known = ", ".join(formats)
        raise CommandError(f"{what} {path}: must end in one of {known}" + (f"; {other_way}" if other_way else ""))
    return formats[path.suffix.lower()]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployments dub",
        description=__doc__.partition(": ")[2],
        epilog=f"Exit codes: 0 done, 1 not done, {UNHEARD_EXIT_CODE} done but some text is not on the track, "
        f"{INTERRUPTED_EXIT_CODE} stopped. What isn't given is the server's to choose; see Dubbing in the README.",
    )
    parser.add_argument(
        "input", metavar="IN", help="an SRT or WebVTT file, or a JSON list of cues; - is standard input"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=Path, required=True, help="the track; its ending says how"
    )
    add_server_options(parser)
    parser.add_argument("--voice", default=DEFAULT_VOICE, help="of cues without a speaker")
    speaker_help = "voice of a speaker: of WebVTT's <v NAME>, JSON's speaker, or [NAME] before a text in SRT"
    parser.add_argument("--speaker", metavar="NAME=VOICE", action="append", default=[], help=speaker_help)
    parser.add_argument("--report", metavar="JSON", type=Path, help="what became of every cue")
    parser.add_argument("--captions", metavar="FILE", type=Path, help="where every cue lies: .srt, .vtt or .json")
    parser.add_argument("--format", help="of the track; by default what OUT's ending says")
    for name, (kind, metavar, what) in REQUEST_OPTIONS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=metavar, help=what)
    parser.add_argument("--no-cache", action="store_true", help="speak all of it, whatever was spoken before")
    return parser


def _off_or_number(text: str) -> float | str:
    return text if text == "off" else float(text)


REQUEST_OPTIONS: dict[str, tuple[Any, str, str]] = {
    "track_seconds": (float, "SECONDS", "length of the film"),
    "overrun_seconds": (float, "SECONDS", "that a cue may run over its end, into silence"),
    "max_characters_per_second": (_off_or_number, "NUMBER", "beyond it a cue is flagged as fast; or off"),
    "loudness_lufs": (_off_or_number, "LUFS", "of the track; or off: as spoken"),
    "seconds_tolerance": (_off_or_number, "SECONDS", "beyond it a cue is spoken again; or off"),
    "on_bad_segment": (str, "POLICY", "retry, fail or keep"),
    "best_of": (int, "COUNT", "candidates for every cue"),
    "priority": (str, "PRIORITY", "interactive or batch, which lets others go first"),
    "seed": (int, "NUMBER", "of everything"),
    "temperature": (float, "NUMBER", "of sampling"),
    "top_k": (int, "NUMBER", "of sampling"),
    "top_p": (float, "NUMBER", "of sampling"),
    "min_p": (float, "NUMBER", "of sampling"),
    "language": (str, "TAG", "of all cues; by default each is looked at"),
}
