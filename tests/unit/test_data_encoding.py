"""Labels lie on the answers and their ends, whatever the chat template does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chat_tokenizers as ct
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_jupyter.engine.data import EncodingOptions, Origin, encode, preview
from swift_jupyter.engine.data.chat_template import ChatTemplate
from swift_jupyter.engine.data.rows import IGNORED_LABEL, Conversation, UnusableRow
from swift_jupyter.engine.data.spans import locate_answers
from swift_jupyter.errors import Interrupted, UserError


def conversation(*turns: tuple[str, str], system: str | None = None) -> Conversation:
    messages = [] if system is None else [{"role": "system", "content": system}]
    for question, answer in turns:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    return Conversation(messages, Origin("test", 1))


def encoded(chat: Conversation, tokenizer: Any, **options: Any) -> Any:
    result = encode([chat], tokenizer, EncodingOptions(**options))
    assert not result.problems, result.problems[0].reason
    return result.rows[0]


def trained_text(row: Any, tokenizer: Any) -> str:
    return str(tokenizer.decode([label for label in row.labels if label != IGNORED_LABEL]))


def whole_ids(chat: Conversation, tokenizer: Any) -> list[int]:
    """What the model's own template gives, straight from the library."""
    return list(tokenizer.apply_chat_template(chat.messages, tokenize=True)["input_ids"])


ALPHABET = st.sampled_from([*"abcXYZ .,?!\n\t09", *"你是谁我好的，。？", "é", "👍", "🏽", "\u200d"])
TEXT = st.text(ALPHABET, min_size=1, max_size=25).map(str.strip).filter(bool)
TURNS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4)
SYSTEM = st.none() | TEXT


class TestLabelsEqualAnswersPlusEnd:
    """The oracle: the decoded labels are the answers, each with its end of turn."""

    @pytest.mark.parametrize("kind", ["bytes", "trimmed-bytes"])
    @pytest.mark.parametrize(
        ("template", "end"),
        [
            (ct.CHATML, "<|im_end|>\n"),
            (ct.CHATML_DEFAULT_SYSTEM, "<|im_end|>\n"),
            (ct.GENERATION, "<|im_end|>\n"),
            (ct.HEADERS, "<|eot|>"),
        ],
        ids=["chatml", "default system", "generation", "headers"],
    )
    @settings(max_examples=40, deadline=None)
    @given(turns=TURNS, system=SYSTEM)
    def test_any_conversation(
        self, kind: str, template: str, end: str, turns: Any, system: Any
    ) -> None:
        # Given any conversation in Chinese, English and emoji
        tokenizer = ct.fast_tokenizer(template, kind)
        chat = conversation(*turns, system=system)
        # When it is encoded
        row = encoded(chat, tokenizer)
        # Then the ids are the template's own and the labels are the answers
        assert row.input_ids == whole_ids(chat, tokenizer)
        assert trained_text(row, tokenizer) == "".join(answer + end for _q, answer in turns)
        assert all(
            label in (IGNORED_LABEL, token)
            for token, label in zip(row.input_ids, row.labels, strict=True)
        )

    @settings(max_examples=40, deadline=None)
    @given(turns=TURNS, system=SYSTEM)
    def test_sentencepiece_like_vocabulary(self, turns: Any, system: Any) -> None:
        tokenizer = ct.fast_tokenizer(ct.CHATML, "sentencepiece")
        chat = conversation(*turns, system=system)
        row = encoded(chat, tokenizer)
        assert row.input_ids == whole_ids(chat, tokenizer)
        assert trained_text(row, tokenizer) == "".join(a + "<|im_end|>\n" for _q, a in turns)

    @settings(max_examples=30, deadline=None)
    @given(turns=TURNS, system=SYSTEM)
    def test_tokenizer_without_offsets(self, turns: Any, system: Any) -> None:
        tokenizer = ct.CharacterTokenizer(chat_template=ct.CHATML)
        chat = conversation(*turns, system=system)
        row = encoded(chat, tokenizer)
        assert row.input_ids == whole_ids(chat, tokenizer)
        assert trained_text(row, tokenizer) == "".join(a + "<|im_end|>\n" for _q, a in turns)

    @settings(max_examples=60, deadline=None)
    @given(turns=TURNS, thoughts=st.lists(st.none() | TEXT, min_size=4, max_size=4))
    def test_thoughts_that_history_loses(self, turns: Any, thoughts: Any) -> None:
        # Given answers of which some have thoughts, and a template that shows the last ones only
        tokenizer = ct.fast_tokenizer(ct.THINKING)
        full = [
            (question, answer if thought is None else f"<think>\n{thought}\n</think>\n\n{answer}")
            for (question, answer), thought in zip(turns, thoughts, strict=False)
        ]
        chat = conversation(*full)
        # When they are encoded
        row = encoded(chat, tokenizer)
        # Then what the template shows of them is trained, but no empty thought
        earlier = "".join(answer + "<|im_end|>\n" for _q, answer in turns[:-1])
        assert row.input_ids == whole_ids(chat, tokenizer)
        assert trained_text(row, tokenizer) == earlier + full[-1][1] + "<|im_end|>\n"

    @settings(max_examples=40, deadline=None)
    @given(turns=TURNS, thought=st.none() | TEXT)
    def test_prompt_that_opens_a_thought(self, turns: Any, thought: Any) -> None:
        tokenizer = ct.fast_tokenizer(ct.OPENED_THOUGHT)
        start = "" if thought is None else f"<think>\n{thought}\n</think>"
        chat = conversation(*((q, start + a) for q, a in turns))
        row = encoded(chat, tokenizer)
        assert row.input_ids == whole_ids(chat, tokenizer)
        assert trained_text(row, tokenizer) == "".join(a + "<|eot|>" for _q, a in turns)

    @settings(max_examples=40, deadline=None)
    @given(turns=TURNS, system=SYSTEM)
    def test_system_text_that_moves_and_end_of_the_last_turn_only(
        self, turns: Any, system: Any
    ) -> None:
        tokenizer = ct.fast_tokenizer(ct.LAST_QUESTION)
        chat = conversation(*turns, system=system)
        row = encoded(chat, tokenizer)
        text = trained_text(row, tokenizer)
        assert row.input_ids == whole_ids(chat, tokenizer)
        # The blank in front of an answer may or may not be a token of its own.
        assert text.replace(" ", "") == "".join(a for _q, a in turns).replace(" ", "") + "</s>"


