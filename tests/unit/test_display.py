"""How results and runs look, in a notebook and in a terminal."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import time
import warnings
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import RichOutput, capture_output
from shells import isolated_shell

from swift_jupyter.commands.infer import InferResult
from swift_jupyter.commands.results import Facts, Result, Table, columns_of
from swift_jupyter.commands.table import COMMANDS
from swift_jupyter.commands.training_run import TrainingRun
from swift_jupyter.display.chart import LossChart
from swift_jupyter.display.frontends import frontend_for
from swift_jupyter.display.help import command_help, overview
from swift_jupyter.display.notebook import NotebookFrontend
from swift_jupyter.display.progress import PATIENCE, describe
from swift_jupyter.display.run_text import html_block, one_line, text_block
from swift_jupyter.display.series import smooth, sparkline, thin
from swift_jupyter.display.terminal import TerminalFrontend, fit
from swift_jupyter.display.throttle import Throttle
from swift_jupyter.engine.inference.protocol import Answer
from swift_jupyter.runs.folder import RunFolder
from swift_jupyter.runs.progress import RunProgress
from swift_jupyter.runs.record import RunRecord, State
from swift_jupyter.runs.run import Run

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>\x1b[31m&amp;'


def rows(count: int, loss: Any = None, evaluations: int = 0) -> list[dict[str, Any]]:
    """Return logged rows as a training writes them."""
    made = []
    for step in range(1, count + 1):
        row = {
            "step": step,
            "global_step/max_steps": f"{step}/{count}",
            "loss": 4 / math.sqrt(step) if loss is None else loss,
            "learning_rate": 1e-4 * (1 - step / (count + 1)),
            "tokens_per_second": 900.0 + step % 7,
            "token_acc": 0.5,
            "seconds": 2.0 * step,
            "remaining_seconds": 2.0 * (count - step),
            "memory(GiB)": 1.25,
        }
        if evaluations and step % evaluations == 0:
            row["eval_loss"] = 4 / math.sqrt(step) + 0.1
        made.append(row)
    return made


def progress(
    logged: list[dict[str, Any]], state: State = State.RUNNING, **fields: Any
) -> RunProgress:
    record = RunRecord(fields.pop("id", "sft-1a2b"), "sft", state)
    return RunProgress(record, state, "/out/run", logged, **fields)


# The chart


def decode_png(image: bytes) -> tuple[int, int, int]:
    """Check a PNG by its own checksums; return width, height and the number of colours."""
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    place, data, size = 8, b"", (0, 0)
    names = []
    while place < len(image):
        length, name = struct.unpack(">I4s", image[place : place + 8])
        content = image[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack(">I", image[place + 8 + length : place + 12 + length])
        assert zlib.crc32(name + content) == checksum
        names.append(name)
        if name == b"IHDR":
            size = struct.unpack(">II", content[:8])
        if name == b"IDAT":
            data += content
        place += 12 + length
    assert names[0] == b"IHDR" and names[-1] == b"IEND"
    raw = zlib.decompress(data)
    return (*size, len({raw[i : i + 4] for i in range(1, len(raw), 4)}))


@pytest.fixture(scope="module")
def chart() -> LossChart:
    return LossChart()


@pytest.mark.parametrize(
    "logged",
    [
        [],
        rows(1),
        rows(1000, evaluations=100),
        rows(30, loss=math.nan),
        rows(30, loss=math.inf),
        rows(30, loss=0.0),
        rows(30, loss=-1.0),
        rows(5)[:2] + rows(5, loss=math.nan)[2:4] + rows(5)[4:],
        [{"step": 1, "eval_loss": 2.0}],
        [{"global_step/max_steps": "0/10"}],
    ],
    ids=["none", "one", "1000", "nan", "inf", "zero", "negative", "gap", "eval", "no-step"],
)
def test_the_chart_draws_any_course(chart: LossChart, logged: list[dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        width, height, colours = decode_png(chart.png(progress(logged)))
    assert (width, height) == (800, 320)
    assert colours > 10


def test_the_chart_shows_its_data_and_evaluation(chart: LossChart) -> None:
    empty = chart.png(progress([]))
    falling = chart.png(progress(rows(50)))
    evaluated = chart.png(progress(rows(50, evaluations=10)))
    assert len({empty, falling, evaluated}) == 3
    # Nothing of the last picture is left in the next.
    lines = [len(axes.lines) for axes in chart.figure.axes]
    chart.png(progress(rows(50)))
    assert [len(axes.lines) for axes in chart.figure.axes] == [lines[0] - 1, *lines[1:]]


def test_the_chart_leaves_pyplot_alone(chart: LossChart) -> None:
    import matplotlib.pyplot as plt

    plt.close("all")
    chart.png(progress(rows(3)))
    assert plt.get_fignums() == []


# Series


def test_a_spike_survives_thinning() -> None:
    ys = [1.0] * 5000
    ys[1234] = 99.0
    xs, kept = thin(list(range(5000)), ys)
    assert len(kept) <= 800 and max(kept) == 99.0
    assert xs == sorted(xs) and xs[kept.index(99.0)] == 1234


FLOATS = st.lists(st.floats(width=32), max_size=100)


@given(values=FLOATS)
def test_a_sparkline_of_anything_is_short_and_made_of_bars(values: list[float]) -> None:
    line = sparkline(values)
    assert len(line) <= 24 and set(line) <= set("▁▂▃▄▅▆▇█")
    assert bool(line) == any(math.isfinite(value) for value in values)


@given(values=st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), max_size=50))
def test_a_smooth_line_stays_within_its_values(values: list[float]) -> None:
    smoothed = smooth(values)
    assert len(smoothed) == len(values)
    finite = [value for value in values if not math.isnan(value)]
    for value in smoothed:
        assert math.isnan(value) or min(finite) - 1e-3 <= value <= max(finite) + 1e-3


def test_a_falling_loss_is_a_falling_line() -> None:
    assert sparkline([3, 2, 1]) == "█▅▁" or sparkline([3, 2, 1]) == "█▄▁"
    assert sparkline([]) == "" and sparkline([1.0, 1.0]) == "▁▁"


# Throttling


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("cost", [0.001, 0.05, 0.7, 3.0])
def test_drawing_takes_at_most_a_hundredth_of_the_time(cost: float) -> None:
    # Given a throttle like the chart's, and pictures of a certain cost
    clock = Clock()
    throttle = Throttle(1.0, share=0.01, clock=clock)
    spent = 0.0

    def draw() -> None:
        nonlocal spent
        clock.now += cost
        spent += cost

    # When something is new every fifth of a second, for three hours
    drawn = 0
    while clock.now < 3 * 3600:
        if throttle.due():
            throttle.run(draw)
            drawn += 1
        clock.now += 0.2
    # Then it was drawn, and cost a hundredth at most, the last picture apart
    assert drawn > 10
    assert (spent - cost) / clock.now <= 0.01


# Escaping


class TagCollector(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _value in attributes)


def answer(text: str) -> Answer:
    return Answer.of(
        text, finish_reason="stop", prompt_tokens=1, completion_tokens=1, seconds=1, messages=[]
    )


def hostile_results(folder: Path) -> Iterator[Result]:
    yield Table((HOSTILE, "b"), [{HOSTILE: HOSTILE, "b": 1}], title=HOSTILE, note=HOSTILE)
    yield Facts(HOSTILE, {HOSTILE: HOSTILE}, {}, HOSTILE, body=HOSTILE)
    yield InferResult({HOSTILE: answer(HOSTILE), "other": answer(HOSTILE)})
    yield InferResult({HOSTILE: answer(HOSTILE)})
    yield TrainingRun(hostile_run(folder))
    yield overview("%swift")
    yield from (command_help(command, "%swift") for command in COMMANDS.values())


def hostile_run(folder: Path) -> Run:
    path = folder / "<script>run"
    path.mkdir(exist_ok=True)
    record = {"id": HOSTILE, "command": "sft", "state": "failed", "reason": HOSTILE}
    (path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return Run(RunFolder(path))


def test_foreign_text_never_becomes_html(tmp_path: Path) -> None:
    for result in hostile_results(tmp_path):
        found = TagCollector(result._repr_mimebundle_()["text/html"])
        assert found.tags <= {"div", "strong", "table", "thead", "tbody", "tr", "th", "td", "pre"}
        assert found.attributes <= {"style"}


def test_a_run_view_never_makes_html_of_foreign_text() -> None:
    shown = progress(
        rows(3), id=HOSTILE, phase=HOSTILE, phase_done=1, phase_total=2, notices=[HOSTILE]
    )
    found = TagCollector(html_block(shown, [HOSTILE]))
    assert found.tags <= {"div", "span", "b"} and found.attributes <= {"style", "role"}


# Results


def test_a_result_is_one_line_as_repr_and_both_forms_in_a_notebook(tmp_path: Path) -> None:
    for result in hostile_results(tmp_path):
        assert "\n" not in repr(result)
        assert set(result._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_a_table_lines_up_with_chinese_in_it() -> None:
    rows = [{"name": "小燕", "size": 1}, {"name": "Xiao", "size": 22}]
    lines = Table(("name", "size"), rows).text().splitlines()
    assert len({columns_of(line[: line.rindex(" ") + 1]) for line in lines}) == 1


def test_a_table_becomes_a_frame_and_plain_values() -> None:
    table = Table(("a",), [{"a": 1, "b": 2}], data={"total": 1})
    assert table.to_pandas().to_dict("records") == [{"a": 1, "b": 2}]
    assert table.to_dict() == {"rows": [{"a": 1, "b": 2}], "total": 1}
    assert (len(table), table[0]["b"], [row["a"] for row in table]) == (1, 2, [1])


def test_facts_are_attributes() -> None:
    facts = Facts("t", {"size": "1 kB"}, {"size_bytes": 1000})
    assert facts.size_bytes == 1000 and facts.to_dict() == {"size_bytes": 1000}
    with pytest.raises(AttributeError):
        _ = facts.nothing


# A run in words


def test_a_running_run_says_where_it_is_and_how_long_it_takes() -> None:
    shown = progress(rows(20)[:10], phase="training", phase_done=10, phase_total=20)
    line = one_line(shown)
    for part in ("sft-1a2b", "running", "training 10/20", "loss 1.26", "left 20 s", "[####"):
        assert part in line, line
    assert "50.0%" in html_block(shown, [])


def test_a_finished_run_shows_the_course_of_its_loss() -> None:
    text = text_block(progress(rows(20, evaluations=5), State.DONE, notices=["half precision"]), [])
    assert "step 20/20" in text and "half precision" in text
    assert "loss 4.000 █" in text and "eval loss" in text


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("logged", [[], rows(2)], ids=["fresh", "at work"])
def test_every_state_has_words(state: State, logged: list[dict[str, Any]]) -> None:
    shown = progress(logged, state)
    assert state.value in text_block(shown, []) and state.value in html_block(shown, ["m"])


def test_a_bar_tells_speed_and_time_left() -> None:
    assert describe("from hub", None, None, 1.0) == ("from hub", None)
    words, share = describe("from hub", 50e6, 200e6, 10.0)
    assert share == 0.25 and "25%" in words and "5.0 MB/s" in words and "30 s left" in words
    assert describe("x", 3.0, 2.0, 1.0)[1] == 1.0
    assert describe("x", 3e6, None, 1.0)[1] is None


# Terminals


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_whole_lines_without_control_characters() -> None:
    stream = io.StringIO()
    frontend = TerminalFrontend(stream)
    frontend.notice(HOSTILE)
    view = frontend.run_view()
    for count in (0, 1, 1, 2):
        view.draw(progress(rows(2)[:count], phase="training"))
    view.message("Stopping")
    view.close(progress(rows(2), State.DONE))
    with frontend.text("adapter") as text:
        text.append("Hello \x1b[2J")
        text.append("world")
        text.finish("2 tokens")
    lines = stream.getvalue().splitlines()
    # One line a change, the message, the last state, its loss, and the answer
    assert sum("running" in line for line in lines) == 3
    assert "Stopping" in lines and any("done" in line for line in lines)
    assert lines[-3:] == ["[adapter]", "Hello [2Jworld", "(2 tokens)"]
    assert "\x1b" not in stream.getvalue() and "\r" not in stream.getvalue()


def test_a_terminal_redraws_one_line_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    view = TerminalFrontend(stream).run_view()
    view.draw(progress(rows(2), phase="加载模型" * 20))
    view.close(progress(rows(2), State.DONE))
    drawn, settled = stream.getvalue().split("\r\x1b[2K")[1:]
    assert 30 < columns_of(drawn) <= 39
    assert "step 2/2" in settled and settled.endswith("\n")


@given(text=st.text(), columns=st.integers(0, 30))
def test_fitting_cuts_only_what_is_too_long(text: str, columns: int) -> None:
    cut = fit(text, columns)
    assert text.startswith(cut) and columns_of(cut) <= columns
    assert cut == text or columns_of(cut) >= columns - 1


def test_a_terminal_bar_appears_after_a_moment_and_goes_away() -> None:
    stream = Terminal()
    with TerminalFrontend(stream).progress("model") as bar:
        bar.update("loading into memory")
        assert stream.getvalue() == ""
        wait_for(lambda: "model · loading into memory" in stream.getvalue())
    assert stream.getvalue().endswith("\r\x1b[2K")


def test_what_is_over_at_once_needs_no_bar() -> None:
    stream = Terminal()
    with TerminalFrontend(stream).progress("model") as bar:
        bar.update("from cache", 1, 1)
    assert stream.getvalue() == ""


def wait_for(condition: Any, seconds: float = 10 * PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


# Notebooks


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    with isolated_shell(tmp_path, monkeypatch) as shell:
        yield shell


def outputs_after(captured: Any) -> list[RichOutput]:
    """Return the outputs as the saved notebook has them: an update replaces its output."""
    kept: dict[str, RichOutput] = {}
    for output in captured.outputs:
        kept[(output.transient or {}).get("display_id", str(id(output)))] = output
    return list(kept.values())


def test_a_run_ends_as_html_and_a_picture(shell: InteractiveShell) -> None:
    with capture_output() as captured:
        view = NotebookFrontend().run_view()
        for count in range(5):
            view.draw(progress(rows(5)[:count]))
        view.message("Stopping")
        view.close(progress(rows(5), State.STOPPED))
    status, picture = outputs_after(captured)
    assert "stopped" in status.data["text/html"] and "Stopping" in status.data["text/plain"]
    assert decode_png(base64.b64decode(picture.data["image/png"]))[0] == 800
    assert "sft-1a2b" in picture.data["text/plain"]


def test_a_run_that_failed_before_its_first_step_has_no_empty_picture(
    shell: InteractiveShell,
) -> None:
    with capture_output() as captured:
        view = NotebookFrontend().run_view()
        view.draw(progress([], phase="loading"))
        view.close(progress([], State.FAILED))
    (status,) = outputs_after(captured)
    assert "failed" in status.data["text/html"]


def test_a_streamed_answer_is_one_output_with_its_note(shell: InteractiveShell) -> None:
    with capture_output() as captured, NotebookFrontend().text("") as view:
        for piece in ("<b>", "Hello", " you"):
            view.append(piece)
        view.finish("3 tokens")
    (output,) = outputs_after(captured)
    assert output.data["text/plain"] == "<b>Hello you"
    assert "&lt;b&gt;Hello you" in output.data["text/html"]
    assert "3 tokens" in output.data["text/html"]


def test_an_answer_that_breaks_off_keeps_what_was_said(shell: InteractiveShell) -> None:
    with (
        capture_output() as captured,
        pytest.raises(MemoryError),
        NotebookFrontend().text("") as view,
    ):
        view.append("Hel")
        view.append("lo")
        raise MemoryError
    assert outputs_after(captured)[0].data["text/plain"] == "Hello"


def test_a_bar_appears_even_when_the_work_speaks_only_once(shell: InteractiveShell) -> None:
    # Given work that says one thing and then is silent, as loading a model is
    with capture_output() as captured:
        with NotebookFrontend().progress("<model>") as bar:
            bar.update("loading into memory")
            wait_for(lambda: captured.outputs)
        shown = [output.data["text/plain"] for output in captured.outputs]
    # Then it was shown, and at its end as done
    assert shown[0] == "<model> · loading into memory"
    assert shown[-1].startswith("<model> · done")
    found = TagCollector(outputs_after(captured)[0].data["text/html"])
    assert found.tags == {"div"}


def test_a_bar_of_failed_work_says_so_and_quick_work_shows_none(shell: InteractiveShell) -> None:
    with (
        capture_output() as captured,
        pytest.raises(OSError, match="gone"),
        NotebookFrontend().progress("model") as bar,
    ):
        bar.update("from hub", 5e6, 10e6)
        wait_for(lambda: captured.outputs)
        raise OSError("gone")
    assert "failed" in outputs_after(captured)[0].data["text/plain"]
    with capture_output() as captured, NotebookFrontend().progress("model") as bar:
        bar.update("from cache", 1, 1)
    assert captured.outputs == []


@pytest.mark.parametrize(
    ("display", "kernel", "expected"),
    [
        ("auto", True, "NotebookFrontend"),
        ("auto", False, "TerminalFrontend"),
        ("html", False, "NotebookFrontend"),
        ("text", True, "TerminalFrontend"),
    ],
)
def test_the_setting_and_the_shell_choose_the_frontend(
    display: str, kernel: bool, expected: str
) -> None:
    class Shell:
        pass

    shell = Shell()
    if kernel:
        shell.kernel = object()  # type: ignore[attr-defined]
    assert type(frontend_for(shell, display)).__name__ == expected
