"""What mkdocs.yml adds to the Markdown under docs/ when the site is built.

- `<!-- configs: GROUP -->` becomes a table of configs/GROUP and the files themselves, folded;
  `<!-- configs: NAME.yaml -->` that file.
- `<!-- source: package.module.name -->` becomes that function's or class's code, so that a page
  never shows code that has changed since.
- `` `package.module.name` `` becomes a link where reference/python.md documents that name.
- `<!-- file: NAME -->` before a block becomes its title; other comments of the tests are left out.
- `$$formula$$` and `$formula$` become MathML, which browsers draw without a script.
- Pages that live elsewhere in the repository (change log, model card) get a place on the site.

Only the standard library is imported here, so that the tests can use the functions without mkdocs.
"""

from __future__ import annotations

import ast
import functools
import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("selfflow_wm", "robotics", "eval")
FENCE = re.compile(r"^(?P<ticks>```+|~~~+).*?^(?P=ticks)[ \t]*$", re.MULTILINE | re.DOTALL)
CONFIGS = re.compile(r"^<!-- configs: (\S+) -->$", re.MULTILINE)
SOURCE = re.compile(r"^<!-- source: (\S+) -->$", re.MULTILINE)
WRITTEN = re.compile(r"^<!-- file: (\S+) -->\n+```(\w+)$", re.MULTILINE)
TESTED = re.compile(r"^ *<!-- (?:test|no test|setup)\b.*?-->\n", re.MULTILINE | re.DOTALL)
NAME = re.compile(rf"`((?:{'|'.join(PACKAGES)})(?:\.\w+)+)`")
FORMULA = re.compile(r"\$\$(?P<block>[^$]+)\$\$|(?<![\\$\w])\$(?P<inline>[^$\n]+)\$(?![\w$])")
ELSEWHERE = {
    "reference/changelog.md": ROOT / "CHANGELOG.md",
    "reference/model-card.md": ROOT / "checkpoints" / "README.md",
}
"""Page of the site -> file of the repository."""
ELSEWHERE_LINK = re.compile(r"\]\((?:\.\./)+(CHANGELOG\.md|checkpoints/README\.md)")
"""Such a file as pages link to it, so that the link works in the repository too."""


