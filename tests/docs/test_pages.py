"""Pages name what exists: files, headings, names in the code, commands, configurations."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from pages import DOCS, ROOT, blocks, pages

_spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "scripts" / "site_hooks.py")
assert _spec is not None and _spec.loader is not None
site = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(site)

ALL = [
    *pages(),
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "checkpoints" / "README.md",
]
LINK = re.compile(r"(?<!`)\[[^\[\]]*?(?:\[[^\]]*\][^\[\]]*?)?\]\(([^)\s]+)\)")
FILE = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|yaml|md|sh|j2|txt|in|lock|toml))`")
MADE = ("runs/", "data/", "samples/", "latents/", "my_", "OUT/", "DIR/", "weights/")
"""How paths begin that a reader's own commands make."""
each_page = pytest.mark.parametrize("page", ALL, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return site.FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """What its headings are called in links."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings]
    return {re.sub(r"[\s-]+", "-", heading) for heading in plain}


@each_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for link in LINK.findall(prose(page)):
        if re.match(r"\w+:", link):
            continue
        place, _, heading = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        made = DOCS in target.parents and str(target.relative_to(DOCS)) in site.ELSEWHERE
        if made:
            target = site.ELSEWHERE[str(target.relative_to(DOCS))]
        if not target.exists() or (heading and heading not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize(
    "page", [p for p in ALL if p.name != "CHANGELOG.md"], ids=lambda p: str(p.relative_to(ROOT))
)  # the change log also names what is gone
def test_names_of_the_code_exist(page: Path) -> None:
    text = page.read_text()
    named = site.NAME.findall(prose(page)) + site.SOURCE.findall(text) + list(site.documented(text))
    named = [name for name in named if not name.endswith(".py")]
    assert not [name for name in named if site.find(name) is None]
    assert not [path for path in FILE.findall(prose(page)) if missing(page, path)]


def missing(page: Path, path: str) -> bool:
    """Whether a path in backticks is none of the repository, of the page's folder or of a run."""
    places = (ROOT, page.parent, ROOT / "selfflow_wm", ROOT / "configs")
    return not path.startswith(MADE) and not any((place / path).exists() for place in places)


@each_page
def test_commands_exist(page: Path) -> None:
    called = re.findall(r"python -m ([a-z_]+(?:\.\w+)*)", page.read_text())
    ours = [name for name in called if name.split(".")[0] in (*site.PACKAGES, "benchmarks")]
    assert not [name for name in ours if site.find(name) is None]


def test_the_site_lists_every_page() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    written = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert listed == written | set(site.ELSEWHERE)


def test_every_configuration_is_on_the_page() -> None:
    text = (DOCS / "reference" / "configs.md").read_text()
    shown = {path for group in site.CONFIGS.findall(text) for path in site.config_files(group)}
    assert shown == set((ROOT / "configs").rglob("*.yaml"))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 8_000


def test_the_python_example_of_the_readme_is_run() -> None:
    assert [b for b in blocks(ROOT / "README.md") if b.language == "python" and b.tested]


def test_names_are_found_where_they_are_defined() -> None:
    assert site.find("selfflow_wm.flow.noising.interpolate")
    assert site.find("selfflow_wm.flow.noising.NoiseLevels.per_token")
    assert site.find("selfflow_wm.objective.SelfFlow")  # imported there
    assert site.find("eval.envs")  # a folder of modules
    for wrong in ("selfflow_wm.flow.noising.absent", "selfflow_wm.absent", "eval.envs.absent.x"):
        assert site.find(wrong) is None


def test_excerpts_are_the_code_without_its_docstring() -> None:
    assert site.source("selfflow_wm.flow.noising.velocity").splitlines()[-1] == (
        "    return noise - clean"
    )
    assert '"""' not in site.source("selfflow_wm.flow.noising.interpolate")
    with pytest.raises(ValueError):
        site.source("selfflow_wm.flow.noising.absent")


def test_only_prose_is_rewritten() -> None:
    name = "selfflow_wm.flow.noising.velocity"
    text = f"`{name}`\n\n```text\n`{name}`\n```\n"
    assert site.rewrite(text, ("selfflow_wm.flow.noising",)) == text.replace(
        f"`{name}`", f"[`{name}`][{name}]", 1
    )
