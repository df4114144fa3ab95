"""What the speaker learns from: batches of texts and codes, and the two losses.

Letters in shape comments: B rows, T text tokens, S decoder inputs (frames + the start code), H hidden, P phonemes.

The second loss hears only the encoder: a throw-away head must read the phonemes out of the text's memory (CTC). The
codes alone teach spelling slowly, because a wrong sound costs little where most of a frame's loss is its timbre.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.corpus import Utterance
from voice_core.model.config import ModelConfig
from voice_core.model.network import Network, NoMemory, additive, prefill_positions, whole
from voice_core.model.tokenizer import TextTokenizer

IGNORED = -100  # targets that aren't there; PyTorch's own default

FRAMES_PER_BATCH = 1200  # padding included
BATCHES_PER_POOL = 24  # so many batches are sorted by length together: little padding, still mixed
TARGET_JITTER = 0.03  # of the target length: the product asks for an estimate, not for what the teacher took
CORRUPTED_CODES = 0.10  # of the decoder's inputs, on average: at work it reads its own mistakes

PHONEME_SLOTS = 3  # per letter: "w" alone is said as eight phonemes, and CTC needs blanks between equal ones
READING_WEIGHT = 0.5


@dataclass(frozen=True)
class Lesson:
    """An utterance as numbers."""

    text_ids: tuple[int, ...]
    phoneme_ids: tuple[int, ...]
    codes: Tensor  # [frames] int64

    @property
    def inputs(self) -> int:
        """Decoder inputs: the start code and all frames."""
        return len(self.codes) + 1


class Batch(NamedTuple):
    """Lessons of about one length, padded on the right."""

    text_ids: Tensor  # [B, T]
    text_lengths: Tensor  # [B]
    inputs: Tensor  # [B, S] the start code, then the codes
    targets: Tensor  # [B, S] the codes, then the end code; IGNORED beyond it
    lengths: Tensor  # [B] decoder inputs of each row
    phonemes: Tensor  # all rows' phonemes, one after the other
    phoneme_counts: Tensor  # [B]

    def to(self, device: torch.device) -> Batch:
        return Batch(*(column.to(device) for column in self))


class Speaker(nn.Module):
    """The network and, while it learns, the head that reads phonemes out of the encoder."""

    def __init__(self, network: Network, phonemes: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.phonemes = tuple(phonemes)
        size = network.config.encoder.hidden_size
        self.reading_head = nn.Linear(size, PHONEME_SLOTS * (len(self.phonemes) + 1))  # 0 is CTC's blank

    def forward(self, batch: Batch, total_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of the next codes [B, S, V] and log-probabilities of phonemes [B, 3T, P + 1].

        `total_frames` [B] is the length that each row believes it has: the denominator of its progress, plus one.
        """
        network, config = self.network, self.network.config
        memory = network.encoder(batch.text_ids, batch.text_lengths)  # [B, T, H]
        text = network.decoder.memorise(memory, batch.text_lengths)
        place = torch.arange(batch.inputs.shape[1], device=memory.device)
        token = torch.arange(batch.text_ids.shape[1], device=memory.device)
        causal = additive(place[:, None] >= place, memory.dtype)[None, None]
        visible_text = additive((token < batch.text_lengths[:, None])[:, None, None], memory.dtype)
        positions = prefill_positions(config, len(place), total_frames).clamp(max=config.progress_scale)
        pieces = network.decoder.pieces(batch.inputs, positions, {None: causal}, NoMemory(), text, visible_text)
        hidden = whole(pieces)  # [B, S, H]
        read = self.reading_head(memory).unflatten(2, (PHONEME_SLOTS, -1)).flatten(1, 2)
        return network.head(hidden), read.float().log_softmax(-1)


def lessons_of(corpus: Sequence[Utterance], tokenizer: TextTokenizer, phonemes: Sequence[str]) -> list[Lesson]:
    """Return the utterances as numbers; phonemes that aren't in the list are left out."""
    numbers = {phoneme: number for number, phoneme in enumerate(phonemes, start=1)}
    return [
        Lesson(
            tokenizer.row_ids(each.text),
            tuple(numbers[phoneme] for phoneme in each.phonemes if phoneme in numbers),
            torch.from_numpy(each.signal).long(),
        )
        for each in corpus
    ]


def phonemes_of(corpus: Sequence[Utterance]) -> list[str]:
    """Return every sound of the corpus, in the order of the alphabet."""
    return sorted(set().union(*(each.phonemes for each in corpus)))


