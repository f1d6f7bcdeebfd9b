"""What the origins of the fault server hold, and the listings of both hubs' protocols."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fault_content import Content

LFS_SUFFIXES = (".safetensors", ".bin", ".gguf", ".parquet")
# The real ModelScope cuts a listing of a model's files here, and says nothing.
MODELSCOPE_LIMIT = 3000
Query = Mapping[str, list[str]]


@dataclass(frozen=True)
class Entry:
    """One line of a listing, lies included."""

    path: str
    size: int
    sha256: str
    git_sha1: str

    @property
    def lfs(self) -> bool:
        return self.path.endswith(LFS_SUFFIXES) or self.size > 10 << 20


class HeldRepo:
    """A repository as an origin holds it."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        self.repo_id: str = message["repo_id"]
        self.kind: str = message["kind"]
        self.hashes: bool = message["hashes"]
        self._message = message
        # Pages that take seconds to make.
        self._pages: dict[tuple[str, bool], bytes] = {}
        self.files = {
            file["path"]: Content(
                file["size"],
                f"{message['seed']}\0{file['path']}",
                base64.b64decode(file["literal"]) if "literal" in file else None,
                file.get("sha256"),
            )
            for file in message["files"]
        }

    @cached_property
    def commit(self) -> str:
        """The commit: a hash of all that it holds."""
        lines = sorted((path, *content.hashes()) for path, content in self.files.items())
        return hashlib.sha1(repr(lines).encode(errors="surrogatepass")).hexdigest()

    def knows(self, revision: str, default: str) -> bool:
        """Tell whether it has the revision."""
        return revision in (default, self.commit, *self._message["revisions"])

    @cached_property
    def entries(self) -> list[Entry]:
        """All lines of the listing."""
        listed = self._message["listed"]
        found = []
        for path, content in sorted(self.files.items()):
            sha256, git_sha1 = content.hashes()
            truth = {"size": content.size, "sha256": sha256, "git_sha1": git_sha1}
            found.append(Entry(path, **{**truth, **listed.get(path, {})}))
        for extra in self._message["extra"]:
            found.append(Entry(**{"size": 1, "sha256": "0" * 64, "git_sha1": "0" * 40, **extra}))
        for number in range(self._message["generated"]):
            text = f"{number:08}"
            found.append(Entry(f"many/{text}.txt", 1, text * 8, text * 5))
        return found

    def prepare(self) -> None:
        """Hash and list before a client waits for it."""
        _ = self.commit, self.entries
        if self._message["generated"]:
            _ = self._huggingface_page
            for root in ("", "many"):
                for recursive in ("True", "False"):
                    query = {"Root": [root], "Recursive": [recursive]}
                    self.modelscope_listing(query, paged=False)

    @cached_property
    def _huggingface_page(self) -> bytes:
        siblings = [{"rfilename": entry.path} for entry in self.entries]
        return json.dumps(
            {"id": self.repo_id, "sha": self.commit, "siblings": siblings, "tags": []}
        ).encode()

    def modelscope_listing(self, query: Query, *, paged: bool) -> bytes:
        """Return ModelScope's listing: `paged` for ``repo/tree``, cut for ``repo/files``."""
        root = query.get("Root", [""])[0].strip("/")
        recursive = query.get("Recursive", ["True"])[0].lower() == "true"
        key = root, recursive
        if not paged and key in self._pages:
            return self._pages[key]
        entries = [e for e in self.entries if not root or e.path.startswith(f"{root}/")]
        lines = list(self._modelscope_lines(entries))
        if not recursive:
            lines = _children(lines, f"{root}/" if root else "")
        if paged:
            size = int(query.get("PageSize", ["200"])[0])
            first = (int(query.get("PageNumber", ["1"])[0]) - 1) * size
            if self._message["stuck_page"]:
                first = 0
            lines = lines[first : first + size]
        elif not self._message["generated"]:
            lines = lines[:MODELSCOPE_LIMIT]
        page = _modelscope(lines)
        if self._message["generated"] and not paged:
            self._pages[key] = page
        return page

    def _modelscope_lines(self, entries: list[Entry]) -> Iterator[dict[str, Any]]:
        for entry in entries:
            line = {
                "Path": entry.path,
                "Name": entry.path.rpartition("/")[2],
                "Type": "blob",
                "Size": entry.size,
                "IsLFS": entry.lfs,
            }
            if self.hashes:
                line["Sha256"] = entry.sha256
            yield line

    def huggingface_info(self) -> bytes:
        """Return what Hugging Face says of a revision."""
        return self._huggingface_page

    def huggingface_tree(self, folder: str, first: int, count: int) -> tuple[bytes, bool]:
        """Return one page of Hugging Face's tree, and whether there are more."""
        entries = self.entries
        if folder:
            entries = [entry for entry in entries if entry.path.startswith(f"{folder}/")]
        page = [self._huggingface_line(entry) for entry in entries[first : first + count]]
        return json.dumps(page).encode(), first + count < len(entries)

    def _huggingface_line(self, entry: Entry) -> dict[str, Any]:
        line: dict[str, Any] = {"type": "file", "path": entry.path, "size": entry.size}
        line["oid"] = entry.git_sha1
        if entry.lfs:
            pointer = (
                "version https://git-lfs.github.com/spec/v1\n"
                f"oid sha256:{entry.sha256}\nsize {entry.size}\n"
            ).encode()
            line["oid"] = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
            if self.hashes:
                line["lfs"] = {
                    "oid": entry.sha256,
                    "size": entry.size,
                    "pointerSize": len(pointer),
                }
        return line

    def etag(self, path: str) -> str:
        """Return Hugging Face's name of the file's content."""
        content = self.files[path]
        sha256, git_sha1 = content.hashes()
        return sha256 if Entry(path, content.size, sha256, git_sha1).lfs else git_sha1


def _children(lines: list[dict[str, Any]], prefix: str) -> list[dict[str, Any]]:
    """Return the files of one folder, and its folders as ``tree`` entries."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        name, slash, _rest = line["Path"][len(prefix) :].partition("/")
        path = prefix + name
        if slash:
            found[path] = {"Path": path, "Name": name, "Type": "tree", "Size": 0}
        else:
            found[path] = line
    return list(found.values())


def _modelscope(lines: Any) -> bytes:
    files = list(lines)
    return json.dumps({"Code": 200, "Success": True, "Data": {"Files": files}}).encode()
