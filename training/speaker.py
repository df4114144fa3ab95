"""What the speaker learns from: batches of texts and codes, and the two losses.

Letters in shape comments: B rows, T text tokens, S decoder inputs (start code, prompt, frames), H hidden, V voices,
K codes a voice, P phonemes.

A lesson may begin with a voice prompt, laid out as the product does: the prompt's text before the text, its codes and
the separator before the codes. Without one the first voice speaks, with one the prompt's. The codes of the prompt are
learned like all others. Some prompts are strange: the users' recordings hold hums, noise and words that their
transcripts don't tell, and what follows must be said all the same. Of those nothing is learned.

The second loss hears only the encoder: a throw-away head must read the phonemes out of the text's memory (CTC). The
codes alone teach spelling slowly, because a wrong sound costs little where most of a frame's loss is its timbre.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from math import ceil
from operator import attrgetter
from typing import NamedTuple
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrize import register_parametrization

from training.corpus import Utterance
from training.teacher import VOICES
from voice_core.model import network
from voice_core.model.config import ModelConfig
from voice_core.model.network import Network, NoMemory, additive, prefill_positions, whole
from voice_core.model.tokenizer import TextTokenizer

IGNORED = -100  # targets that aren't there; PyTorch's own default

FRAMES_PER_BATCH = 1200  # padding included; a GPU isn't busy with so few
BATCHES_PER_POOL = 24  # so many batches are sorted by length together: little padding, still mixed
TARGET_JITTER = 0.02  # of the target length: the product asks for an estimate, not for what the teacher took
PROMPTED = (0.3, 1.0)  # of the lessons in each voice: only the first one speaks unprompted
PROMPT_FRAMES = range(40, 301)  # 0.8 to 6 s
SWAPPED_PROMPT_CODES = 0.08  # for the other voice's like: to the product's encoder silence has no voice
UNTOLD_FRAMES = 6  # of a prompt, that nothing is learned from: whose voice it will be can't be known yet
STRANGE_PROMPTS = 0.2  # of the prompts
TONES = 0.6  # of those are no speech; the others' codes are of other words
TONE_CODES = 4  # at most, in a prompt that is no speech: the encoder hears a hum as one code, noise as two or three

GUIDED_STEPS = 2000  # so long cross-attention is led along the text, less and less
GUIDED_TOKENS = 6.0  # standard deviation of the place in the text where a frame belongs, at first

# Lessons that fall behind: one code is held for so many frames more, or many are said twice, and what comes next is due
# at every one of them; then the speech hurries, and what isn't made up comes after its time. Without them a voice that
# once is late has never learned how to go on: time, by which it knows what to say, stands still beyond the target.
DELAY_FRAMES_AT_THE_END = 50  # at most; the product cuts speech off a second after the target
DELAY_FRAMES_BEFORE = 30  # at most
SPREAD_DELAYS = 0.5  # of those before the end

# Lessons that run ahead: up to every second code is left out for a while, then speech slows down until it is in time.
# Delays alone teach only one way back, and a pace that leans towards the usual one.
FRAMES_AHEAD = 40  # at most
SLOWING = 0.3  # of the frames that follow may be said twice

CORRUPTED_CODES = 0.10  # of the decoder's inputs, on average: at work it reads its own mistakes

PHONEME_SLOTS = 3  # per letter: "w" alone is said as eight phonemes, and CTC needs blanks between equal ones
READING_WEIGHT = 0.5


@dataclass(frozen=True)
class OffPace:
    """How many lessons fall behind or run ahead, and what their delays are like. All are shares."""

    delayed: float = 0.3
    late_ends: float = 0.15  # of the delayed lessons: they end late
    hurry: float = 0.4  # of the frames after a delay may be left out
    ahead: float = 0.3  # of the lessons that aren't delayed

    def __post_init__(self) -> None:
        for name, share in asdict(self).items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share, from 0 to 1, not {share}")


USUALLY_OFF_PACE = OffPace()


@dataclass(frozen=True)
class Lesson:
    """An utterance as numbers."""

    text_ids: tuple[int, ...]  # of prompt and utterance
    phoneme_ids: tuple[int, ...]
    codes: Tensor  # [frames] int64, of prompt, separator and utterance
    voice: int
    prompt_tokens: int = 0  # of text_ids, the space after the prompt's text included
    prompt_inputs: int = 0  # of codes, the separator included
    untold_inputs: int = 0  # the first ones of codes, that nothing is learned from
    moments: Tensor | None = None  # [inputs - 1] the frame of each decoder input but the first, if not each once
    due: Tensor | None = None  # [inputs] the frame due after each decoder input, if not the next that there is

    @property
    def inputs(self) -> int:
        """Decoder inputs: the start code, the prompt and all frames."""
        return len(self.codes if self.moments is None else self.moments) + 1

    @property
    def due_inputs(self) -> int:
        """Decoder inputs until the end is due, whether or not it comes late."""
        return len(self.codes) + 1

    def delayed(
        self, place: int, frames: int, generator: torch.Generator, *, hurry: float, spread: bool = False
    ) -> Lesson:
        """Return this lesson so many frames late from a place, of 0 .. len(codes) - 1, on, then in a hurry.

        The code there is held; or, where the delay is to be `spread`, it and those after it are said twice. Of equal
        codes in a row it is the last one: the others are followed by themselves, and would teach to stay.
        What is left out to make up for it, at most the share `hurry` of what follows, are codes that are equal to those
        before, as long as there are any.
        """
        followed_by_another = self.codes != F.pad(self.codes[1:], (0, 1), value=IGNORED)
        lasts = followed_by_another.nonzero().flatten()
        lasts = lasts[lasts >= place]
        held = lasts[:frames] if spread else lasts[:1].expand(frames)
        said_once = torch.arange(int(held[-1]) + 1)
        rest = torch.arange(len(said_once), len(self.codes))
        left_out = min(frames, int(hurry * len(rest)))
        moments = torch.cat((said_once, held, self._repeated_first(rest, generator)[left_out:])).sort().values
        return replace(self, moments=moments)

    def ahead(self, place: int, frames: int, generator: torch.Generator) -> Lesson:
        """Return this lesson so many frames ahead of its time after a place, of 0 .. len(codes) - 1, then slower.

        After the place up to every second code is left out, though it is due: to rush isn't to be learned. Then as many
        are to be said twice, soon: the share `SLOWING` of what follows. Where too little follows, less is left out.
        Both times these are codes that are equal to those before, as long as there are any.
        """
        rushed = torch.arange(place + 1, min(place + 1 + 2 * frames, (place + 1 + len(self.codes)) // 2))
        rest = torch.arange(int(rushed[-1]) + 1 if len(rushed) else place + 1, len(self.codes))
        frames = min(frames, len(rushed) // 2, int(SLOWING * len(rest)))
        left_out = self._repeated_first(rushed, generator)[:frames]
        soon = rest[: ceil(frames / SLOWING)]
        said_twice = self._repeated_first(soon, generator)[:frames]
        times = torch.ones(len(self.codes), dtype=torch.int64)
        times[left_out], times[said_twice] = 0, 2
        moments = torch.arange(len(self.codes)).repeat_interleave(times)
        said_again = F.pad(moments[1:] == moments[:-1], (0, 1))
        due = torch.cat((torch.tensor([0]), moments + 1 - said_again.long()))
        return replace(self, moments=moments, due=due)

    def _repeated_first(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Return the frames by chance, but first those whose code is that of the frame before."""
        repeated = self.codes[frames] == self.codes[frames - 1]
        return frames[(torch.rand(len(frames), generator=generator) - repeated.float()).argsort()]

    def after(self, prompt: Lesson, separator: int) -> Lesson:
        """Return this lesson with one of the same voice as its prompt; both texts begin and end with a space."""
        codes = torch.cat((prompt.codes, torch.tensor([separator]), self.codes))
        return Lesson(
            text_ids=prompt.text_ids + self.text_ids[1:],
            phoneme_ids=prompt.phoneme_ids + self.phoneme_ids,
            codes=codes,
            voice=self.voice,
            prompt_tokens=len(prompt.text_ids),
            prompt_inputs=len(prompt.codes) + 1,
            untold_inputs=prompt.untold_inputs or min(UNTOLD_FRAMES, len(prompt.codes)),
        )

    def with_strange_codes(self, codes: Tensor) -> Lesson:
        """Return this lesson's text with codes that don't say it and aren't to be learned."""
        return replace(self, codes=codes, untold_inputs=len(codes))