def batches(lessons: Sequence[Lesson], config: ModelConfig, generator: torch.Generator) -> Iterator[Batch]:
    """Yield batches for ever: shuffled, sorted by length within pools, the batches of a pool shuffled again."""
    while True:
        order = torch.randperm(len(lessons), generator=generator).tolist()
        pool: list[Lesson] = []
        for number in order:
            pool.append(lessons[number])
            if sum(lesson.inputs for lesson in pool) >= BATCHES_PER_POOL * FRAMES_PER_BATCH:
                yield from _pool_batches(pool, config, generator)
                pool = []
        yield from _pool_batches(pool, config, generator)


def _pool_batches(pool: list[Lesson], config: ModelConfig, generator: torch.Generator) -> Iterator[Batch]:
    groups: list[list[Lesson]] = [[]]
    for lesson in sorted(pool, key=lambda each: each.inputs):
        if groups[-1] and (len(groups[-1]) + 1) * lesson.inputs > FRAMES_PER_BATCH:
            groups.append([])
        groups[-1].append(lesson)
    for number in torch.randperm(len(groups), generator=generator).tolist():
        if groups[number]:
            yield collate(groups[number], config)


def collate(lessons: Sequence[Lesson], config: ModelConfig) -> Batch:
    """Return the lessons as one padded batch."""
    lengths = torch.tensor([lesson.inputs for lesson in lessons])
    text_lengths = torch.tensor([len(lesson.text_ids) for lesson in lessons])
    shape = (len(lessons), int(lengths.max()))
    inputs = torch.full(shape, config.start_code)
    targets = torch.full(shape, IGNORED)
    text_ids = torch.zeros(len(lessons), int(text_lengths.max()), dtype=torch.int64)
    for row, lesson in enumerate(lessons):
        frames = len(lesson.codes)
        inputs[row, 1 : frames + 1] = lesson.codes
        targets[row, :frames] = lesson.codes
        targets[row, frames] = config.end_code
        text_ids[row, : len(lesson.text_ids)] = torch.tensor(lesson.text_ids)
    phonemes = torch.tensor([phoneme for lesson in lessons for phoneme in lesson.phoneme_ids])
    counts = torch.tensor([len(lesson.phoneme_ids) for lesson in lessons])
    return Batch(text_ids, text_lengths, inputs, targets, lengths, phonemes, counts)


def disturbed(batch: Batch, config: ModelConfig, generator: torch.Generator) -> tuple[Batch, Tensor]:
    """Return the batch with some inputs replaced by wrong codes, and jittered total lengths [B]."""
    rows, width = batch.inputs.shape
    share = torch.rand(rows, 1, generator=generator) * 2 * CORRUPTED_CODES  # some rows hardly, some often
    wrong = torch.rand(rows, width, generator=generator) < share
    wrong[:, 0] = False
    # Half of the wrong codes are the ones before: the commonest mistake is to be a frame late.
    late = torch.rand(rows, width, generator=generator) < 0.5
    random_codes = torch.randint(config.audio_vocab_size, (rows, width), generator=generator)
    replaced = torch.where(
        late & (batch.inputs.roll(1, 1) < config.audio_vocab_size), batch.inputs.roll(1, 1), random_codes
    )
    jitter = 1 + (torch.rand(rows, generator=generator) * 2 - 1) * TARGET_JITTER
    totals = (batch.lengths * jitter).round().clamp(min=2)
    return batch._replace(inputs=torch.where(wrong, replaced, batch.inputs)), totals


def losses(speaker: Speaker, batch: Batch, total_frames: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the loss of the codes, the loss of the phonemes and the share of codes that were the likeliest ones."""
    with fast_arithmetic(batch.inputs.device):
        logits, read = speaker(batch, total_frames)
    spoken = batch.targets != IGNORED
    logits, targets = logits[spoken].float(), batch.targets[spoken]
    reading = F.ctc_loss(
        read.transpose(0, 1),
        batch.phonemes,
        batch.text_lengths * PHONEME_SLOTS,
        batch.phoneme_counts,
        zero_infinity=True,
    )
    return F.cross_entropy(logits, targets), reading, (logits.argmax(-1) == targets).float().mean().item()


@contextmanager
def fast_arithmetic(device: torch.device) -> Iterator[None]:
    """bfloat16 products, which take half the time of float32 ones on a CPU that has them and on a GPU.

    Attention is then spelled out on a CPU, because its fused bfloat16 kernel is the slower one there.
    """
    kernels = [SDPBackend.MATH] if device.type == "cpu" else [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with torch.autocast(device.type, torch.bfloat16), sdpa_kernel(kernels):
        yield
