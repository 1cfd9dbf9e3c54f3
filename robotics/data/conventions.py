"""What a robot's states and actions mean to a model, in words, and in what two robots differ."""

from __future__ import annotations

from robotics.embodiment.coding import Coder
from robotics.embodiment.parts import Part
from robotics.embodiment.robot import Robot

_LENGTH, _ANGLE = ("m", "cm", "mm"), ("rad", "deg")


def meanings(robot: Robot) -> dict[str, str]:
    """Place in the table ("action.gripper", "cameras.wrist", ...) -> what the model gets of it.

    Units, ranges, senses and forms that the coder turns into the same values are no difference.
    """
    coder = Coder(robot)
    found = {"embodiment": robot.embodiment}
    for group in ("state", "action"):
        fields = coder.fields(group)
        for part in getattr(robot, group):
            place = coder.slices(group)[part.name]
            names = [row.name.removeprefix(f"{part.name}.") for row in fields[place]]
            words = [f"{part.kind} ({', '.join(names)})", _unit(part)]
            if group == "action":
                words.append(coder.mode(part.name))
                words += ["against the commanded"] if part.against == "commanded" else []
                words += ["any width"] if part.continuous else []
            elif part.model.sign is not None:
                words.append(f"sign {list(part.model.sign)}")
            if part.kind in ("position", "rotation"):
                words.append(f"axes of the {part.frame}")
            if part.model.normalise is not None:
                words.append(f"normalised by {part.model.normalise}")
            found[f"{group}.{part.name}"] = ", ".join(word for word in words if word)
    found["terminate"] = "predicted" if robot.terminate else "not predicted"
    return found


def _unit(part: Part) -> str:
    if part.kind in ("gripper", "rotation"):
        return ""
    unit = str(part.unit)
    return "in m" if unit in _LENGTH else "in rad" if unit in _ANGLE else "in no unit"


def differences(one: Robot, other: Robot) -> list[str]:
    """In what two robots differ for a model, a line each; empty: they are one to it."""
    mine, theirs = meanings(one), meanings(other)
    lines = []
    for place in dict.fromkeys([*mine, *theirs]):
        first, second = mine.get(place, "none"), theirs.get(place, "none")
        if first != second:
            lines.append(f"{place}: {first} against {second}")
    if list(mine) != list(theirs) and not lines:
        lines.append(f"order of the parts: {', '.join(mine)} against {', '.join(theirs)}")
    return lines
