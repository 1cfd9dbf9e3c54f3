"""`run_made.py OUT MINUTES BEHAVIOUR`: a Runner over two made-up stages, of which the first
behaves so and the second is fine."""

import sys
from pathlib import Path

from benchmarks.gpu import runner
from benchmarks.gpu.stages import Stage

out, minutes, behaviour = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
runner.GRACE, runner.CLOSING = 0.5, 0.3
settings = {"tiny": True, "device": "cpu", "words": [behaviour], "resume": None}
stages = [Stage("one", "does it?", 1, (), module="made_stages")]
stages += [Stage("two", "and then?", 1, (), module="made_fine")]
sys.exit(runner.Runner(out, minutes, stages, settings, str(Path(__file__).parent)).run())
