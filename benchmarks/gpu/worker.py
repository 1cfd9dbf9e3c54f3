"""One stage in a separate process: `python -m benchmarks.gpu.worker JOB.json`."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from benchmarks.gpu.record import Bench, OutOfTime

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def main() -> int:
    """The exit status: 0 done, 1 failed, 3 cut."""
    job = json.loads(Path(sys.argv[1]).read_text())
    if sys.platform == "linux":  # a killed parent must not leave a GPU busy
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)
        if os.getppid() != job["parent"]:  # the parent died before prctl
            return 3

    def stop(number: int, _frame: Any) -> None:
        raise OutOfTime(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, stop)
    # The parent gets it too and decides. Not SIG_IGN: commands started here would inherit that.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    bench = Bench(
        Path(job["results"]), Path(job["out"]), job["deadline"], job["settings"], job["before"]
    )
    bench.flush()
    try:
        if bench.device == "cuda":
            import torch

            bench.found["card"] = torch.cuda.get_device_name(0)
        importlib.import_module(job["module"]).run(bench)
    except OutOfTime:
        bench.flush()
        return 3
    except Exception:
        bench.found["traceback"] = traceback.format_exc()
        bench.flush()
        traceback.print_exc()
        return 1
    bench.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
