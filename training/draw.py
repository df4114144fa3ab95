"""Command: draws the spectrogram of the teacher's speech above the voice's, as a PNG file.

python training/draw.py --model embedded --out training/spectrograms.png
"""

from __future__ import annotations

import struct
import sys
import zlib
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a fresh clone runs without being installed

from training.evaluate import segments_of
from training.teacher import Teacher
from training.texts import visible
from voice_core.synthesizer import EMBEDDED, Synthesizer

TEXT = "The ferry leaves at noon and comes back before dark."
WORDS_PER_MINUTE = 170

WINDOW, HOP = 512, 80  # samples at 16 kHz: 31 Hz a row, 5 ms a column
QUIETEST = -9.0  # natural logarithm of the magnitude that is drawn white
LOUDEST = 3.0  # … and black
GAP_ROWS = 8


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--text", default=TEXT)
    arguments = parser.parse_args()

    synthesizer = Synthesizer.load(arguments.model, device="cpu")
    spoken = synthesizer.speak(segments_of(synthesizer, arguments.text))
    voice = np.concatenate([speech.samples for (speech,) in spoken])
    synthesizer.close()
    pictures = [spectrogram(sound) for sound in (Teacher().speak(visible(arguments.text), WORDS_PER_MINUTE), voice)]
    width = max(picture.shape[1] for picture in pictures)
    white = np.full((GAP_ROWS, width), 255, np.uint8)
    padded = [np.pad(picture, ((0, 0), (0, width - picture.shape[1])), constant_values=255) for picture in pictures]
    arguments.out.write_bytes(png(np.concatenate([padded[0], white, padded[1]])))


def spectrogram(samples: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a picture [frequencies, times] of 16 kHz samples, the highest frequency on top, loud is dark."""
    spectrum = torch.stft(
        torch.from_numpy(samples), WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True
    ).abs()
    loudness = (spectrum.clamp(min=1e-6).log() - QUIETEST) / (LOUDEST - QUIETEST)
    return (255 * (1 - loudness.clamp(0, 1))).byte().flip(0).numpy()


def png(picture: NDArray[np.uint8]) -> bytes:
    """Return a PNG file of grey values [rows, columns]."""
    rows, columns = picture.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)  # eight bits of grey
    pixels = b"".join(b"\0" + row.tobytes() for row in picture)  # each row begins with "no filter"
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


if __name__ == "__main__":
    main()