class Batch(NamedTuple):
    """Lessons of about one length, padded on the right."""

    text_ids: Tensor  # [B, T]
    text_lengths: Tensor  # [B]
    inputs: Tensor  # [B, S] the start code, then the codes
    targets: Tensor  # [B, S] the codes, then the end code; IGNORED beyond, at the separator and as a prompt begins
    lengths: Tensor  # [B] decoder inputs of each row until its end is due
    prompts: Tensor  # [B] of them the prompt's, the separator included
    voices: Tensor  # [B]
    places: Tensor  # [B, S] the text token at which a decoder input belongs if the pace were even
    phonemes: Tensor  # all rows' phonemes, one after the other
    phoneme_counts: Tensor  # [B]
    phoneme_slots: Tensor  # [B] how many the head could read

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device, but for `ON_THE_CPU`."""
        columns = self._asdict().items()
        return Batch(**{name: column if name in ON_THE_CPU else column.to(device) for name, column in columns})


ON_THE_CPU = ("phoneme_counts", "phoneme_slots")  # of a batch: CTC's lengths; from a GPU it would fetch them


class VoicedRows(nn.Module):
    """A table of codes whose rows are the sum of what is said and of who says it; the special ids have their own."""

    def __init__(self, voices: int, codes: int) -> None:
        super().__init__()
        self._voices, self._codes = voices, codes

    def forward(self, parts: Tensor) -> Tensor:
        """Return [V * K + specials, …] of [K + V + specials, …]."""
        said, voices = parts[: self._codes], parts[self._codes : self._codes + self._voices]
        rows = (voices[:, None] + said).flatten(0, 1)
        return torch.cat((rows, parts[self._codes + self._voices :]))

    def right_inverse(self, rows: Tensor) -> Tensor:
        """Return parts whose rows are the first voice's in every voice: where training starts."""
        said, specials = rows[: self._codes], rows[self._voices * self._codes :]
        return torch.cat((said, torch.zeros_like(said[: self._voices]), specials))


