"""One answer at a time by transformers' own `generate`, for models that cannot be batched."""

from __future__ import annotations

from typing import Any

from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from swift_jupyter.engine.inference.batching.request import FinishReason, Request, TokenEvent
from swift_jupyter.engine.inference.batching.sampling import RowSampler, choose, log_probabilities


class _Choice(LogitsProcessor):
    """Chooses the token itself, and leaves `generate` no other."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._sampler = RowSampler(request.sampling, request.prompt)
        self.count = 0
        self.reason: FinishReason = ""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        token = choose(scores, [self._sampler])[0]
        logprobs = log_probabilities(scores, [token], [self._sampler])[0]
        self.count += 1
        if token in self._request.eos:
            self.reason = "stop"
        elif self.count >= self._request.max_new_tokens:
            self.reason = "length"
        self._request.sink(TokenEvent(token, logprobs, self.reason))
        forced = torch.full_like(scores, float("-inf"))
        forced[:, token] = 0.0
        return forced


class _Ended(StoppingCriteria):
    def __init__(self, request: Request, choice: _Choice) -> None:
        self._request = request
        self._choice = choice

    def __call__(self, input_ids: Any, scores: Any, **_others: Any) -> Any:
        import torch

        over = self._request.cancelled or bool(self._choice.reason)
        return torch.full((input_ids.shape[0],), over, device=input_ids.device)


def answer_alone(stack: Any, request: Request) -> int:
    """Answer one request from beginning to end; returns the number of new tokens.

    Parameters
    ----------
    stack : AdapterStack
        The model.
    request : Request
        Its sink is told every token and the end.
    """
    import torch

    choice = _Choice(request)
    tokens = torch.tensor([list(request.prompt)], device=stack.model.device)
    with torch.inference_mode(), stack.only(request.adapter):
        stack.model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=request.max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,
            eos_token_id=None,
            pad_token_id=min(request.eos, default=0),
            logits_processor=LogitsProcessorList([choice]),
            stopping_criteria=StoppingCriteriaList([_Ended(request, choice)]),
        )
    if not choice.reason and request.cancelled:
        request.sink(TokenEvent(None, None, "cancelled"))
    return choice.count