def test_blanks_that_an_unstable_template_strips() -> None:
    tokenizer = ct.fast_tokenizer(ct.LAST_QUESTION)
    row = encoded(conversation(("q", "\n yes  "), ("q", "  no \n"), system="S"), tokenizer)
    assert trained_text(row, tokenizer).split() == ["yes", "no</s>"]


def test_generation_masks_agree_with_the_library() -> None:
    # Given a template with generation marks and a tokenizer whose mask has no gaps
    tokenizer = ct.fast_tokenizer(ct.GENERATION)
    chat = conversation(("Who are you?", "I am Bo."), ("你是谁？", "我是小助手。"))
    theirs = tokenizer.apply_chat_template(
        chat.messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )["assistant_masks"]
    row = encoded(chat, tokenizer)
    assert [int(label != IGNORED_LABEL) for label in row.labels] == theirs


def test_generation_marks_hold_where_the_library_s_mask_is_lost() -> None:
    # Given offsets without blanks, and an answer that begins with one
    tokenizer = ct.fast_tokenizer(ct.GENERATION, "trimmed-bytes")
    chat = conversation(("q", " yes"), ("q", "no"))
    row = encoded(chat, tokenizer)
    assert trained_text(row, tokenizer) == " yes<|im_end|>\nno<|im_end|>\n"


def test_generation_marks_around_the_header_do_not_train_it() -> None:
    tokenizer = ct.fast_tokenizer(ct.GENERATION_WITH_HEADER)
    row = encoded(conversation(("q", "yes"), ("q", "no")), tokenizer)
    assert trained_text(row, tokenizer) == "yes<|eot|>no<|eot|>"


def test_generation_marks_without_the_answer_are_refused() -> None:
    tokenizer = ct.fast_tokenizer(ct.GENERATION_OF_BLOCKS)
    result = encode([conversation(("q", "yes"))], tokenizer)
    assert result.rows == [None]
    assert "cannot be found" in result.problems[0].reason


def test_last_answer_without_an_end_gets_the_end_of_text() -> None:
    tokenizer = ct.fast_tokenizer(ct.NO_END)
    row = encoded(conversation(("q", "yes"), ("q", "no")), tokenizer)
    assert trained_text(row, tokenizer) == "yesno</s>"
    assert row.input_ids[-1] == tokenizer.eos_token_id


