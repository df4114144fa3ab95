"""Puts the parts together: segments in, speech out. One thread decodes, another turns codes into sound."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import torch

from voice_core.codec.codec import Codec
from voice_core.codec.encoder import code_fingerprint
from voice_core.codec.worker import CodecWorker, Sounds
from voice_core.decoding.decoder import BatchDecoder
from voice_core.decoding.engine import DEFAULT_LARGEST_SHARE, Engine, EngineCounters, RowHandle
from voice_core.decoding.graphs import CudaRecorder
from voice_core.decoding.rows import Row, SpokenRow, prompt_row_codes, row_target_frames
from voice_core.decoding.slot_plan import (
    LONGEST_REFERENCE_SECONDS,
    LONGEST_TEXT_TOKENS,
    MOST_ROWS,
    SlotPlan,
    free_device_bytes,
    plan_slots,
)
from voice_core.embedded import DIRECTORY as EMBEDDED_DIRECTORY
from voice_core.errors import (
    CheckpointError,
    RequestError,
    SettingError,
    SynthesisError,
    as_synthesis_error,
)
from voice_core.fingerprint import model_fingerprint
from voice_core.hub import CONFIG_FILE, HUB_ID, MODEL_FILES, TOKENIZER_FILES, checkpoint_directory
from voice_core.judging import repeated_share
from voice_core.model.checkpoint import load_network
from voice_core.model.config import ModelConfig, read_config
from voice_core.model.network import Network
from voice_core.model.packing import pack_linears
from voice_core.model.tokenizer import TextTokenizer, load_tokenizer, tokenizer_directory
from voice_core.speech import BuiltInVoice, ModelFacts, Segment, Speech, VoicePrompt
from voice_core.voices.built_in import read_built_in_voices

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"  # the model's name for the voice in the package

PHASES = ("queue", "prefill", "decode", "codec")  # of a segment: it waits, is read, is spoken, becomes sound

WARM_UP_FRAMES = 15  # a little more than the model's shortest speech
WARM_UP_PROMPT_FRAMES = 8

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class SpeechTicket:
    """A segment on its way: the speech of all its seeds, and the way to call it off."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.future: Future[list[Speech]] = Future()
        self.future.set_running_or_notify_cancel()
        self.handles: list[RowHandle] = []  # one a seed, once its rows are known
        self.cancelled = False
        self.text_tokens = 0  # that the encoder reads for each row
        self.submitted_at = time.time()
        self.decoded_at: float | None = None
        self.sounded_at: float | None = None

    @property
    def phases(self) -> dict[str, tuple[float, float]]:
        """Return when each phase that is over began and ended, on time.time's clock."""
        chosen = [handle.chosen_at for handle in self.handles if handle.chosen_at is not None]
        admitted = [handle.admitted_at for handle in self.handles if handle.admitted_at is not None]
        edges = [self.submitted_at, min(chosen, default=None), min(admitted, default=None)]
        edges += [self.decoded_at, self.sounded_at]
        return {
            name: (start, end)
            for name, start, end in zip(PHASES, edges, edges[1:], strict=False)
            if start is not None and end is not None
        }

    def cancel(self) -> None:
        """Free the decoder of the segment's rows; the future then raises SynthesisError."""
        self.cancelled = True
        for handle in self.handles:
            handle.cancel()


