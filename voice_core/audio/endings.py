"""What files of each format are called; without anything that writes them, so that clients needn't have that."""

ENDINGS = {  # by format, without the dot
    "wav": "wav",
    "wav_float32": "wav",
    "mp3": "mp3",
    "flac": "flac",
    "opus": "opus",
    "pcm": "pcm",
    "aac": "aac",
}
