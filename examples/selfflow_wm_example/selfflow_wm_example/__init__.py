"""Extensions of selfflow-wm in a separate package; pyproject.toml registers them."""

from pathlib import Path

MY_ARM = Path(__file__).with_name("my_arm.yaml")
"""How to read the recordings of this robot."""
