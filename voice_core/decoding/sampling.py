"""From logits to codes: the reference's filters and one draw a row, each row with options of its own.

Letters: B rows, V ids of the speaker, C candidates (the C best ids of each row).

Only the candidates are ever sorted: a row with top_k 30 needs its 30 best of 65 541 logits, so sorting all of them
(a third of the reference's step) is left to rows that switch top_k off. The draw walks through the kept ids in the
order of their numbers with float64 sums, so the same logits give the same code however many candidates the neighbours
ask for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from voice_core.speech import Sampling

# Beyond the k-th best, for ids that tie with it: all of them stay. More ties than this and the full sort decides.
SPARE_CANDIDATES = 16


class Options(NamedTuple):
    """The sampling options of B rows as tensors, made once when a row is admitted."""

    temperature: Tensor  # [B] float32, 1 where the row is greedy
    top_k: Tensor  # [B] int64, V where it is off
    top_p: Tensor  # [B] float32, infinite where it is off
    min_p: Tensor  # [B] float64, 0 where it is off
    greedy: Tensor  # [B] bool

    @classmethod
    def of(cls, samplings: Sequence[Sampling], vocab_size: int, device: torch.device) -> Options:
        def column(values: list[float], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)

        return cls(
            column([1.0 if s.greedy else s.temperature for s in samplings], torch.float32),
            column([s.top_k if 0 < s.top_k < vocab_size else vocab_size for s in samplings], torch.int64),
            column([s.top_p if s.top_p < 1 else math.inf for s in samplings], torch.float32),
            column([s.min_p if 0 < s.min_p < 1 else 0.0 for s in samplings], torch.float64),
            column([s.greedy for s in samplings], torch.bool),
        )

    def rows(self, index: Tensor | slice) -> Options:
        return Options(*(column[index] for column in self))


class Demand(NamedTuple):
    """What the rows of a step ask of the sampler; known on the host, so that the device need not be asked."""

    candidates: int  # how many of each row's best ids can survive the filters; V where there is no bound
    min_p: bool  # some row filters by probability
    # Look if more ids tie than there are spare candidates: then the host waits for the answer. On a GPU nobody asks:
    # the wait would cost more than SPARE_CANDIDATES equal logits ever matter.
    search_ties: bool = True

    def holds(self, other: Demand) -> bool:
        """Tell if a draw for this demand gives the other's codes too."""
        return self.candidates >= other.candidates and self.min_p >= other.min_p

    @classmethod
    def of(cls, samplings: Sequence[Sampling], vocab_size: int, *, search_ties: bool = True) -> Demand:
        candidates = max((_candidates(sampling, vocab_size) for sampling in samplings), default=1)
        return cls(candidates, any(0 < sampling.min_p < 1 for sampling in samplings), search_ties)


def _candidates(sampling: Sampling, vocab_size: int) -> int:
    if sampling.greedy:
        return 1
    if not 0 < sampling.top_k < vocab_size:
        return vocab_size  # min_p may keep nothing, and then top_p alone decides
    bound = sampling.top_k
    if 0 < sampling.min_p < 1:
        likely = min(1 / sampling.min_p, vocab_size)  # probabilities sum to 1; the quotient may be infinite
        bound = max(bound, math.ceil(likely))
    return min(bound + SPARE_CANDIDATES, vocab_size)


class Candidates(NamedTuple):
    """The best ids of each row, most likely first (equal ones by their number)."""

    ids: Tensor  # [B, C] int64
    scaled: Tensor  # [B, C] float32 logits divided by the temperature
    kept: Tensor  # [B, C] which of them the filters leave


class Best(NamedTuple):
    """Candidates before the filters."""

    ids: Tensor  # [B, C]
    scaled: Tensor  # [B, C]
    places: Tensor  # [B, C] where each would stand, were they in the order of their numbers


def filtered(logits: Tensor, options: Options, demand: Demand) -> Candidates:
    """Return the best ids of logits [B, V] and which of them the filters keep.

    top_k keeps logits at least as large as the k-th (ties stay). top_p keeps the smallest sorted prefix whose mass
    exceeds p, the first always. min_p keeps probabilities of at least p (absolute, not relative to the best) and, where
    it keeps any, replaces the other two, row by row; the reference does so only when every row of its batch keeps one.
    """
    best = _best(logits, options, demand)
    return Candidates(best.ids, best.scaled, kept_of(best, logits, options, min_p=demand.min_p))


