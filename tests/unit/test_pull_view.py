"""How a pull and a download look: in words, in HTML, in a terminal."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.commands.frontend import Bar
from swift_jupyter.display import bars, download_text, pull_text
from swift_jupyter.display.notebook import NotebookFrontend
from swift_jupyter.display.terminal import TerminalFrontend
from swift_jupyter.hub.download_progress import DownloadProgress, RepoProgress
from swift_jupyter.hub.progress import MAX_SHOWN_FILES, FileProgress, PullProgress
from swift_jupyter.runs.progress import RunProgress
from swift_jupyter.runs.record import RunRecord, State

EVIL = "<script>alert('x')</script>&\"\x1b[2J"
WORKING = PullProgress(
    "ModelScope",
    "lab/tiny",
    500_000,
    2_000_000,
    bytes_per_second=250_000.0,
    seconds_left=6.0,
    finished_files=1,
    total_files=3,
    files=(FileProgress("model.safetensors", 400_000, 1_900_000, "hf-mirror.com"),),
    notices=("ModelScope stalled, going on with hf-mirror.com",),
)


def evil_run(state: State) -> RunProgress:
    pull = PullProgress(
        EVIL, EVIL, 1, 2, EVIL, files=(FileProgress(EVIL, 1, 2, EVIL),), notices=(EVIL,)
    )
    repos = (
        RepoProgress(EVIL, "downloading", 1, 2, EVIL),
        RepoProgress(EVIL, "failed", reason=EVIL),
        RepoProgress(EVIL, "done", 2, 2, EVIL, EVIL),
    )
    record = RunRecord("download-1a2b", "download", title=EVIL)
    return RunProgress(record, state, "/run", download=DownloadProgress(repos, pull, (EVIL,), 5.0))


def test_a_pull_tells_how_far_how_fast_and_from_where() -> None:
    text = pull_text.pull_text("lab/tiny", WORKING)
    for words in ("25%", "500.0 kB/2.0 MB", "250.0 kB/s", "6 s left", "1/3 files", "ModelScope"):
        assert words in text.splitlines()[0]
    assert "model.safetensors  400.0 kB/1.9 MB  hf-mirror.com" in text
    assert "going on with hf-mirror.com" in text
    html = pull_text.pull_html("lab/tiny", WORKING)
    assert "width:25.0%" in html and "model.safetensors" in html and "1/3 files" in html


@pytest.mark.parametrize("state", [State.RUNNING, State.DONE, State.FAILED])
def test_what_a_hub_says_never_becomes_html(state: State) -> None:
    progress = evil_run(state)
    assert progress.download is not None and progress.download.pull is not None
    shown = download_text.html_block(progress, [EVIL])
    shown += pull_text.pull_html(EVIL, progress.download.pull)
    shown += bars.svg(EVIL, [Bar(EVIL, 1.0, EVIL)])
    assert "<script" not in shown
    assert "&lt;script" in shown


def test_the_last_frame_of_each_ending_says_what_is_there() -> None:
    repos = (
        RepoProgress("lab/tiny", "done", 2_000_000, 2_000_000, "ModelScope", "/cache/tiny"),
        RepoProgress("lab/gone", "failed", reason="'lab/gone' could not be pulled.\nNot there."),
    )
    record = RunRecord("download-1a2b", "download", title="lab/tiny, lab/gone")
    known = DownloadProgress(repos, None, ("a notice",), 12.4)
    progress = RunProgress(record, State.FAILED, "/run", download=known)
    for shown in (download_text.text_block(progress, []), download_text.html_block(progress, [])):
        for words in ("failed", "2.0 MB", "12 s", "/cache/tiny", "Not there.", "a notice"):
            assert words in shown


def test_a_run_that_has_told_nothing_yet_can_be_drawn() -> None:
    progress = RunProgress(RunRecord("d-1", "download"), State.QUEUED, "/run")
    assert "queued" in download_text.text_block(progress, [])
    assert "queued" in download_text.html_block(progress, ["m"])


@given(
    st.builds(
        PullProgress,
        source=st.text(max_size=9),
        repo_id=st.text(max_size=9),
        done_bytes=st.integers(0, 2**60),
        total_bytes=st.none() | st.integers(0, 2**60),
        file=st.none() | st.text(max_size=9),
        phase=st.sampled_from(
            ["listing", "waiting", "downloading", "verifying", "converting", "publishing"]
        ),
        bytes_per_second=st.none() | st.floats(0, 1e12),
        seconds_left=st.none() | st.floats(0, 1e9),
        finished_files=st.integers(0, 10**6),
        total_files=st.none() | st.integers(0, 10**6),
        files=st.lists(
            st.builds(
                FileProgress,
                st.text(max_size=200),
                st.integers(0, 2**60),
                st.none() | st.integers(0, 2**60),
                st.text(max_size=9),
                st.sampled_from(["waiting", "downloading", "verifying", "done", "failed"]),
            ),
            max_size=MAX_SHOWN_FILES,
        ).map(tuple),
        notices=st.lists(st.text(max_size=9), max_size=9).map(tuple),
    )
)
def test_any_progress_can_be_drawn_and_survives_its_file(pull: PullProgress) -> None:
    assert pull_text.pull_text("x", pull) and pull_text.pull_html("x", pull)
    known = DownloadProgress((RepoProgress("x", "downloading", 1, pull.total_bytes),), pull)
    assert DownloadProgress.from_json(known.to_json()) == known
    progress = RunProgress(RunRecord("d-1", "download"), State.RUNNING, "/run", download=known)
    assert download_text.text_block(progress, []) and download_text.html_block(progress, [])
    share = download_text.share(progress)
    assert share is None or 0 <= share <= 1


def test_a_pull_in_a_notebook_appears_only_when_it_takes_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames: list[dict[str, Any]] = []

    def display(bundle: dict[str, Any], **_options: Any) -> None:
        frames.append(bundle)

    monkeypatch.setattr("swift_jupyter.display.notebook.display", display)
    monkeypatch.setattr(
        "swift_jupyter.display.notebook.DisplayHandle.update",
        lambda _self, bundle, **_options: frames.append(bundle),
    )
    # Given a pull that is over at once, then nothing is drawn
    with NotebookFrontend().pull_view("lab/tiny") as view:
        view.update(WORKING)
    assert frames == []
    # Given a longer one, then it is drawn, and its end stays
    with NotebookFrontend().pull_view("lab/tiny") as view:
        for _report in range(100):
            view.update(WORKING)
            time.sleep(0.01)
    assert 2 <= len(frames) <= 6
    assert "model.safetensors" in frames[0]["text/html"]
    assert "done" in frames[-1]["text/plain"] and "stalled" in frames[-1]["text/html"]


def test_a_pull_in_a_terminal_says_each_notice_once() -> None:
    stream = io.StringIO()
    with TerminalFrontend(stream).pull_view("lab/tiny") as view:
        view.update(WORKING)
        time.sleep(0.6)
        view.update(WORKING)
    text = stream.getvalue()
    assert text.count("stalled, going on") == 1
    assert "lab/tiny · from ModelScope · 25%" in text


def test_bars_are_as_long_as_their_values() -> None:
    rows = [Bar("fast", 100.0, "100"), Bar("half", 50.0, "50"), Bar("dead", 0.0, "no answer")]
    fast, half, dead = bars.text("Speed", rows).splitlines()[1:]
    assert fast.count("█") == 2 * half.count("█") > 0 and dead.count("█") == 0
    svg = bars.svg("Speed", rows)
    assert 'width="320.0"' in svg and 'width="160.0"' in svg and 'width="0.0"' in svg
    assert bars.svg("Nothing", []) and bars.text("Nothing", []) == "Nothing"
