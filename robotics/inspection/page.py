"""An examination as one HTML page that needs no other file."""

from __future__ import annotations

from pathlib import Path

from robotics.inspection import contents, plots, tables
from robotics.inspection.examination import Examination
from robotics.inspection.groups import ranges
from robotics.inspection.players import players
from selfflow_wm import pages


def render(examined: Examination) -> str:
    """The page's text."""
    result, shown = examined.result, examined.extra.get("shown")
    translation = next((row for row in examined.motions if row.kind == "position"), None)
    pictures = [
        ("Episodes and instructions", plots.lengths(examined), ""),
        (
            "Which convention explains the motion",
            plots.explained(examined.motions),
            "Blue: as specified. Each bar: the share of the measured motion of a step that the "
            "commands explain when read in this way, with one gain fitted.",
        ),
        ("Commanded and measured translation", plots.scatter(examined, translation), ""),
        ("Gripper", plots.gripper_timeline(examined), "Stored values, step by step."),
        (
            "Values as stored",
            plots.histograms(examined),
            "Counts, linear to 10 and logarithmic above. Red: 1% and 99% quantiles.",
        ),
    ]
    return pages.render(
        Path(__file__).with_name("page.html.j2"),
        {"ranges": ranges},
        title=f"{str(examined.directory).rstrip('/').rsplit('/', 1)[-1]}, {examined.split}",
        directory=str(examined.directory),
        headline=examined.headline,
        totals=tables.totals(examined),
        state=("good", "bad", "open")[examined.exit_code],
        facts=tables.facts(examined),
        cards=[row for row in examined.findings if row.severity != "info"],
        remarks=[row for row in examined.findings if row.severity == "info"],
        players=players(examined),
        watch=shown.watch if shown else (),
        split=examined.split.partition("[")[0],
        dimensions=examined.dimensions,
        cameras=tables.camera_rows(examined),
        verdicts=examined.verdicts,
        strips=plots.strips(result),
        pictures=[row for row in pictures if row[1]],
        columns=tables.COLUMNS,
        statistics=tables.statistics_rows(examined),
        instructions=contents.instruction_counts(result, examined.robot).most_common(50),
        schema=tables.schema_rows(examined),
        proposed=examined.proposed,
    )