class Synthesizer:
    """A loaded model that speaks segments; thread-safe."""

    def __init__(
        self,
        model_id: str,
        decoder: BatchDecoder,
        slot_plan: SlotPlan,
        engine: Engine,
        tokenizer: TextTokenizer,
        codec: Codec,
        code_fingerprint: str,
        model_fingerprint: str,
        built_in_voices: tuple[BuiltInVoice, ...],
        started_at: float,
    ) -> None:
        """Take the parts over and warm them up.

        `slot_plan` is what the decoder's slots were made by, `code_fingerprint` that of the codes that voice prompts
        must be made of, `model_fingerprint` that of all that decides how a segment sounds; `started_at` is when loading
        began, on time.perf_counter's clock.
        """
        self._config = decoder.config
        self._slot_plan = slot_plan
        self._tokenizer = tokenizer
        self._codec = CodecWorker(codec)
        self._engine = engine
        try:
            self._warm_up()
        except BaseException:  # or the threads would keep the model and its slots
            self.close()
            raise
        self.facts = ModelFacts(
            model_id=model_id,
            sample_rate=codec.sample_rate,
            frames_per_second=self._config.frames_per_second,
            longest_seconds=slot_plan.segment_seconds,
            checkpoint_longest_seconds=self._config.longest_seconds,
            device=str(decoder.network.device),
            max_rows=decoder.slots.slots,
            code_fingerprint=code_fingerprint,
            model_fingerprint=model_fingerprint,
            load_seconds=time.perf_counter() - started_at,
            text_normaliser=self._config.text_normaliser,
            alphabet=tokenizer.alphabet,
            built_in_voices=built_in_voices,
        )

    @classmethod
    def load(
        cls,
        model: str,
        *,
        device: str = "auto",
        precision: str = "auto",
        max_rows: int | None = None,
        longest_segment_seconds: float | None = None,
        longest_reference_seconds: float = LONGEST_REFERENCE_SECONDS,
        codec: str | None = None,
        in_flight: bool = True,
        largest_share: float = DEFAULT_LARGEST_SHARE,
        deterministic: bool = False,
        cuda_graphs: bool = True,
    ) -> Synthesizer:
        """Load a checkpoint (a directory, a hub id or "embedded") with its codec, or with `codec`, named likewise.

        Without `max_rows` there are as many slots as fit into the device's free memory, up to MOST_ROWS; each has room
        for a segment and a voice prompt of the longest seconds. See plan_slots for what gives way where memory is
        short, Engine for `in_flight` and `largest_share`, BatchDecoder for `deterministic`. On a GPU decode steps are
        captured as CUDA graphs, if `cuda_graphs` allows it. Raises CheckpointError, and SettingError for a device, a
        precision, a number of rows or a length that can't be had.
        """
        started_at = time.perf_counter()
        place = chosen_device(device)
        # What is small, or may be refused, is fetched before weights that take minutes.
        small = model_directory(model, (CONFIG_FILE, *TOKENIZER_FILES))
        config = read_config(small)
        tokenizer = load_tokenizer(small, config)
        codec_place = codec_directory(model, codec)
        directory = model_directory(model)
        network = load_network(directory, config, device=place, dtype=_chosen_dtype(precision, place, config))
        pack_linears(network)
        sound = Codec.load(codec_place, place)
        sound.trace()
        sound.batched &= not deterministic  # what it decodes together it rounds by what else is there
        _check_codec(sound, config, directory, codec)
        voices = read_built_in_voices(directory, config.audio_vocab_size)
        slot_plan = plan_slots(
            config,
            network.dtype,
            place,
            free_device_bytes(place),
            max_rows=max_rows,
            longest_segment_seconds=longest_segment_seconds,
            # What comes with the checkpoint can always be spoken.
            longest_reference_seconds=max([longest_reference_seconds, *_prompts_seconds(voices, config)]),
        )
        # Whatever may fail is done before there are slots and a thread.
        fingerprints = (
            code_fingerprint(codec_place),
            _model_fingerprint(directory, codec_place, config, network, deterministic=deterministic),
        )
        decoder = BatchDecoder(
            network,
            max_rows=slot_plan.rows,
            max_frames=slot_plan.frames(config),
            max_tokens=LONGEST_TEXT_TOKENS,
            deterministic=deterministic,
            # No other thread of ours uses the device yet.
            recorder=CudaRecorder(place) if cuda_graphs and place.type == "cuda" else None,
        )
        return cls(
            model,
            decoder,
            slot_plan,
            Engine(decoder, in_flight=in_flight, largest_share=largest_share),
            tokenizer,
            sound,
            *fingerprints,
            voices,
            started_at,
        )

    @property
    def counters(self) -> EngineCounters:
        return self._engine.counters

    @property
    def alive(self) -> bool:
        return self._engine.alive and self._codec.alive

    @property
    def failure(self) -> str | None:
        """Why nothing can be spoken any more; None while it can, and when it was closed."""
        return self._engine.failure or self._codec.failure

    def submit(self, segments: Sequence[Segment]) -> list[SpeechTicket]:
        """Take segments in together and return at once; a segment that can't be spoken fails alone, by its future."""
        tickets = [SpeechTicket(segment) for segment in segments]
        for ticket in tickets:
            try:
                rows = self._rows(ticket.segment)
                ticket.text_tokens = len(rows[0].text_ids)
                ticket.handles = [RowHandle(row, ticket.segment.request, batch=ticket.segment.batch) for row in rows]
            except (RequestError, SynthesisError) as error:
                ticket.future.set_exception(error)
            except Exception as error:  # a bug, but this segment's alone
                logger.exception("A segment could not be prepared")
                ticket.future.set_exception(SynthesisError(f"could not be prepared ({type(error).__name__})"))
            _when_all_done(ticket.handles, partial(self._sound_out, ticket))
        self._engine.enqueue([handle for ticket in tickets for handle in ticket.handles])
        return tickets

    def speak(self, segments: Sequence[Segment]) -> list[list[Speech]]:
        """Speak segments and wait for them; raises the first error."""
        return [ticket.future.result() for ticket in self.submit(segments)]

    def close(self) -> None:
        """Stop both threads; what is still being spoken fails with SynthesisError."""
        self._engine.close()
        self._codec.close()

    def _warm_up(self) -> None:
        """Speak two short rows, one in a voice, so that nobody's first request pays for what is set up on first use."""
        prompt = prompt_row_codes((0,) * WARM_UP_PROMPT_FRAMES, self._config)
        handles = self._engine.submit(
            [
                Row(text_ids=(1, 2, 3), target_frames=WARM_UP_FRAMES),
                Row(text_ids=(1, 2, 3), target_frames=len(prompt) + WARM_UP_FRAMES, prompt_codes=prompt),
            ]
        )
        self._codec.submit([handle.future.result().codes or [0] for handle in handles]).result()

    def _rows(self, segment: Segment) -> list[Row]:
        """Return one row for every seed of the segment."""
        prompt, transcript = segment.prompt, ""
        codes: tuple[int, ...] = ()
        if prompt is not None:
            self._check_prompt(prompt)
            codes, transcript = prompt_row_codes(prompt.codes, self._config), prompt.transcript
        if not self._tokenizer.encode(segment.text.strip()):
            raise RequestError("input", f"{segment.text[:40]!r} holds nothing that this voice can read")
        text_ids = self._tokenizer.row_ids(segment.text, transcript)
        target = row_target_frames(len(codes), segment.seconds, self._config)
        return [Row(text_ids, target, codes, seed, segment.index, segment.sampling) for seed in segment.seeds]

    def _check_prompt(self, prompt: VoicePrompt) -> None:
        told = prompt.code_fingerprint
        if told and told != self.facts.code_fingerprint:  # while one model takes over from another
            raise SynthesisError("the voice is in the codes of another model's codec", may_succeed_later=True)
        if len(prompt.codes) > self._slot_plan.prompt_frames(self._config):
            seconds = len(prompt.codes) / self._config.frames_per_second
            reason = f"the recording takes {seconds:.1f} s, at most {self._slot_plan.prompt_seconds:g} s fit"
            raise RequestError("voice", reason)

    def _sound_out(self, ticket: SpeechTicket) -> None:
        """Send a segment's finished rows to the codec; one row that failed fails the segment."""
        with _failing(ticket):
            errors = [error for handle in ticket.handles if (error := handle.future.exception()) is not None]
            if errors or ticket.cancelled:
                ticket.future.set_exception(errors[0] if errors else SynthesisError("the segment was called off"))
                return
            ticket.decoded_at = time.time()
            rows = [handle.future.result() for handle in ticket.handles]
            sounds = self._codec.submit([row.codes for row in rows])
            sounds.add_done_callback(partial(self._deliver, ticket, rows))

    def _deliver(self, ticket: SpeechTicket, rows: Sequence[SpokenRow], sounds: Future[Sounds]) -> None:
        with _failing(ticket):
            if (error := sounds.exception()) is not None:
                ticket.future.set_exception(error)
                return
            segment = ticket.segment
            speeches = [
                Speech(
                    samples=samples,
                    sample_rate=self.facts.sample_rate,
                    seed=seed,
                    finish_reason=row.finish_reason,
                    asked_seconds=segment.seconds,
                    dropped_codes=row.dropped_codes,
                    repeated_share=repeated_share(row.codes),
                    text_tokens=ticket.text_tokens,
                    frames=len(row.codes),
                    model_fingerprint=self.facts.model_fingerprint,
                )
                for samples, seed, row in zip(sounds.result(), segment.seeds, rows, strict=True)
            ]
            ticket.sounded_at = time.time()
            ticket.future.set_result(speeches)


