"""The stages: what each answers, what it needs, and how the minutes are shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

CORE = ("torch", "numpy", "einops", "safetensors", "jaxtyping", "hydra", "omegaconf", "PIL")
ROBOT = (*CORE, "scipy", "crc32c", "rich", "cv2", "simplejpeg")
DATA = (*ROBOT, "tensorflow_datasets", "google.protobuf", "tree", "attr")


@dataclass(frozen=True)
class Stage:
    """One stage; its module has a function `run(bench)`."""

    name: str
    question: str
    share: float
    """Of the minutes, relative to the other stages."""
    needs: tuple[str, ...]
    """Modules that have to be importable."""
    optional: bool = False
    """Only run when it is named."""
    module: str = ""

    @property
    def path(self) -> str:
        """Of the module: `benchmarks.gpu.<name>` where none is given."""
        return self.module or f"benchmarks.gpu.{self.name}"


STAGES = (
    Stage("machine", "what the card and its libraries are, and their limits", 4, CORE[:2]),
    Stage("right", "whether the GPU computes what the CPU does", 19, CORE),
    Stage("fast", "step time, FLOP use and memory of the paper's models", 42, CORE),
    Stage("why", "where a step's time goes", 9, CORE),
    Stage("robot", "milliseconds for a chunk of actions", 14, ROBOT),
    Stage("fed", "how long a step waits for its data", 12, DATA),
    Stage(
        "train",
        "success rates of twins trained on this machine",
        100,
        (*DATA, "gymnasium", "mujoco", "OpenGL"),
        optional=True,
    ),
)
"""Most important first: when time runs out, the last are missed."""

DEFAULT = tuple(stage.name for stage in STAGES if not stage.optional)


def chosen(words: str | None) -> list[Stage]:
    """The stages that `--stages a,b` names, most important first; ValueError for an unknown one."""
    wanted = DEFAULT if words is None else tuple(filter(None, words.split(",")))
    known = [stage.name for stage in STAGES]
    unknown = [name for name in dict.fromkeys(wanted) if name not in known]
    if unknown or not wanted:
        near = get_close_matches(unknown[0], known, 1) if unknown else []
        remedy = f"write {near[0]}" if near else "correct --stages"
        raise ValueError(
            f"stages: expected names out of {', '.join(known)}, got "
            f"{', '.join(map(repr, unknown)) or 'none'}; {remedy}"
        )
    return [stage for stage in STAGES if stage.name in wanted]


def budgets(stages: Sequence[Stage], seconds: float) -> dict[str, float]:
    """Seconds for each of the stages that are left, by their shares."""
    total = sum(stage.share for stage in stages)
    return {stage.name: seconds * stage.share / total for stage in stages}
