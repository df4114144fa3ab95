"""A film of 340 cues, dubbed for real: python benchmarks/dub_film.py [--url http://127.0.0.1:8000] [--srt FILE]

Writes an SRT of one English film (always the same for a seed): cues of half a second to half a minute, long silences,
cues that follow each other without a pause, cues that overlap, two lines in one cue, figures, a few in Japanese. Has a
running server dub it through `python -m deployments dub`, kills the command about half-way, runs it again, and looks at
the track itself: does every cue begin within 20 ms of its time? `--srt FILE` only writes the subtitles.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.reporting import report, table
from voice_core.audio.joining import TRIM_DB
from voice_core.subtitles import Cue, read_cues, write_captions

ROOT = Path(__file__).resolve().parents[1]
ALLOWED_SECONDS = 0.02  # by which a cue may begin early or late
SEED = 6
WHO = ("The captain", "My sister", "An old friend", "The driver", "Nobody here", "Your brother", "The woman next door")
WHAT = ("will never leave", "was looking for", "has forgotten", "wants to see", "could not find", "asked about")
WHOM = ("the island", "a quiet place", "the last train", "her father", "the blue letter", "that house by the sea")
ENDS = ("before the winter comes", "after all these years", "in the middle of the night", "and I believe it", "again")
SHORT = (
    "Wait!",
    "Yes.",
    "Who is there?",
    "Come in.",
    "I know.",
    "Look at me.",
    "Not now.",
    "Are you sure?",
    "Good night.",
)
FIGURES = ("It was 1998.", "That makes $40.", "The train leaves at 7:45.", "Page 12, please.", "Only 3 of them came.")
JAPANESE = ("おはようございます。", "どこへ行くの？", "もう時間がない。", "ありがとう、また明日。")
EDGES = (1.0, 2.0, 4.0, 8.0, 60.0)  # seconds asked for, of the table's rows


def main() -> int:
    options = _options()
    if options.srt is not None:
        options.srt.write_text(film(options.cues), encoding="utf-8")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        srt = Path(folder) / "film.srt"
        srt.write_text(film(options.cues), encoding="utf-8")
        first_cues, first_seconds = killed_run(srt, options)
        done, seconds, code = whole_run(srt, options)
        again, again_seconds, _ = whole_run(srt, options)
        checked = check(srt, done)
    kept = [sum(row["cached"] for row in report["cues"]) for report in (done, again)]
    tell(options, done, checked, (first_cues, *kept), (first_seconds, seconds, again_seconds), code)
    return 1 if checked["late"] else 0


def film(cues: int) -> str:
    """Return the subtitles, in SRT."""
    return write_captions(_cues(cues), "srt")


def _cues(count: int) -> Iterator[Cue]:
    draw = random.Random(SEED)
    at_seconds = 2.0
    for number in range(count):
        text = _text(draw, number)
        seconds = round(max(0.6, len(text) / draw.uniform(11, 17)), 3)
        if number % 40 == 7:
            seconds = round(seconds * 2, 3)  # drawn out
        start_seconds = at_seconds
        if number % 17 == 5:
            start_seconds = max(0.0, at_seconds - draw.uniform(0.2, 0.8))  # somebody interrupts
        end_seconds = start_seconds + seconds
        yield Cue(round(start_seconds, 3), round(end_seconds, 3), text)
        pause = draw.choice((0.0, 0.0, 0.04, 0.2, 0.5, 1.0, 2.5))
        at_seconds = end_seconds + (draw.uniform(8, 20) if number % 60 == 59 else pause)


def _text(draw: random.Random, number: int) -> str:
    if number % 68 == 33:
        return draw.choice(JAPANESE)
    if number % 9 == 4:
        return draw.choice(SHORT)
    if number % 23 == 11:
        return draw.choice(FIGURES)
    sentences = 7 if number % 100 == 50 else draw.choice((1, 1, 1, 2))
    return " ".join(_sentence(draw) for _ in range(sentences))


def _sentence(draw: random.Random) -> str:
    end = f" {draw.choice(ENDS)}" if draw.random() < 0.5 else ""
    return f"{draw.choice(WHO)} {draw.choice(WHAT)} {draw.choice(WHOM)}{end}."


def killed_run(srt: Path, options: argparse.Namespace) -> tuple[int, float]:
    """Kill the command when half of the cues are spoken; return how many were, and after how many seconds."""
    began = time.monotonic()
    command = subprocess.Popen(_command(srt, options), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert command.stderr is not None
    done = 0
    for line in command.stderr:
        print(line, end="", file=sys.stderr)
        words = line.split()
        if words and words[0].isdecimal():
            done = int(words[0])
            if done >= options.cues // 2:
                command.kill()
                break
    command.wait()
    time.sleep(1)  # the server learns of it, and lets go of what is under way
    return done, time.monotonic() - began


def whole_run(srt: Path, options: argparse.Namespace) -> tuple[dict[str, Any], float, int]:
    began = time.monotonic()
    run = subprocess.run(_command(srt, options), cwd=ROOT, check=False)
    assert run.returncode in (0, 3), f"exit code {run.returncode}"
    document = json.loads(srt.with_suffix(".json").read_text(encoding="utf-8"))
    return document, time.monotonic() - began, run.returncode


def _command(srt: Path, options: argparse.Namespace) -> list[str]:
    track, told = srt.with_suffix(".wav"), srt.with_suffix(".json")
    command = [sys.executable, "-m", "deployments", "dub", str(srt), "-o", str(track), "--report", str(told)]
    return [*command, "--url", options.url, "--seed", str(options.seed)]


def check(srt: Path, done: dict[str, Any]) -> dict[str, Any]:
    """Look at the track: where does each cue's sound begin? Cues that others are mixed with can't be told apart."""
    samples, rate = soundfile.read(srt.with_suffix(".wav"), dtype="float32")
    cues = read_cues(srt.read_bytes()).cues
    assert len(done["cues"]) == len(cues)
    offsets, late = [], []
    heard_until = 0.0
    for row, cue in sorted(zip(done["cues"], cues, strict=True), key=lambda pair: pair[0]["placed_seconds"] or 0):
        assert (row["start_seconds"], row["text"]) == (cue.start_seconds, cue.text)
        if row["placed_seconds"] is None:
            continue
        if not {"moved", "overlap"} & set(row["flags"]):
            offset = _first_audible(samples, rate, row, heard_until) - cue.start_seconds
            offsets.append(offset)
            if abs(offset) > ALLOWED_SECONDS:
                late.append((row["index"] + 1, round(offset, 3)))
        heard_until = max(heard_until, row["placed_end_seconds"])
    return {"offsets": offsets, "late": late, "track_seconds": len(samples) / rate}


def _first_audible(samples: NDArray[np.float32], rate: int, row: dict[str, Any], heard_until: float) -> float:
    """Return when a cue is first heard: from 0.2 s before its time, if the sound before it has ended by then."""
    begin = round(max(heard_until, row["start_seconds"] - 0.2, 0) * rate)
    magnitudes = np.abs(samples[begin : round(row["placed_end_seconds"] * rate)])
    audible = np.flatnonzero(magnitudes > magnitudes.max() * 10 ** (TRIM_DB / 20))
    return float((begin + audible[0]) / rate)


def tell(
    options: argparse.Namespace,
    done: dict[str, Any],
    checked: dict[str, Any],
    cues: Sequence[int],
    seconds: Sequence[float],
    code: int,
) -> None:
    """`cues` are those told before the kill, and those that the second and third run found spoken."""
    rows = done["cues"]
    spoken = [row for row in rows if row["attempts"]]
    flags = Counter(flag for row in rows for flag in row["flags"])
    first_cues, kept, kept_again = cues
    offsets_ms = [1000 * abs(offset) for offset in checked["offsets"]]
    runs = [
        ["killed", first_cues, "", seconds[0]],
        ["again", len(spoken) - kept, kept, seconds[1]],
        ["once more", len(spoken) - kept_again, kept_again, seconds[2]],
    ]
    body = f"{len(rows)} cues on {done['track_seconds']:.0f} s, {done['loudness_lufs']} LUFS; exit code {code}.\n\n"
    body += f"{len(offsets_ms)} cues that are neither moved nor mixed begin "
    body += f"{statistics.mean(offsets_ms):.2f} ms from their time in the mean, {max(offsets_ms):.2f} ms at most.\n\n"
    body += table(["run", "cues spoken", "spoken before", "seconds"], runs) + "\n"
    body += table(
        ["asked", "cues", "mean miss s", "largest miss s", "within 0.3 s", "tried again"], list(_misses(spoken))
    )
    body += "\n" + table(["flag", "cues"], [[flag, count] for flag, count in sorted(flags.items())])
    summary = {
        "cues": len(rows),
        "track_seconds": done["track_seconds"],
        "late": checked["late"],
        "largest_offset_ms": round(max(offsets_ms), 2),
        "spoken_before_kill": first_cues,
        "spoken_again": len(spoken) - kept,
        "flags": dict(flags),
    }
    report("dub", "A film dubbed on the embedded voice", body, summary, keep=not options.quick)


def _misses(spoken: list[dict[str, Any]]) -> Iterator[list[object]]:
    low = 0.0
    for high in EDGES:
        rows = [row for row in spoken if low <= row["asked_seconds"] < high]
        misses = [abs(row["got_seconds"] - row["asked_seconds"]) for row in rows]
        if misses:
            within = sum(miss <= 0.3 for miss in misses) / len(misses)
            again = sum(row["attempts"] > 1 for row in rows)
            told = f"{low:g} to {high:g} s"
            yield [told, len(rows), statistics.mean(misses), max(misses), f"{100 * within:.0f} %", again]
        low = high


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the running server")
    parser.add_argument("--cues", type=int, default=340)
    parser.add_argument("--seed", type=int, default=0, help="of the voice; another one finds nothing spoken before")
    parser.add_argument("--srt", type=Path, metavar="FILE", help="only write the subtitles there")
    parser.add_argument("--quick", action="store_true", help="no results file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