@contextmanager
def _failing(ticket: SpeechTicket) -> Iterator[None]:
    """Fail the segment with what is raised here; of a future's callback nobody would hear it."""
    try:
        yield
    except Exception as error:  # a bug, but this segment's alone
        logger.exception("A segment that was spoken could not be delivered")
        ticket.future.set_exception(as_synthesis_error(error, "the synthesizer"))


def _when_all_done(handles: Sequence[RowHandle], act: Callable[[], None]) -> None:
    """Call `act` once, in the thread where the last of the rows is done; one that fails ends the others."""
    missing = count(len(handles) - 1, -1)  # next() on it is atomic
    # A future keeps its callbacks: what these hold would hold itself by them, with its sound, until Python looks for
    # such circles.
    acts, rows = [act], [*handles]

    def one_done(row: Future[SpokenRow]) -> None:
        if row.exception() is not None:
            for handle in rows:
                handle.cancel()
        if next(missing) == 0:
            rows.clear()
            acts.pop()()

    for handle in handles:
        handle.future.add_done_callback(one_done)


def model_directory(model: str, files: Sequence[str] = MODEL_FILES) -> Path:
    """Return where the checkpoint lies that a setting names; of one of the hub, at least these files."""
    return EMBEDDED_DIRECTORY if model == EMBEDDED else checkpoint_directory(model, files=files)