class Speaker(nn.Module):
    """The network and, while it learns, the head that reads phonemes out of the encoder.

    Its codes are those of `VoicedRows`, so that what is learned of one voice is known of the others.
    """

    def __init__(self, network: Network, phonemes: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        rows = VoicedRows(len(VOICES), network.config.audio_vocab_size // len(VOICES))
        last = network.head[-1]
        for module, name in ((network.decoder.embedding, "weight"), (last, "weight"), (last, "bias")):
            register_parametrization(module, name, rows, unsafe=True)  # the shape of what is learned is another
        self.phonemes = tuple(phonemes)
        size = network.config.encoder.hidden_size
        self.reading_head = nn.Linear(size, PHONEME_SLOTS * (len(self.phonemes) + 1))  # 0 is CTC's blank

    def plain_network(self) -> Network:
        """Return a network of its own with the present weights, as the product knows it."""
        plain = Network(self.network.config)
        weights = {name: attrgetter(name)(self.network) for name in plain.state_dict()}
        plain.load_state_dict(weights)
        return plain

    def forward(self, batch: Batch, total_frames: Tensor, guidance: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """Return logits of the next codes [B, S, V * K + specials] and log-probabilities of phonemes [B, 3T, P + 1].

        `total_frames` [B] is the length that each row believes it has: the denominator of its progress, plus one.
        `guidance` 1 leads cross-attention to the places in the text where the frames belong, 0 leaves it alone.
        """
        network, config = self.network, self.network.config
        memory = network.encoder(batch.text_ids, batch.text_lengths)  # [B, T, H]
        text = network.decoder.memorise(memory, batch.text_lengths)
        place = torch.arange(batch.inputs.shape[1], device=memory.device)
        token = torch.arange(batch.text_ids.shape[1], device=memory.device)
        causal = additive(place[:, None] >= place, memory.dtype)[None, None]
        visible_text = additive((token < batch.text_lengths[:, None])[:, None, None], memory.dtype)
        distance = (batch.places[..., None] - token) / GUIDED_TOKENS  # [B, S, T]
        visible_text = visible_text - (guidance / 2) * distance.square()[:, None]
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
            each.voice,
        )
        for each in corpus
    ]


def phonemes_of(corpus: Sequence[Utterance]) -> list[str]:
    """Return every sound of the corpus, in the order of the alphabet."""
    return sorted(set().union(*(each.phonemes for each in corpus)))


def batches(
    lessons: Sequence[Lesson],
    config: ModelConfig,
    generator: torch.Generator,
    frames: int = FRAMES_PER_BATCH,
    off_pace: OffPace = USUALLY_OFF_PACE,
) -> Iterator[Batch]:
    """Yield batches for ever: shuffled, sorted by length within pools, the batches of a pool shuffled again.

    None has more than so many frames, unless a single lesson has.
    """
    speech = _prompts_of_voices(lessons)
    while True:
        order = torch.randperm(len(lessons), generator=generator).tolist()
        pool: list[Lesson] = []
        frames_in_pool = 0
        for number in order:
            prompted = _perhaps_prompted(lessons[number], speech, config, generator)
            pool.append(_perhaps_off_pace(prompted, off_pace, generator))
            frames_in_pool += pool[-1].inputs
            if frames_in_pool >= BATCHES_PER_POOL * frames:
                yield from _pool_batches(pool, config, generator, frames)
                pool, frames_in_pool = [], 0
        yield from _pool_batches(pool, config, generator, frames)


def _prompts_of_voices(lessons: Sequence[Lesson]) -> list[list[Lesson]]:
    """Return the lessons of each voice that are as long as prompts."""
    return [
        [lesson for lesson in lessons if lesson.voice == voice and len(lesson.codes) in PROMPT_FRAMES]
        for voice in range(len(VOICES))
    ]


def _perhaps_prompted(
    lesson: Lesson, prompts: Sequence[Sequence[Lesson]], config: ModelConfig, generator: torch.Generator
) -> Lesson:
    if not _falls(PROMPTED[lesson.voice], generator):
        return lesson
    prompt = _one_of(prompts[lesson.voice], generator)
    if _falls(STRANGE_PROMPTS, generator):
        of_other_words = _one_of(prompts[lesson.voice], generator).codes
        prompt = prompt.with_strange_codes(
            _tone(lesson.voice, config, generator) if _falls(TONES, generator) else of_other_words
        )
    return lesson.after(prompt, config.prompt_separator_code)


def _tone(voice: int, config: ModelConfig, generator: torch.Generator) -> Tensor:
    """Return codes [frames] of a voice as of a sound that is no speech: a few, each for any time."""
    frames = _between(PROMPT_FRAMES.start, PROMPT_FRAMES.stop - 1, generator)
    codes = config.audio_vocab_size // len(VOICES)
    some = torch.randint(codes, (_between(1, TONE_CODES, generator),), generator=generator) + codes * voice
    changing = torch.rand(frames, generator=generator) < torch.rand((), generator=generator)
    drawn = some[torch.randint(len(some), (frames,), generator=generator)]
    since = torch.where(changing, torch.arange(frames), 0).cummax(0).values  # the frame of each one's last change
    return drawn[since]


def _perhaps_off_pace(lesson: Lesson, off_pace: OffPace, generator: torch.Generator) -> Lesson:
    last = len(lesson.codes) - 1
    if not _falls(off_pace.delayed, generator):
        if not (off_pace.ahead and _falls(off_pace.ahead, generator)):  # 0 draws nothing: lessons stay what they were
            return lesson
        place, frames = _between(lesson.prompt_inputs, last, generator), _between(1, FRAMES_AHEAD, generator)
        return lesson.ahead(place, frames, generator)
    if _falls(off_pace.late_ends, generator):
        late_frames = _between(1, DELAY_FRAMES_AT_THE_END, generator)
        return lesson.delayed(last, late_frames, generator, hurry=off_pace.hurry)
    place, frames = _between(lesson.prompt_inputs, last - 1, generator), _between(1, DELAY_FRAMES_BEFORE, generator)
    return lesson.delayed(place, frames, generator, hurry=off_pace.hurry, spread=_falls(SPREAD_DELAYS, generator))


def _falls(share: float, generator: torch.Generator) -> bool:
    return torch.rand((), generator=generator).item() < share


def _one_of(lessons: Sequence[Lesson], generator: torch.Generator) -> Lesson:
    return lessons[_between(0, len(lessons) - 1, generator)]


def _between(first: int, last: int, generator: torch.Generator) -> int:
    return int(torch.randint(first, last + 1, (), generator=generator))


def _pool_batches(pool: list[Lesson], config: ModelConfig, generator: torch.Generator, frames: int) -> Iterator[Batch]:
    groups: list[list[Lesson]] = [[]]
    for lesson in sorted(pool, key=lambda each: each.inputs):
        if groups[-1] and (len(groups[-1]) + 1) * lesson.inputs > frames:
            groups.append([])
        groups[-1].append(lesson)
    for number in torch.randperm(len(groups), generator=generator).tolist():
        if groups[number]:
            yield collate(groups[number], config)


def collate(lessons: Sequence[Lesson], config: ModelConfig) -> Batch:
    """Return the lessons as one padded batch."""
    lengths = torch.tensor([lesson.due_inputs for lesson in lessons])
    text_lengths = torch.tensor([len(lesson.text_ids) for lesson in lessons])
    shape = (len(lessons), max(lesson.inputs for lesson in lessons))
    inputs = torch.full(shape, config.start_code)
    targets = torch.full(shape, IGNORED)
    text_ids = torch.zeros(len(lessons), int(text_lengths.max()), dtype=torch.int64)
    places = torch.zeros(shape)
    for row, lesson in enumerate(lessons):
        moments = torch.arange(len(lesson.codes)) if lesson.moments is None else lesson.moments
        inputs[row, 1 : lesson.inputs] = lesson.codes[moments]
        due = _next_of(moments, len(lesson.codes)) if lesson.due is None else lesson.due
        targets[row, : lesson.inputs] = torch.cat((lesson.codes, torch.tensor([config.end_code])))[due]
        if lesson.prompt_inputs:
            targets[row, : lesson.untold_inputs] = IGNORED
            targets[row, lesson.prompt_inputs - 1] = IGNORED
        places[row, : lesson.inputs] = _even_places(lesson)[torch.cat((torch.tensor([0]), moments + 1))]
        text_ids[row, : len(lesson.text_ids)] = torch.tensor(lesson.text_ids)
    phonemes = torch.tensor([phoneme for lesson in lessons for phoneme in lesson.phoneme_ids])
    counts = torch.tensor([len(lesson.phoneme_ids) for lesson in lessons])
    prompts = torch.tensor([lesson.prompt_inputs for lesson in lessons])
    voices = torch.tensor([lesson.voice for lesson in lessons])
    slots = text_lengths * PHONEME_SLOTS
    return Batch(text_ids, text_lengths, inputs, targets, lengths, prompts, voices, places, phonemes, counts, slots)


def _next_of(moments: Tensor, end: int) -> Tensor:
    """Return the first moment and, after each, the next other one, or `end`: while a code is held, what comes then."""
    following = torch.searchsorted(moments, moments, right=True)
    return torch.cat((moments, torch.tensor([end])))[torch.cat((torch.tensor([0]), following))]


def _even_places(lesson: Lesson) -> Tensor:
    """Return the text tokens at which the start and the frames belong, prompt and utterance each at an even pace."""
    prompt = torch.linspace(0, lesson.prompt_tokens, lesson.prompt_inputs + 1)[:-1]
    utterance = torch.linspace(lesson.prompt_tokens, len(lesson.text_ids) - 1, lesson.due_inputs - lesson.prompt_inputs)
    return torch.cat((prompt, utterance))


def disturbed(batch: Batch, config: ModelConfig, generator: torch.Generator) -> tuple[Batch, Tensor]:
    """Return the batch with some inputs replaced by wrong codes, and jittered total lengths [B].

    The wrong codes are of the right voice, but in prompts some codes are right in the wrong voice.
    """
    rows, width = batch.inputs.shape
    codes = config.audio_vocab_size // len(VOICES)
    share = torch.rand(rows, 1, generator=generator) * 2 * CORRUPTED_CODES  # some rows hardly, some often
    wrong = torch.rand(rows, width, generator=generator) < share
    special = batch.inputs >= config.audio_vocab_size
    # Half of the wrong codes are the ones before: the commonest mistake is to be a frame late.
    late = torch.rand(rows, width, generator=generator) < 0.5
    random_codes = torch.randint(codes, (rows, width), generator=generator) + codes * batch.voices[:, None]
    before = batch.inputs.roll(1, 1)
    replaced = torch.where(late & (before < config.audio_vocab_size), before, random_codes)
    inputs = torch.where(wrong & ~special, replaced, batch.inputs)
    swapped = torch.rand(rows, width, generator=generator) < SWAPPED_PROMPT_CODES
    swapped &= (torch.arange(width) < batch.prompts[:, None]) & ~special
    inputs = torch.where(swapped, (inputs + codes) % config.audio_vocab_size, inputs)
    jitter = 1 + (torch.rand(rows, generator=generator) * 2 - 1) * TARGET_JITTER
    totals = batch.prompts + ((batch.lengths - batch.prompts) * jitter).round().clamp(min=2)
    return batch._replace(inputs=inputs), totals


def losses(
    speaker: Callable[..., tuple[Tensor, Tensor]], batch: Batch, total_frames: Tensor, guidance: Tensor | float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss of the codes, the loss of the phonemes and the share of codes that were the likeliest ones.

    `speaker` is a `Speaker`, compiled or not.
    """
    with fast_arithmetic(batch.inputs.device):
        logits, read = speaker(batch, total_frames, guidance)
    logits, targets = logits.float().flatten(0, 1), batch.targets.flatten()
    reading = F.ctc_loss(
        read.transpose(0, 1), batch.phonemes, batch.phoneme_slots, batch.phoneme_counts, zero_infinity=True
    )
    # What is ignored is no code, and so never the likeliest one. Picking it out first would make a GPU wait.
    accuracy = (logits.argmax(-1) == targets).sum() / (targets != IGNORED).sum()
    return F.cross_entropy(logits, targets, ignore_index=IGNORED), reading, accuracy


@contextmanager
def fast_arithmetic(device: torch.device) -> Iterator[None]:
    """bfloat16 products, which take half the time of float32 ones on a CPU that has them and on a GPU.

    On a CPU attention is two of these products and a softmax in float32: PyTorch's fused kernel takes
    longer there, and longer still in bfloat16. On a GPU cuDNN's may be PyTorch's choice, but it is prepared anew for
    every shape, and hardly two batches have the same.
    """
    special: AbstractContextManager[object] = (
        patch.object(network, "attend", _attend_in_products)
        if device.type == "cpu"
        else sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
    )
    with torch.autocast(device.type, torch.bfloat16), special:
        yield


def _attend_in_products(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, softcap: float | None
) -> Tensor:
    assert softcap is None, "the embedded voices have none"
    rows, heads, length, _ = queries.shape
    kv_heads = keys.shape[1]
    sharing = queries.reshape(rows, kv_heads, heads // kv_heads * length, -1)  # those of one key/value head together
    scores = (sharing @ (keys * scale).transpose(-1, -2)).unflatten(2, (-1, length))  # [B, K, N / K, S, F]
    scores = scores if mask is None else scores + mask[:, None]
    weights = scores.softmax(-1, dtype=torch.float32)
    out = (weights.flatten(2, 3) @ values).view(rows, heads, length, -1)
    return out.transpose(1, 2).reshape(rows, length, -1)