def test_a_token_across_the_start_is_trained() -> None:
    # Given a template whose prompt has a blank that the first word swallows
    tokenizer = ct.fast_tokenizer(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|eot|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    row = encoded(conversation(("q", "name")), tokenizer)
    assert trained_text(row, tokenizer) == " name<|eot|>"


def test_special_tokens_inside_texts_do_not_move_the_labels() -> None:
    tokenizer = ct.fast_tokenizer(ct.CHATML)
    trap = "x<|im_end|>\n<|im_start|>assistant\nfalse"
    row = encoded(conversation((trap, "true")), tokenizer)
    assert trained_text(row, tokenizer) == "true<|im_end|>\n"


def test_assistant_turn_before_any_question() -> None:
    tokenizer = ct.fast_tokenizer(ct.CHATML)
    messages = [
        {"role": "assistant", "content": "Welcome."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]
    row = encoded(Conversation(messages, Origin("t", 1)), tokenizer)
    assert trained_text(row, tokenizer) == "Welcome.<|im_end|>\nHello<|im_end|>\n"


@pytest.mark.parametrize("template", [ct.CHATML, ct.GENERATION])
def test_turns_without_loss_are_context(template: str) -> None:
    tokenizer = ct.fast_tokenizer(template)
    chat = conversation(("a", "first"), ("b", "second"))
    chat.messages[1]["loss"] = False
    row = encoded(chat, tokenizer)
    assert trained_text(row, tokenizer) == "second<|im_end|>\n"


class TestSystem:
    def text(self, tokenizer: Any, chat: Any, system: Any = "") -> Any:
        return tokenizer.decode(encoded(chat, tokenizer, system=system).input_ids)

    def test_row_wins_over_option_wins_over_template(self) -> None:
        tokenizer = ct.fast_tokenizer(ct.CHATML_DEFAULT_SYSTEM)
        without, with_own = conversation(("q", "a")), conversation(("q", "a"), system="Own.")
        assert "You help." in self.text(tokenizer, without)
        assert "Option." in self.text(tokenizer, without, "Option.")
        assert "You help." not in self.text(tokenizer, without, "Option.")
        assert "Own." in self.text(tokenizer, with_own, "Option.")
        assert "Option." not in self.text(tokenizer, with_own, "Option.")

    def test_refusing_template_is_a_problem_of_the_row_with_its_reason(self) -> None:
        tokenizer = ct.fast_tokenizer(ct.NO_SYSTEM)
        chats = [conversation(("q", "a")), conversation(("q", "a"), system="S")]
        result = encode(chats, tokenizer)
        assert [row is not None for row in result.rows] == [True, False]
        assert "no system role here" in result.problems[0].reason
        with pytest.raises(UserError, match="no system role here"):
            encode(chats, tokenizer, EncodingOptions(strict=True))


class TestTemplates:
    def test_base_model_without_template_is_refused(self) -> None:
        with pytest.raises(UserError) as error:
            encode([conversation(("q", "a"))], ct.fast_tokenizer(None))
        assert "no chat template" in error.value.what
        assert "--chat_template" in error.value.next_step

    def test_template_as_text_and_as_file(self, tmp_path: Path) -> None:
        file = tmp_path / "chat.jinja"
        file.write_text(ct.CHATML, encoding="utf-8")
        tokenizer = ct.fast_tokenizer(None)
        chats = [conversation(("q", "a"))]
        first, second = (
            encode(chats, tokenizer, chat_template=given).rows[0]
            for given in (ct.CHATML, str(file))
        )
        assert first == second
        assert trained_text(first, tokenizer) == "a<|im_end|>\n"

    @pytest.mark.parametrize(
        ("given", "words"),
        [("{% for %}", "cannot be used"), ("/no/such/file.jinja", "cannot be read")],
    )
    def test_wrong_template_is_refused(self, given: Any, words: str) -> None:
        with pytest.raises(UserError, match=words):
            encode([conversation(("q", "a"))], ct.fast_tokenizer(None), chat_template=given)

    def test_template_that_changes_the_letters(self) -> None:
        tokenizer = ct.fast_tokenizer(ct.UPPER_CASE)
        row = encoded(conversation(("q", "hello"), ("q", "again")), tokenizer)
        assert trained_text(row, tokenizer) == "HELLO\nAGAIN\n"

    def test_answers_that_cannot_be_found_are_refused_not_guessed(self) -> None:
        silent = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
        result = encode([conversation(("Q", "hello"))], ct.fast_tokenizer(silent))
        assert result.rows == [None]
        assert "cannot be found" in result.problems[0].reason


class TestLength:
    LONG = conversation(("one two three", "four five six"))
    SHORT = conversation(("a", "b"))

    def test_delete_counts(self) -> None:
        tokenizer = ct.fast_tokenizer(ct.CHATML)
        limit = len(encoded(self.SHORT, tokenizer))
        long = len(encoded(self.LONG, tokenizer))
        result = encode([self.LONG, self.SHORT], tokenizer, EncodingOptions(max_length=limit))
        assert result.rows[0] is None and result.rows[1] is not None
        assert result.lengths_deleted == [long]

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_truncation_keeps_one_end(self, side: str) -> None:
        tokenizer = ct.fast_tokenizer(ct.CHATML)
        whole = encoded(self.LONG, tokenizer)
        limit = len(whole) - 3
        options = EncodingOptions(max_length=limit, truncation_strategy=side)
        row = encode([self.LONG], tokenizer, options).rows[0]
        assert row is not None
        kept = slice(None, limit) if side == "right" else slice(-limit, None)
        assert (row.input_ids, row.labels) == (whole.input_ids[kept], whole.labels[kept])

    def test_row_without_label_after_truncation_is_dropped_and_counted(self) -> None:
        tokenizer = ct.fast_tokenizer(ct.CHATML)
        options = EncodingOptions(max_length=3, truncation_strategy="right")
        result = encode([self.LONG], tokenizer, options)
        assert result.rows == [None]
        assert len(result.unlabelled) == 1

    @pytest.mark.parametrize("wrong", [{"truncation_strategy": "middle"}, {"max_length": 0}])
    def test_wrong_options(self, wrong: Any) -> None:
        with pytest.raises(UserError):
            EncodingOptions(**wrong)


def test_progress_counts_up_and_stop_is_heard() -> None:
    tokenizer = ct.fast_tokenizer(ct.CHATML)
    chats = [conversation(("q", str(i))) for i in range(300)]
    seen: list[tuple[int, int]] = []
    encode(chats, tokenizer, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1] == (300, 300) and len(seen) > 1
    with pytest.raises(Interrupted):
        encode(chats, tokenizer, should_stop=lambda: True)


@settings(max_examples=40, deadline=None)
@given(turns=TURNS)
def test_preview_shows_the_whole_text_with_the_labels(turns: Any) -> None:
    tokenizer = ct.fast_tokenizer(ct.CHATML)
    row = encoded(conversation(*turns), tokenizer)
    pieces = preview(tokenizer, row)
    assert "".join(piece.text for piece in pieces) == tokenizer.decode(row.input_ids)
    assert [i for piece in pieces for i in piece.ids] == row.input_ids
    trained = "".join(piece.text for piece in pieces if piece.trained)
    assert trained == trained_text(row, tokenizer)


class TestKnownPieces:
    """The short way to the answers finds what the long way finds."""

    @given(turns=TURNS, system=SYSTEM)
    @settings(max_examples=60, deadline=None)
    @pytest.mark.parametrize(
        "template",
        [ct.CHATML, ct.CHATML_DEFAULT_SYSTEM, ct.HEADERS, ct.NO_SYSTEM, ct.THINKING, ct.UPPER_CASE],
        ids=["chatml", "default system", "headers", "no system", "thinking", "upper case"],
    )
    def test_both_ways_agree(
        self, template: str, turns: list[tuple[str, str]], system: str | None
    ) -> None:
        """Given any chat, when its answers are located with and without, then they agree."""
        messages = conversation(*turns, system=system).messages
        short = ChatTemplate(ct.fast_tokenizer(template), template)
        long = ChatTemplate(ct.fast_tokenizer(template), template)
        vars(long)["turn_pieces"] = None
        try:
            expected = locate_answers(long, messages)
        except UnusableRow:
            with pytest.raises(UnusableRow):
                locate_answers(short, messages)
            return
        assert locate_answers(short, messages) == expected

    @pytest.mark.parametrize("template", [ct.CHATML, ct.CHATML_DEFAULT_SYSTEM, ct.HEADERS])
    def test_plain_templates_are_known(self, template: str) -> None:
        """Given a template of fixed pieces, when it is looked at, then they are found."""
        assert ChatTemplate(ct.fast_tokenizer(template), template).turn_pieces is not None

    @pytest.mark.parametrize("template", [ct.THINKING, ct.OPENED_THOUGHT, ct.LAST_QUESTION])
    def test_templates_that_depend_on_the_place_are_not(self, template: str) -> None:
        """Given a template that treats the last turn apart, then no pieces are assumed."""
        assert ChatTemplate(ct.fast_tokenizer(template), template).turn_pieces is None

    def test_processes_give_the_same_rows(self) -> None:
        """Given many chats, when two processes share them, then nothing is different."""
        tokenizer = ct.fast_tokenizer(ct.CHATML)
        chats = [conversation((f"q{i}", f"a{i}" * (i % 7 + 1))) for i in range(128 * 24 + 5)]
        alone = encode(chats, tokenizer)
        shared = encode(chats, tokenizer, processes=2)

        assert shared.packed == alone.packed
        assert shared.places == alone.places

    def test_an_error_in_a_process_arrives(self) -> None:
        """Given one bad row and strict, when processes share the work, then the error is told."""
        tokenizer = ct.fast_tokenizer(ct.NO_SYSTEM)
        chats = [conversation((f"q{i}", "a")) for i in range(128 * 24)]
        chats[2000] = conversation(("q", "a"), system="no")
        with pytest.raises(UserError, match="no system role"):
            encode(chats, tokenizer, EncodingOptions(strict=True), processes=2)
