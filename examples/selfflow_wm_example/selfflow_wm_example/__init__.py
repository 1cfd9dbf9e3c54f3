"""Parts for selfflow-wm that live in a package of their own; pyproject.toml names them."""

from pathlib import Path

MY_ARM = Path(__file__).with_name("my_arm.yaml")
"""How this laboratory's recordings are read."""