def codec_directory(model: str, codec: str | None = None) -> Path:
    """Return where the codec lies: the one that is named here, else the one that the model's checkpoint names.

    Fetches the checkpoint's weights only where the codec lies among them.
    """
    if codec is not None:
        return checkpoint_directory(codec)
    directory = model_directory(model, (CONFIG_FILE,))
    named = read_config(directory).codec_name
    if not HUB_ID.fullmatch(named):
        directory = model_directory(model)
    return checkpoint_directory(named, relative_to=directory)


def chosen_device(device: str) -> torch.device:
    """Return the device that a setting asks for; auto takes a GPU if there is one. SettingError if it can't be had."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise SettingError(f"device: {device!r} is none of auto, cuda and cpu") from None
    if place.type == "mps":
        # Draws are made in float64, so that they are the same everywhere; Metal has none.
        raise SettingError("device: 'mps' is not supported yet, it can't compute in float64; 'cpu' works on a Mac")
    if place.type not in MOST_ROWS:
        raise SettingError(f"device: {device!r} is none of auto, cuda and cpu")
    if place.type == "cuda" and not torch.cuda.is_available():
        raise SettingError(f"device: {device!r} is asked for, but there is no GPU here; 'auto' and 'cpu' do without")
    return place


def _prompts_seconds(voices: Sequence[BuiltInVoice], config: ModelConfig) -> list[float]:
    return [len(voice.prompt.codes) / config.frames_per_second for voice in voices]


def _chosen_dtype(precision: str, device: torch.device, config: ModelConfig) -> torch.dtype:
    if precision == "auto":
        # bf16 weights stay bf16 on a GPU; a CPU computes float32 many times faster than bf16.
        half = device.type == "cuda" and config.weights_dtype == "bfloat16"
        return torch.bfloat16 if half else torch.float32
    if precision not in DTYPES:
        raise SettingError(f"precision: {precision!r} is not one of auto, {', '.join(DTYPES)}")
    return DTYPES[precision]


def _model_fingerprint(
    directory: Path, codec: Path, config: ModelConfig, network: Network, *, deterministic: bool
) -> str:
    """Rounding counts too: on another device, in another precision, or in steps of another size it is another."""
    settings = (network.device.type, str(network.dtype), f"deterministic {deterministic}", f"torch {torch.__version__}")
    return model_fingerprint(directory, codec, tokenizer_directory(directory, config), *settings)


def _check_codec(codec: Codec, config: ModelConfig, directory: Path, named: str | None) -> None:
    """Refuse a codec that isn't the model's; `named` is the one that the settings name, if they do."""
    its = f"the codec {named or config.codec_name!r}"
    if codec.codebook_size < config.audio_vocab_size:
        key = "xcodec2_model_name"
        reason = f"{its} knows {codec.codebook_size} codes, the model speaks {config.audio_vocab_size}"
    elif codec.frames_per_second != config.frames_per_second:
        key = "encodec_sr"
        reason = f"{its} has {codec.frames_per_second} frames a second, the model {config.frames_per_second:g}"
    else:
        return
    if named is not None:
        raise SettingError(f"codec: {reason}")
    raise CheckpointError(str(directory / CONFIG_FILE), key, reason)
