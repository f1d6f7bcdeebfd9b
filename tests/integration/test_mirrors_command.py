"""``%swift mirrors`` in a real shell, against servers of the loopback device."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub, free_dead_url
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from shells import isolated_shell

from swift_jupyter.errors import UserError
from swift_jupyter.hub.mirrors.health import OPENS_AFTER, StoredHealth
from swift_jupyter.hub.mirrors.probe import PROBE_MODEL
from swift_jupyter.settings import load_settings, user_file

FILES = {"config.json": b"{}", "model.safetensors": bytes(700_000), "huge.safetensors": b"x" * 999}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    with isolated_shell(tmp_path, monkeypatch) as shell:
        shell.run_cell("%load_ext swift_jupyter")
        yield shell


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({("model", PROBE_MODEL): dict(FILES)}) as hub:
        yield hub


@pytest.fixture
def only_local(shell: InteractiveShell) -> InteractiveShell:
    """A shell whose built-in mirrors are hidden, so that nothing outside is asked."""
    shell.run_cell("%swift mirrors rm modelscope.cn modelscope.ai huggingface.co hf-mirror.com")
    return shell


@pytest.fixture
def silent_url() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def run(shell: InteractiveShell, line: str) -> Any:
    return shell.run_cell(line).result


def names(table: Any) -> list[str]:
    return [row["name"] for row in table]


def test_the_built_in_list_is_shown(shell: InteractiveShell) -> None:
    table = run(shell, "%swift mirrors")
    assert names(table) == ["modelscope.cn", "modelscope.ai", "huggingface.co", "hf-mirror.com"]
    assert "<table>" in table.html() and "https://hf-mirror.com" in table.text()


def test_entries_are_added_removed_and_restored(shell: InteractiveShell) -> None:
    table = run(
        shell, "%swift mirrors add lab --url http://lab:8000/api/v1/ --role node --region cn"
    )
    assert table[0]["name"] == "lab" and table[0]["url"] == "http://lab:8000"
    assert table[0]["hubs"] == "modelscope, huggingface" and table[0]["from"] == "yours"
    assert "lab" not in names(run(shell, "%swift mirrors rm lab"))
    assert "hf-mirror.com" not in names(run(shell, "%swift mirrors rm hf-mirror.com"))
    assert "hf-mirror.com" in names(run(shell, "%swift mirrors restore hf-mirror.com"))


def test_a_list_is_loaded_from_a_file_and_from_an_address(
    shell: InteractiveShell, tmp_path: Path, hub: FakeHub
) -> None:
    path = tmp_path / "list.json"
    entry = {"name": "far", "url": "http://far:1", "hubs": ["huggingface"], "note": "<b>&"}
    path.write_text(json.dumps({"version": 1, "mirrors": [entry]}))
    assert "far" in names(run(shell, f"%swift mirrors add {path}"))
    # And from a server, which here has no such page
    with pytest.raises(UserError, match="404"):
        run(shell, f"%swift mirrors add {hub.url}/list.json")
    # And one that does not fit names the entry and the field
    entry["url"] = "ftp://far"
    path.write_text(json.dumps({"version": 1, "mirrors": [entry]}))
    with pytest.raises(UserError, match="entry 'far', url"):
        run(shell, f"%swift mirrors add {path}")


def test_a_list_from_elsewhere_cannot_ask_for_a_secret(
    shell: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "list.json"
    entry = {"name": "evil", "url": "http://evil:1", "hubs": ["huggingface"]}
    entry["token_env"] = "HF_TOKEN"
    path.write_text(json.dumps({"version": 1, "mirrors": [entry]}))
    table = run(shell, f"%swift mirrors add {path}")
    assert table[0]["name"] == "evil" and table[0]["token_env"] == ""
    assert "evil wants the token in HF_TOKEN" in capsys.readouterr().out
    # And the user may allow it
    table = run(
        shell, "%swift mirrors add evil --url http://evil:1 --hubs huggingface --token_env HF_TOKEN"
    )
    assert table[0]["token_env"] == "HF_TOKEN"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%swift mirrors rm nowhere", "There is no mirror 'nowhere'"),
        ("%swift mirrors rm", "mirrors rm needs a name"),
        ("%swift mirrors add lab", "needs an address"),
        ("%swift mirrors add", "needs one name"),
        ("%swift mirrors add lab --url gopher://lab", "entry 'lab', url"),
        ("%swift mirrors add lab --url http://a:b@lab", "entry 'lab', url"),
        ("%swift mirrors add ./absent.json", "cannot be read"),
        ("%swift mirrors probe --timeout 0", "timeout must be above 0"),
        ("%swift mirrors probe --model nonsense", "is not the name of a repository"),
        ("%swift mirrors report", "needs one name"),
    ],
)
def test_what_a_person_can_mend_is_said_in_three_lines(
    shell: InteractiveShell, line: str, words: str
) -> None:
    with pytest.raises(UserError) as raised:
        run(shell, line)
    assert words in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 3


def test_probe_measures_in_parallel_draws_and_feeds_the_health(
    only_local: InteractiveShell, hub: FakeHub, silent_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given one server that works for both hubs, one that is silent, and one that is dead
    shell = only_local
    dead = free_dead_url()
    run(shell, f"%swift mirrors add good --url {hub.url} --hubs modelscope huggingface")
    run(shell, f"%swift mirrors add silent --url {silent_url} --hubs huggingface")
    run(shell, f"%swift mirrors add dead --url {dead} --hubs modelscope")
    # When they are measured
    shell.run_cell("%config SwiftMagics.display = 'html'")
    started = time.monotonic()
    with capture_output() as captured:
        table = run(shell, "%swift mirrors probe --timeout 2")
    # Then it takes no longer than it may
    assert time.monotonic() - started < 4
    states = {(row["name"], row["hub"]): row["state"] for row in table}
    assert states == {
        ("good", "modelscope"): "good",
        ("good", "huggingface"): "good",
        ("silent", "huggingface"): "failed",
        ("dead", "modelscope"): "failed",
    }
    good = next(row for row in table if row["state"] == "good")
    assert good["latency_seconds"] > 0 and good["bytes_per_second"] > 0
    # And a piece was asked for, not the whole of the largest file
    assert any("model.safetensors" in line for line in hub.requests)
    # And a chart stays in the notebook
    (svg,) = [o.data["image/svg+xml"] for o in captured.outputs if "image/svg+xml" in o.data]
    assert svg.startswith("<svg") and "good" in svg and svg.count("<rect") == 8
    # And the health of all is remembered, by their circuits too
    health = StoredHealth.of(load_settings())
    assert health.known(hub.url).last_success and health.known(hub.url).bytes_per_second
    assert health.known(dead).failures == 1
    for _again in range(OPENS_AFTER - 1):
        time.sleep(0.55)  # What fails within half a second counts once.
        run(shell, "%swift mirrors probe dead --timeout 1")
    row = next(row for row in run(shell, "%swift mirrors") if row["name"] == "dead")
    assert row["circuit"] == "open" and "left alone" in row["health"]


def test_a_mirror_that_lacks_the_model_is_no_dead_one(
    only_local: InteractiveShell, hub: FakeHub
) -> None:
    shell = only_local
    run(shell, f"%swift mirrors add good --url {hub.url} --hubs modelscope huggingface")
    table = run(shell, "%swift mirrors probe --model nobody/nothing")
    assert {row["state"] for row in table} == {"empty"}
    assert StoredHealth.of(load_settings()).known(hub.url).failures == 0


def test_a_slow_server_does_not_hold_the_cell(only_local: InteractiveShell) -> None:
    # Given a server that sends one byte now and then
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        ended = threading.Event()

        def drip() -> None:
            connection, _address = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not ended.wait(0.1):
                    connection.sendall(b" ")

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        run(only_local, f"%swift mirrors add drip --url {url} --hubs huggingface")
        started = time.monotonic()
        table = run(only_local, "%swift mirrors probe --timeout 1")
        assert time.monotonic() - started < 3
        ended.set()
        thread.join()
    assert table[0]["state"] == "failed"


def test_a_report_can_be_filed_and_tells_nothing_of_the_user(
    only_local: InteractiveShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a user with tokens, and a mirror that is dead
    shell = only_local
    secrets = {"HF_TOKEN": "hf_secret1", "LAB_TOKEN": "lab_secret2", "USER": "jane.doe"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    dead = free_dead_url()
    run(
        shell,
        f"%swift mirrors add lab --url {dead} --hubs huggingface --token_env LAB_TOKEN"
        " --report_url https://lab.example/issues",
    )
    # When it is reported
    facts = run(shell, "%swift mirrors report lab --timeout 2 --output report.md")
    # Then the report says what was tried, when, with what, and where to file it
    report = facts.report
    assert (tmp_path / "report.md").read_text() == report
    assert "## lab does not work" in report and dead in report
    assert re.search(r"Tested: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", report)
    assert "no connection to" in report and "- Python 3." in report
    assert "https://lab.example/issues" in facts.text()
    # And nothing of the user
    for secret in (*secrets.values(), str(tmp_path)):
        assert secret not in report and secret not in facts.html()


def test_tokens_are_masked_where_settings_are_shown(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("%config SwiftMagics.huggingface_token = 'hf_secret1'")
    shell.run_cell("%config SwiftMagics.nodes = 'http://jane:secret2@lab:8000'")
    table = run(shell, "%swift config")
    shell.run_cell("%config SwiftMagics")
    shown = table.text() + table.html() + str(table.to_dict()) + capsys.readouterr().out
    assert "***" in shown and "lab:8000" in shown
    assert "hf_secret1" not in shown and "secret2" not in shown
    # And a stored one is for its owner's eyes only
    run(shell, "%swift config set node_token node_secret3")
    assert "node_secret3" in user_file().read_text()
    assert user_file().stat().st_mode & 0o077 == 0


def test_the_doctor_asks_all_mirrors_at_once(
    only_local: InteractiveShell, hub: FakeHub, silent_url: str
) -> None:
    run(only_local, f"%swift mirrors add good --url {hub.url} --hubs modelscope huggingface")
    run(only_local, f"%swift mirrors add silent --url {silent_url} --hubs huggingface")
    table = run(only_local, "%swift doctor --timeout 1")
    states = {row["name"]: row["state"] for row in table}
    assert states["good (modelscope)"] == states["good (huggingface)"] == "good"
    assert states["silent (huggingface)"] == "not reachable"
