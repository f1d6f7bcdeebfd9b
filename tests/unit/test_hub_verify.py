"""Files against their listed hashes."""

import hashlib
import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.hub.cache.verify import verify_files
from swift_jupyter.hub.listing import RemoteFile


@given(content=st.binary(min_size=1, max_size=200), position=st.integers(min_value=0))
def test_any_flipped_byte_is_found(tmp_path_factory: object, content: bytes, position: int) -> None:
    folder = tmp_path_factory.mktemp("files")  # type: ignore[attr-defined]
    file = RemoteFile("f", len(content), hashlib.sha256(content).hexdigest())
    (folder / "f").write_bytes(content)
    assert verify_files(folder, [file]) == []
    place = position % len(content)
    (folder / "f").write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert [mismatch.path for mismatch in verify_files(folder, [file])] == ["f"]


def test_git_hash_is_the_one_that_git_computes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello\n")
    known = "ce013625030ba8dba906f756967f9e9ca394464a"
    assert verify_files(tmp_path, [RemoteFile("f", 6, None, known)]) == []
    try:
        command = ["git", "hash-object", str(tmp_path / "f")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return
    assert said == known


def test_message_parts_name_what_was_expected_and_found(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"abc")
    (tmp_path / "wrong").write_bytes(b"abc")
    files = [
        RemoteFile("short", 4),
        RemoteFile("absent", 1),
        RemoteFile("wrong", 3, None, "0" * 40),
        RemoteFile("unknown"),
    ]
    short, absent, *rest = verify_files(tmp_path, files)
    assert (short.expected, short.found) == ("4 bytes", "3 bytes")
    assert absent.found == "nothing"
    assert rest[0].expected == "git sha1 " + "0" * 40
    assert rest[0].found.startswith("git sha1 f2ba8f84")
    assert rest[1].path == "unknown", "a listed file that is absent is wrong without a hash too"


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    content = b"x" * (9 << 20)
    (tmp_path / "f").write_bytes(content)
    seen: list[int] = []
    file = RemoteFile("f", len(content), hashlib.sha256(content).hexdigest())
    verify_files(tmp_path, [file], lambda path, count: seen.append(count))
    assert sum(seen) == len(content)
    assert len(seen) > 1
