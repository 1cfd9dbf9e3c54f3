"""What pages tell readers to run is run: every tested block of a page, in order, at a tiny size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from pages import DOCS, ROOT, RUN, Block, blocks, pages

TESTED = [page for page in pages() if any(block.tested for block in blocks(page))]


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty short episodes, of which one is held out; pages take a copy of them."""
    folder = tmp_path_factory.mktemp("demonstrations")
    line = "python -m eval.collect --task close_drawer --episodes 20 --workers 1 --out data\n"
    done = run(Block(Path("fixture"), 1, "bash", line, True), folder)
    assert done.returncode == 0, done.stderr
    return folder / "data"


def run(block: Block, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The block's process, in `folder`, with the repository's packages."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
        "COLUMNS": "120",
    }
    command = ["bash", "-euo", "pipefail"] if block.language == "bash" else [sys.executable, "-"]
    return subprocess.run(
        command, input=block.code, cwd=folder, env=environment | variables, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize("page", TESTED, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_in_order(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    variables = {}
    if any("$DEMONSTRATIONS" in block.code for block in blocks(page)):
        variables["DEMONSTRATIONS"] = str(request.getfixturevalue("demonstrations"))
    for name in ("checkpoints", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    for block in blocks(page):
        if block.file:
            (tmp_path / block.file).write_text(block.code)
        elif block.tested:
            done = run(block, tmp_path, **variables)
            assert done.returncode == 0, (
                f"{page.relative_to(ROOT)}:{block.line} failed:\n{block.code}\n"
                f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            )


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_not_run_says_why(page: Path) -> None:
    asked = page.parent in (DOCS / "tutorials", DOCS / "how-to") or page.parent == ROOT
    silent = [
        block.line
        for block in blocks(page)
        if asked and block.language in RUN and not block.tested and not block.reason
    ]
    assert not silent, "lines of blocks with neither a test nor a reason"


def test_a_failing_block_fails(tmp_path: Path) -> None:
    for language, code in (("bash", "false | true\n"), ("python", "assert False\n")):
        assert run(Block(Path("x.md"), 1, language, code, True), tmp_path).returncode != 0


def test_comments_decide_what_is_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- setup\nmkdir data\n-->\n\n"
        "<!-- test\n--episodes 450 => --episodes 2\n-->\n```bash\n"
        "run --episodes 450\n```\n\n<!-- no test: hours -->\n```bash\nwait\n```\n\n"
        "<!-- file: a.py -->\n```python\ny\n```\n\n```bash\nneither\n```\n\n"
        "- item\n\n    <!-- test -->\n    ```python\n    x\n    ```\n"
    )
    setup, changed, reasoned, written, silent, listed = blocks(page)
    assert (setup.code, setup.tested) == ("mkdir data\n", True)
    assert (changed.code, changed.tested) == ("run --episodes 2\n", True)
    assert (reasoned.tested, reasoned.reason) == (False, "hours")
    assert (written.file, written.code) == ("a.py", "y\n")
    assert (silent.tested, silent.reason) == (False, None)
    assert (listed.language, listed.code, listed.tested) == ("python", "x\n", True)


def test_a_replacement_has_to_occur(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- test\n--episodes 9 => --episodes 2\n-->\n```bash\nrun --episodes 5\n```\n"
    )
    with pytest.raises(ValueError, match="page.md:1"):
        blocks(page)