def kept_of(best: Best, logits: Tensor, options: Options, *, min_p: bool) -> Tensor:
    """Return which of the best ids of logits [B, V] the filters keep, [B, C]."""
    ids, scaled, _ = best
    kept = scaled >= _threshold(scaled, options)
    mass = (scaled - scaled[:, :1]).exp() * kept
    sums = (mass / mass.cumsum(1)[:, -1:]).cumsum(1)  # float32 as the reference's, so that borders fall alike
    kept[:, 1:].logical_and_(sums[:, :-1] <= options.top_p[:, None])
    if min_p:
        weights = (logits / options.temperature[:, None]).double().softmax(1).gather(1, ids)
        likely = weights >= options.min_p[:, None]
        replaces = (options.min_p > 0) & likely.any(1)
        kept = torch.where(replaces[:, None], likely, kept)
    return kept


class Drawn(NamedTuple):
    """One id a row."""

    ids: Tensor  # [B] what was drawn; for greedy rows the best
    best: Tensor  # [B] the likeliest, the lowest of equal ones
    broken: Tensor  # [B] bool, the logits are no numbers


def draw(logits: Tensor, options: Options, noise: Tensor, demand: Demand) -> Drawn:
    """Draw from float32 logits [B, V]; `noise` [B] in [0, 1) decides."""
    if demand.candidates == 1:
        best = logits.argmax(1)
        return Drawn(best, best, logits.gather(1, best[:, None])[:, 0].isnan())
    candidates = _best(logits, options, demand)
    return draw_from(candidates, kept_of(candidates, logits, options, min_p=demand.min_p), options, noise)


def draw_from(best: Best, kept: Tensor, options: Options, noise: Tensor) -> Drawn:
    """Draw from candidates of which the filters keep some, [B, C]."""
    ids, scaled, places = best
    likeliest, broken = ids[:, 0], scaled[:, 0].isnan()  # NaN counts as the largest
    mass = (scaled.double() - scaled[:, :1].double()).exp() * kept
    by_id, mass_by_id = torch.empty_like(ids).scatter_(1, places, ids), torch.empty_like(mass).scatter_(1, places, mass)
    sums = mass_by_id.cumsum(1)
    place = (sums <= noise[:, None] * sums[:, -1:]).sum(1, keepdim=True).clamp(max=ids.shape[1] - 1)
    return Drawn(torch.where(options.greedy, likeliest, by_id.gather(1, place)[:, 0]), likeliest, broken)


def _best(logits: Tensor, options: Options, demand: Demand) -> Best:
    vocab_size = logits.shape[1]
    if demand.candidates < vocab_size:
        best = few_best(logits, options, demand.candidates)
        if not (demand.search_ties and ties_beyond(best, options, vocab_size)):
            return best
    scaled, ids = (logits / options.temperature[:, None]).sort(dim=1, descending=True, stable=True)
    return Best(ids, scaled, ids)


def few_best(logits: Tensor, options: Options, candidates: int) -> Best:
    """Return the best ids of logits [B, V] without sorting all; which of those that tie at the end, is left open."""
    values, ids = logits.topk(candidates, dim=1, sorted=False)
    ids, order = ids.sort(1)
    scaled, places = (values.gather(1, order) / options.temperature[:, None]).sort(dim=1, descending=True, stable=True)
    return Best(ids.gather(1, places), scaled, places)


def ties_beyond(best: Best, options: Options, vocab_size: int) -> Tensor:
    """Tell if ids that tie with a row's k-th best may lie beyond the candidates, a tensor of one bool."""
    threshold = _threshold(best.scaled, options)
    return ((options.top_k < vocab_size) & (best.scaled[:, -1] >= threshold[:, 0])).any()


def _threshold(scaled: Tensor, options: Options) -> Tensor:
    """Return the k-th best of each row's sorted candidates [B, C], [B, 1]; the last, where top_k is off."""
    return scaled.gather(1, (options.top_k[:, None] - 1).clamp(max=scaled.shape[1] - 1))
