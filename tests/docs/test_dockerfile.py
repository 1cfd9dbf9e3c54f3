"""The Dockerfile against what it relies on, as far as that can be told without building it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
DOCKERFILE = DOCKERFILE.replace("\\\n", " ")
BOOTSTRAP = (ROOT / "scripts" / "bootstrap.sh").read_text().replace("\\\n", " ")


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


def test_the_libraries_for_rendering_are_those_of_the_bootstrap() -> None:
    (wanted,) = re.findall(r'system_packages "MuJoCo cannot render[^"]*"\s+(.*)', BOOTSTRAP)
    (installed,) = re.findall(r"install -y --no-install-recommends (.*?)&&", DOCKERFILE)
    assert set(wanted.split()) <= set(installed.split())


def test_the_python_is_one_that_the_bootstrap_takes() -> None:
    (minor,) = re.findall(r"^FROM python:3\.(\d+)", DOCKERFILE, re.MULTILINE)
    low, high = (int(re.findall(rf"^{n}_MINOR=(\d+)", BOOTSTRAP, re.M)[0]) for n in ("MIN", "MAX"))
    assert low <= int(minor) <= high


def test_what_the_environment_depends_on_is_copied_before_it_is_made() -> None:
    before = DOCKERFILE[: DOCKERFILE.index("./run setup")]
    copied = " ".join(re.findall(r"^COPY (.*)$", before, re.MULTILINE)).split()
    sources = {name for name in copied if not name.endswith("/")}
    assert {"run", "scripts/bootstrap.sh", "requirements.lock", "pyproject.toml"} <= sources
    assert not [name for name in sources if not (ROOT / name).is_file()]
    project = (ROOT / "pyproject.toml").read_text()
    licences = re.findall(r'^license-files = \["(.*)"\]', project, re.MULTILINE)
    assert set(licences) <= sources


def test_it_runs_commands_that_exist() -> None:
    usage = (ROOT / "run").read_text()
    (default,) = re.findall(r'^CMD \["(\w+)"\]', DOCKERFILE, re.MULTILINE)
    assert instructions("ENTRYPOINT") == ['["./run"]']
    for command in {default, *re.findall(r"\./run (\w+)", DOCKERFILE)}:
        assert re.search(rf"^  {command} ", usage, re.MULTILINE)


def test_environments_and_results_stay_out_of_the_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert {".git", ".venv*", "runs", "data", "site"} <= set(ignored)
