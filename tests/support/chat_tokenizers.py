"""Tiny tokenizers with the chat templates that models have in the wild, made in memory."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|head|>", "<|/head|>", "<|eot|>"]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    + CHATML
)
GENERATION = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>\n{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (
    "<s>{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)
# Thoughts stay in the last answer only, which always gets a thought, be it an empty one.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% set answer = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\n')"
    " if '</think>' in m.content else '' %}"
    "{% if loop.last %}<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ answer }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The prompt opens a thought that finished answers do not show.
OPENED_THOUGHT = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "<|head|>{{ m.content.split('</think>')[-1] }}<|eot|>"
    "{% else %}<|/head|>{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|head|><think>\n{% endif %}"
)
# The system text moves to the last question, and only the last answer gets an end.
LAST_QUESTION = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}<s>{% for m in messages %}"
    "{% if m.role == 'user' %}[Q] {% if loop.index0 == ns.last and messages[0].role == 'system' %}"
    "{{ messages[0].content }}\n{% endif %}{{ m.content }} [A]"
    "{% elif m.role == 'assistant' %} {{ m.content | trim }}{% if loop.last %}</s>{% endif %}"
    "{% endif %}{% endfor %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role here') }}{% endif %}"
    + CHATML
)
GENERATION_WITH_HEADER = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
    "<|head|>assistant<|/head|>{{ m.content }}<|eot|>{% endgeneration %}"
    "{% else %}<|head|>{{ m.role }}<|/head|>{{ m.content }}<|eot|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|/head|>{% endif %}"
)
# A template for content in blocks, which prints nothing of a plain text.
GENERATION_OF_BLOCKS = (
    "{% for m in messages %}<|head|>{{ m.role }}<|/head|>{% generation %}"
    "{% for block in m.content if block.type is defined %}{{ block.text }}{% endfor %}<|eot|>"
    "{% endgeneration %}{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|/head|>"
    "{% endif %}"
)
NO_END = (
    "{% for m in messages %}<|head|>{{ m.role }}<|/head|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|/head|>{% endif %}"
)
UPPER_CASE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content | upper }}\n{% endfor %}"
    "{% if add_generation_prompt %}answer: {% endif %}"
)

_CORPUS = [
    "Who are you? I am a small helper, made to answer questions about many things.",
    "system user assistant\nYou help. Hello there, what is your name?\n\nMy name is Bo.\n",
    "你是谁？我是一个小助手，很高兴认识你。请问今天天气怎么样？今天天气很好。",
    "<think>\nLet me see.\n</think>\n\nThe answer is 42.",
] * 3


@lru_cache(maxsize=2)
def _byte_level(trim_offsets: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer


@lru_cache(maxsize=1)
def _sentencepiece_like() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[*SPECIAL, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    # Such vocabularies know line ends as bytes only.
    lines = [line for text in _CORPUS for line in text.split("\n")]
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def fast_tokenizer(
    template: str | None, kind: str = "bytes", model_max_length: int | None = None
) -> Any:
    """Return a tokenizer of a `kind`: bytes, trimmed-bytes or sentencepiece."""
    backend = _sentencepiece_like() if kind == "sentencepiece" else _byte_level("trim" in kind)
    limit = {} if model_max_length is None else {"model_max_length": model_max_length}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        additional_special_tokens=SPECIAL[2:],
        chat_template=template,
        clean_up_tokenization_spaces=False,
        **limit,
    )


class CharacterTokenizer(PreTrainedTokenizer):
    """A tokenizer in Python, one token for a character: it knows no offsets."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("eos_token", "</s>")
        super().__init__(**options)

    @property
    def vocab_size(self) -> Any:
        return 0x110000

    def get_vocab(self) -> Any:
        return dict(self.added_tokens_encoder)

    def _tokenize(self, text: Any, **_options: Any) -> Any:
        return list(text)

    def _convert_token_to_id(self, token: Any) -> Any:
        return ord(token)

    def _convert_id_to_token(self, index: Any) -> Any:
        return chr(index)

    def convert_tokens_to_string(self, tokens: Any) -> Any:
        return "".join(tokens)
