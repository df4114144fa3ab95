"""`python -m voice_core say "Hello" -o hello.wav`: speech without a server."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from voice_core.errors import RequestError, VoiceError
from voice_core.speech import HIGHEST_TEMPERATURE, LARGEST_TOP_K, LONGEST_PAUSE_SECONDS, MAX_SEED, PAUSE_SECONDS

# The same bounds as those of a request to the service.
BOUNDS: dict[str, tuple[float, float]] = {
    "seed": (0, MAX_SEED),
    "temperature": (0, HIGHEST_TEMPERATURE),
    "top_k": (0, LARGEST_TOP_K),
    "top_p": (math.ulp(0.0), 1),  # above 0
    "seconds": (math.ulp(0.0), sys.float_info.max),
    "pause_seconds": (0, LONGEST_PAUSE_SECONDS),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        check(options)
        say(options)
    except (VoiceError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def check(options: argparse.Namespace) -> None:
    """Refuse, before any work, numbers out of bounds and a text that isn't one."""
    for name, (least, most) in BOUNDS.items():
        value = getattr(options, name)
        if value is not None and not least <= value <= most:  # also not a number
            above = "above 0" if least > 0 else "at least 0"
            bound = above if most == sys.float_info.max else f"{above} and at most {most:.16g}"
            raise RequestError(f"--{name.replace('_', '-')}", f"{value} must be {bound}")
    try:
        options.text.encode()
    except UnicodeEncodeError:
        raise RequestError("text", "is not valid UTF-8") from None


def say(options: argparse.Namespace) -> None:
    """Speak a text into a file and say in one line what it holds."""
    from voice_core.audio.formats import encode, format_named
    from voice_core.audio.joining import join
    from voice_core.audio.waveform import Waveform
    from voice_core.planning import plan
    from voice_core.speech import Sampling, Segment
    from voice_core.synthesizer import Synthesizer

    output = Path(options.output)
    audio_format = options.format or output.suffix.removeprefix(".")
    format_named(audio_format)  # a wrong name is told before the work
    synthesizer = Synthesizer.load(options.model, device=options.device)
    planned = plan(
        options.text,
        longest_seconds=synthesizer.facts.longest_seconds,
        language=options.language,
        seconds=options.seconds,
        pause_seconds=options.pause_seconds,
        text_normaliser=synthesizer.facts.text_normaliser,
        alphabet=synthesizer.facts.alphabet,
    )
    sampling = Sampling(options.temperature, options.top_k, options.top_p)
    segments = [
        Segment(piece.text, piece.seconds, index, (options.seed,), sampling)
        for index, piece in enumerate(planned.segments)
    ]
    speeches = [speech for (speech,) in synthesizer.speak(segments)]
    synthesizer.close()
    whole = join(
        [Waveform(speech.samples, speech.sample_rate) for speech in speeches],
        pause_seconds=options.pause_seconds,
    )
    output.write_bytes(encode(whole, audio_format))
    reasons = ",".join(speech.finish_reason for speech in speeches)
    print(f"{output}: {whole.seconds:.2f} s at {whole.sample_rate} Hz, {len(speeches)} segments ({reasons})")


def _parser() -> argparse.ArgumentParser:
    from voice_core.speech import Sampling

    usual = Sampling()
    parser = argparse.ArgumentParser(prog="python -m voice_core", description="Speech without a server.")
    commands = parser.add_subparsers(required=True, metavar="command")
    say_command = commands.add_parser("say", help="speak a text into a file")
    say_command.add_argument("text")
    say_command.add_argument("-o", "--output", default="speech.wav", help="file to write; its ending names the format")
    say_command.add_argument("--format", help="format, if the file's ending does not say it")
    say_command.add_argument("--model", default="embedded", help="checkpoint directory, hub id or 'embedded'")
    say_command.add_argument("--device", default="auto", choices=["auto", "cuda", "cpu"])
    say_command.add_argument("--language", help="language tag such as en or ja; detected if not given")
    say_command.add_argument("--seconds", type=float, help="how long the whole is to take")
    say_command.add_argument("--seed", type=int, default=0)
    say_command.add_argument("--temperature", type=float, default=usual.temperature)
    say_command.add_argument("--top-k", type=int, default=usual.top_k)
    say_command.add_argument("--top-p", type=float, default=usual.top_p)
    say_command.add_argument("--pause-seconds", type=float, default=PAUSE_SECONDS, help="silence between segments")
    return parser


if __name__ == "__main__":
    sys.exit(main())
