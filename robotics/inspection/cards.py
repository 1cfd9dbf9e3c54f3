"""What a contradiction means for a policy, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robotics.inspection.draft import Question, flow
from robotics.inspection.findings import Finding
from robotics.inspection.fits import CONTRADICTS, Verdict
from selfflow_wm.nesting import nested

WHY = {
    "gripper.sense": "The policy would open where it should close.",
    "gripper.mode": "Held commands and switches are different things: the gripper would let go, or "
    "never move.",
    "gripper.range": "Open and closed would be taken for something between them.",
    "lag": "The policy would learn to do what it has just done.",
    "sign": "The robot would move the wrong way along these axes.",
    "scale": "Motions would be scaled by the factor wherever they meet measured poses or another "
    "robot.",
    "unit": "Poses are composed in m and rad: angles and distances would be nonsense.",
    "mode": "Targets read as changes, or changes as targets, drive the robot away.",
    "frame": "The robot would move about other axes as soon as its tool is turned.",
    "form": "Rotations would be other ones than the robot made.",
    "state_form": "Measured rotations would be other ones than the robot had.",
    "quaternion": "These values are no rotation.",
    "kind": "A policy would compose them as what they are not.",
    "axes": "The robot would move along other axes.",
}
_TITLES = {
    "gripper.sense": "{place} is inverted against the measured gripper",
    "gripper.mode": "{place} is {found}, not {stated}",
    "gripper.range": "{place} goes from {found}, not {stated}",
    "sign": "{place} has a wrong sign",
    "scale": "{place} has another unit or factor: {found}",
    "unit": "{place} is in {found}, not {stated}",
    "mode": "{place} is {found}, not {stated}",
    "frame": "{place} is about the {found} frame, not the {stated} frame",
    "form": "{place} is {found}, not {stated}",
    "state_form": "{place} is measured as {found}, not {stated}",
    "quaternion": "{place} is no quaternion",
    "kind": "{place} is not {stated}: {found}",
    "axes": "{place} and the measured pose have different axes",
}


def lines(entries: Sequence[tuple[str, Any]]) -> str:
    """Entries as lines of a table: "action: {rotation: {unit: deg}}"."""
    tree = nested(dict(entries), ".")
    return "; ".join(f"{key}: {flow(value)}" for key, value in tree.items())


def contradiction(row: Verdict) -> Finding:
    """A convention that the data contradict."""
    place = row.topic
    title = _TITLES.get(row.code, "{place}: {found}, not {stated}")
    if row.code == "lag":
        late = next((int(value) for _, value in row.entries), 0)  # pyright: ignore
        steps = f"{abs(late)} step{'s' * (abs(late) != 1)}"
        title = f"actions are recorded {steps} {'late' if late > 0 else 'early'}"
    line = lines(row.entries)
    remedy = "Use proposed.yaml, which corrects it." if line else ""
    if row.code == "axes":
        remedy = "Convert commands or poses into the same axes when the data are converted."
    elif not line:
        remedy = "Read these values as what they are; leave --spec out to have a table drafted."
    text = f"{row.question}: the table has {row.stated}, the data say {row.found}. {row.numbers}."
    codes = {"gripper.sense": "gripper.inverted", "lag": "steps.lag"}
    return Finding(
        "error", place, text, remedy, codes.get(row.code, row.code),
        title.format(place=place, found=row.found, stated=row.stated), WHY.get(row.code, ""),
        line, weight=5.0 if row.code in ("gripper.sense", "lag", "kind") else 1.0,
    )  # fmt: skip


def asked(question: Question) -> Finding:
    """An open question."""
    head, _, rest = question.text.partition("? ")
    remedy = "State one in the table and run this again with --spec: " + " | ".join(question.lines)
    return Finding(
        "question", question.place or question.code, rest or question.text, remedy,
        f"question.{question.code}", head + ("?" if rest else ""), question.why,
        question.lines[0] if question.lines else "",
        weight={"action": 3.0, "arm": 2.0, "kind": 2.0}.get(question.code, 1.0),
        details={"lines": list(question.lines)},
    )  # fmt: skip


def contradictions(verdicts: Sequence[Verdict]) -> list[Finding]:
    """One finding a contradiction; what several tests say alike is said once."""
    found: dict[tuple[str, str, str], Finding] = {}
    for row in verdicts:
        if row.answer == CONTRADICTS:
            card = contradiction(row)
            key = (card.topic.partition(".")[2], card.code, card.line or card.title)
            found.setdefault(key, card)
    return list(found.values())
