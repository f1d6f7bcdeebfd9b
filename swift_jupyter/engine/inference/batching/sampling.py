"""From logits to tokens, for many answers at once, each by its own rules and random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swift_jupyter.engine.inference.batching.request import Sampling, TokenLogprobs

# Enough candidates for nearly every top_p; only where they are too few is the row sorted whole.
_CANDIDATES = 256


class RowSampler:
    """What the choice of one answer's tokens depends on.

    Parameters
    ----------
    sampling : Sampling
        The rules.
    tokens : sequence of int
        The prompt, which the repetition penalty counts, too.
    """

    def __init__(self, sampling: Sampling, tokens: Sequence[int]) -> None:
        import torch

        self.sampling = sampling
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed % 2**63)
        self._seen = set(tokens) if sampling.repetition_penalty != 1 else None

    def draw(self) -> float:
        """Return the next random number of this answer, from [0, 1)."""
        import torch

        return float(torch.rand((), generator=self._random, dtype=torch.float64))

    def take(self, token: int) -> None:
        """Note the token that was chosen."""
        if self._seen is not None:
            self._seen.add(token)

    def penalise(self, logits: Any) -> None:
        """Make tokens that were there before less likely, in place; `logits` has shape [vocab]."""
        import torch

        if self._seen is None:
            return
        ids = torch.tensor(sorted(self._seen), device=logits.device)
        scores = logits[ids]
        factor = self.sampling.repetition_penalty
        logits[ids] = torch.where(scores < 0, scores * factor, scores / factor)


def choose(logits: Any, samplers: Sequence[RowSampler]) -> list[int]:
    """Choose the next token of every row.

    Parameters
    ----------
    logits : Tensor, shape [rows, vocab]
        As the model gives them; not changed.
    samplers : sequence of RowSampler
        One for each row; their random numbers move on.
    """
    import torch

    if any(sampler.sampling.repetition_penalty != 1 for sampler in samplers):
        logits = logits.clone()
        for row, sampler in zip(logits, samplers, strict=True):
            sampler.penalise(row)
    tokens: list[int] = logits.argmax(-1).tolist()
    chance = [n for n, sampler in enumerate(samplers) if not sampler.sampling.greedy]
    if chance:
        rules = [samplers[n].sampling for n in chance]
        draws = torch.tensor([samplers[n].draw() for n in chance], dtype=torch.float64)
        rows = logits[torch.tensor(chance, device=logits.device)].float()
        for n, token in zip(chance, _sample(rows, rules, draws.to(rows.device)), strict=True):
            tokens[n] = token
    for token, sampler in zip(tokens, samplers, strict=True):
        sampler.take(token)
    return tokens


def _sample(logits: Any, rules: Sequence[Sampling], draws: Any) -> list[int]:
    """Return a token for each row by inverting its cumulative distribution at `draws`."""
    import torch

    temperature = torch.tensor([rule.temperature for rule in rules], device=logits.device)
    logits = logits / temperature[:, None]
    free = [n for n, rule in enumerate(rules) if not rule.top_k and rule.top_p >= 1]
    cut = [n for n in range(len(rules)) if n not in set(free)]
    tokens = [0] * len(rules)
    if free:
        where = torch.tensor(free, device=logits.device)
        chosen = _invert(torch.softmax(logits[where], -1), draws[where])
        for n, token in zip(free, chosen.tolist(), strict=True):
            tokens[n] = token
    if cut:
        where = torch.tensor(cut, device=logits.device)
        chosen = _sample_cut(logits[where], [rules[n] for n in cut], draws[where])
        for n, token in zip(cut, chosen.tolist(), strict=True):
            tokens[n] = token
    return tokens


def _sample_cut(logits: Any, rules: Sequence[Sampling], draws: Any) -> Any:
    """Sample from the likeliest tokens only: first the `top_k`, of these a share of `top_p`."""
    import torch

    vocabulary = logits.shape[-1]
    top_k = [min(rule.top_k or vocabulary, vocabulary) for rule in rules]
    count = min(max([_CANDIDATES, *(k for k in top_k if k < vocabulary)]), vocabulary)
    best, ids = logits.topk(count, -1)
    limit = torch.tensor(top_k, device=logits.device)[:, None]
    top_p = torch.tensor([rule.top_p for rule in rules], device=logits.device)[:, None]
    place = torch.arange(count, device=logits.device)[None]
    best = best.masked_fill(place >= limit, float("-inf"))
    # Without top_k the shares are of the whole vocabulary.
    whole = torch.where(limit < vocabulary, best.logsumexp(-1, True), logits.logsumexp(-1, True))
    shares = (best - whole).exp()
    before = shares.cumsum(-1) - shares
    too_few = (limit == vocabulary) & (shares.sum(-1, keepdim=True) < top_p - 1e-6)
    if count < vocabulary and bool(too_few.any()):
        best, ids = logits.sort(-1, descending=True)
        place = torch.arange(vocabulary, device=logits.device)[None]
        shares = best.masked_fill(place >= limit, float("-inf")).softmax(-1)
        before = shares.cumsum(-1) - shares
    kept = shares.masked_fill((before >= top_p) & (before > 0), 0.0)
    return ids.gather(-1, _invert(kept / kept.sum(-1, keepdim=True), draws)[:, None])[:, 0]


def _invert(shares: Any, draws: Any) -> Any:
    """Return for each row the first place at which the cumulative share exceeds the draw."""
    import torch

    sums = shares.double().cumsum(-1)
    aim = draws[:, None] * sums[:, -1:]
    return torch.searchsorted(sums, aim, right=True)[:, 0].clamp(max=shares.shape[-1] - 1)


def log_probabilities(
    logits: Any, tokens: Sequence[int], samplers: Sequence[RowSampler]
) -> list[TokenLogprobs | None]:
    """Return the log-probabilities for the rows that want them, None for the others."""
    wanted = [n for n, sampler in enumerate(samplers) if sampler.sampling.logprobs is not None]
    found: list[TokenLogprobs | None] = [None] * len(samplers)
    if not wanted:
        return found
    logs = logits[wanted].float().log_softmax(-1)
    for row, n in zip(logs, wanted, strict=True):
        count = samplers[n].sampling.logprobs or 0
        top: tuple[tuple[int, float], ...] = ()
        if count:
            values, ids = row.topk(min(count, row.shape[-1]))
            top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
        found[n] = TokenLogprobs(float(row[tokens[n]]), top)
    return found
