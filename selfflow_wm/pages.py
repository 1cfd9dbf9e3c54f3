"""HTML pages that need no other file: templates, their common style, pictures and videos inside."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def render(
    template: Path, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any
) -> str:
    """A page from `template`, which may include what lies beside it or here (style.css.j2).

    Text from outside is escaped, and a value that is missing is an error.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= dict(filters or {})
    return environment.get_template(template.name).render(**values)


def embedded(path: Path) -> str | None:
    """A file as base64, to be put into a page; None where it is not there."""
    return base64.b64encode(path.read_bytes()).decode() if path.is_file() else None