# --- names in the code ----------------------------------------------------------------------


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _module(parts: list[str]) -> Path | None:
    """The file of a module; a package's is its __init__.py, or its folder where it has none."""
    folder = ROOT.joinpath(*parts)
    for path in (folder.with_suffix(".py"), folder / "__init__.py", folder):
        if path.is_file() or (path.is_dir() and any(path.glob("*.py"))):
            return path
    return None


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    found = [target for target in targets if target is not None]
    flat = [e for t in found for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
    return [e.attr if isinstance(e, ast.Attribute) else getattr(e, "id", "") for e in flat]


def find(name: str) -> tuple[Path, Any, list[ast.stmt]] | None:
    """The file, node and enclosing body of a dotted name; None where there is no such thing.

    name: of a module, or of what a module defines or imports, as `package.module.Class.method`.
    """
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        path = _module(parts[:cut])
        if path is None:
            continue
        if path.is_dir():
            return (path, ast.Module([], []), []) if cut == len(parts) else None
        node: Any = _tree(path)
        body: list[ast.stmt] = []
        for part in parts[cut:]:
            body = list(getattr(node, "body", []))
            if isinstance(node, ast.ClassDef):  # what methods set counts as the class's
                body += [line for line in ast.walk(node) if isinstance(line, ast.Assign)]
            match = [child for child in body if part in _names(child)]
            if not match:
                return None
            node = match[0]
        return path, node, body
    return None


def has_docstring(name: str) -> bool:
    """Whether the name is defined where it says, with a docstring (a string below, for a value)."""
    found = find(name)
    if found is None:
        return False
    _, node, body = found
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return ast.get_docstring(node) is not None
    if node not in body or isinstance(node, ast.Import | ast.ImportFrom):
        return False
    after = body[body.index(node) + 1 :][:1]
    return bool(after) and isinstance(getattr(after[0], "value", None), ast.Constant)


def source(name: str) -> str:
    """The code of a function or class, without its docstring; ValueError where there is none."""
    found = find(name)
    if found is None or not hasattr(found[1], "end_lineno"):
        raise ValueError(
            f"<!-- source: {name} -->: expected a function or class of {', '.join(PACKAGES)}, got "
            "no such name; correct it"
        )
    path, node, _ = found
    lines = path.read_text().splitlines()
    skip: set[int] = set()
    if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
        skip = set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    begin = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    kept = [lines[n - 1] for n in range(begin, (node.end_lineno or 0) + 1) if n not in skip]
    indent = len(kept[0]) - len(kept[0].lstrip())
    return "\n".join(line[indent:] for line in kept)


# --- pieces of pages ------------------------------------------------------------------------


def _summary(path: Path) -> str:
    """The first comment of a yaml, in one line."""
    lines = []
    for line in path.read_text().splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    text = " ".join(lines)
    return re.split(r"(?<=[.:])\s", text, maxsplit=1)[0].rstrip(":") if text else ""


def config_files(group: str) -> list[Path]:
    """The yamls of a folder of configs/, or the one file of that name."""
    path = ROOT / "configs" / group
    files = [path] if path.suffix == ".yaml" else sorted(path.rglob("*.yaml"))
    if not files or not files[0].is_file():
        raise ValueError(
            f"<!-- configs: {group} -->: expected a folder or yaml of configs/, got none of that "
            "name; correct it"
        )
    return files


def configs(group: str) -> str:
    """Markdown: which files a group has, what each is, and their text, folded."""
    files = config_files(group)
    names = {path: str(path.relative_to(ROOT / "configs").with_suffix("")) for path in files}
    parts = []
    if len(files) > 1:
        rows = [f"| `{names[path]}` | {_summary(path) or '–'} |" for path in files]
        parts.append("\n".join(["| file | what it is |", "|---|---|", *rows]))
    for path in files:
        text = "".join(f"    {line}\n" for line in path.read_text().splitlines())
        fold = "???" if len(files) > 1 else "???+"
        parts.append(f'{fold} note "configs/{names[path]}.yaml"\n    ```yaml\n{text}    ```')
    return "\n\n".join(parts)


def _formula(match: re.Match[str]) -> str:
    from latex2mathml.converter import convert

    block = match["block"]
    text = convert((block or match["inline"]).strip(), display="block" if block else "inline")
    # A line that begins with <math> would be a paragraph of its own.
    return f"\n\n{text}\n\n" if block else f"<span>{text}</span>"


def documented(page: str) -> tuple[str, ...]:
    """The modules that a page of the Python reference documents, by its `:::` lines."""
    return tuple(re.findall(r"^::: (\S+)$", page, re.MULTILINE))


def link_names(text: str, modules: tuple[str, ...]) -> str:
    """Backticked names of documented modules, as links to where they are documented."""

    def link(match: re.Match[str]) -> str:
        name = match[1]
        inside = any(name == m or name.startswith(m + ".") for m in modules)
        return f"[`{name}`][{name}]" if inside and has_docstring(name) else match[0]

    return NAME.sub(link, text)


def outside_fences(text: str, change: Any) -> str:
    """`change` applied to what is not a fenced block of code."""
    parts, last = [], 0
    for fence in FENCE.finditer(text):
        parts += [change(text[last : fence.start()]), fence[0]]
        last = fence.end()
    return "".join([*parts, change(text[last:])])


def rewrite(text: str, modules: tuple[str, ...]) -> str:
    """A page's Markdown as the site has it."""
    text = CONFIGS.sub(lambda match: configs(match[1]), text)
    text = WRITTEN.sub(r'```\2 title="\1"', text)
    text = TESTED.sub("", text)
    text = SOURCE.sub(lambda match: f"```python\n{source(match[1])}\n```", text)

    def prose(part: str) -> str:
        # Formulas first: none of them holds backticks, and code may hold dollars.
        pieces = re.split(r"(`[^`\n]+`)", part)
        pieces[::2] = [FORMULA.sub(_formula, piece) for piece in pieces[::2]]
        return link_names("".join(pieces), modules)

    return outside_fences(text, prose)


# --- mkdocs ---------------------------------------------------------------------------------


def on_files(files: Any, config: Any) -> Any:
    """Give pages from elsewhere in the repository their place on the site."""
    from mkdocs.structure.files import File

    for place, path in ELSEWHERE.items():
        text = path.read_text().replace("](../docs/", "](../")
        files.append(File.generated(config, place, content=text))
    return files


def _place(name: str, page: str) -> str:
    """The link from a page to where a file from elsewhere in the repository stands on the site."""
    place = next(place for place, path in ELSEWHERE.items() if path == ROOT / name)
    return os.path.relpath(place, os.path.dirname(page))


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrite every page but the Python reference itself, whose links are its own."""
    here = page.file.src_uri
    markdown = ELSEWHERE_LINK.sub(lambda match: f"]({_place(match[1], here)}", markdown)
    reference = Path(config["docs_dir"], "reference", "python.md").read_text()
    if here == "reference/python.md":
        return markdown
    return rewrite(markdown, documented(reference))
