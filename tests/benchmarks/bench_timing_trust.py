"""Can the timings be believed? A kernel against itself must not come out faster or slower, and one slowed by 3 % must.

A/A: `--comparisons` comparisons of one kernel with itself, in two processes, exactly as a candidate is timed against a baseline. Counted:
how often the 95 % interval leaves 1 out (at most 5 % may), and how far the median ratio is from 1 (within 0.5 %). B/B+3 %: the same kernel
with 3 % more rows to do against the plain one; counted: how often the interval lies wholly on the right side (at least 90 %).

usage: bench_timing_trust.py [--comparisons 200] [--seconds 0.5] [--unsandboxed] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from kernelevolve_lab.harness import statistics
from kernelevolve_lab.harness.judge import Judge
from kernelevolve_lab.harness.policy import policy_for
from kernelevolve_lab.harness.processes import Processes
from kernelevolve_lab.harness.session import Session
from kernelevolve_lab.harness.settings import JudgeSettings
from kernelevolve_lab.harness.timing import CaseTimer, Limits, SessionContender
from kernelevolve_lab.languages.base import Build
from kernelevolve_lab.operators.loading import ref_of
from kernelevolve_lab.records import Candidate, Ratio
from kernelevolve_lab.targets import resolve

# One thread: the work is the same in every run, so what is measured is the harness, not the scheduler of OpenMP.
SOURCE = """#include "kel.h"
#include <cmath>
extern "C" void kernel(const kel::Tensor* in, kel::Tensor* out, kel::Stream) {
    const float* x = in[0].ptr<float>(); const float* w = in[1].ptr<float>(); const float* b = in[2].ptr<float>();
    float* y = out[0].ptr<float>();
    const long rows = in[0].size(0), cols = in[0].size(1), extra = rows * %PERCENT% / 100;
    for (long k = 0; k < rows + extra; ++k) {
        const long i = k % rows;
        float sum = 0, squares = 0;
        #pragma omp simd reduction(+ : sum, squares)
        for (long j = 0; j < cols; ++j) { sum += x[i * cols + j]; squares += x[i * cols + j] * x[i * cols + j]; }
        const float mean = sum / cols, scale = 1.0f / std::sqrt(squares / cols - mean * mean + 1e-5f);
        #pragma omp simd
        for (long j = 0; j < cols; ++j) y[i * cols + j] = (x[i * cols + j] - mean) * scale * w[j] + b[j];
    }
}
"""


def compared(judge: Judge, plain: Build, other: Build, comparisons: int, limits: Limits) -> list[Ratio]:
    """The speedup of `plain` over `other`, again and again, each time in fresh processes, as for a candidate."""
    works, language = judge._opened(), judge.language("cpp")
    case = works.visible[0]
    warm = works.pool.check(case, case.distribution)
    found = []
    for _ in range(comparisons):
        running: dict[str, Session] = {}

        def start(name: str, build: Build, running: dict[str, Session] = running) -> Session:
            if name in running:
                running[name].close()
            processes = Processes(judge._order, build, language, policy_for(judge.operator, ""))
            running[name] = session = processes.start(works)
            session.call([warm], 0, 30.0)
            return session

        first, second = start("first", plain), start("second", other)
        estimate = first.call([warm], 0, 30.0).reported[0] / 1e9
        contender = SessionContender(second, lambda start=start: start("second", other))
        timer = CaseTimer(
            first,
            lambda start=start: start("first", plain),
            works.reference,
            works.pool.timing(case),
            {"other": (contender, estimate)},
            estimate,
            limits,
            judge.settings,
            30.0,
        )
        found.append(statistics.paired_ratio(timer.run(lambda: False).ratios("other"), "other"))
        for session in running.values():
            session.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0.5, help="budget of one comparison")
    parser.add_argument("--unsandboxed", action="store_true", help="where no sandbox can be had")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    settings = JudgeSettings(compiled=False)
    limits = replace(Limits.of(settings, final=False), seconds=arguments.seconds, precision=0.002, clear_loss=0.0, max_rounds=400)
    with (
        TemporaryDirectory() as scratch,
        Judge(ref_of("layer_norm"), resolve("cpu"), cache=Path(scratch), unsandboxed=arguments.unsandboxed, settings=settings) as judge,
    ):
        plain, slower = (judge.build(Candidate(language="cpp", source=SOURCE.replace("%PERCENT%", percent))) for percent in ("0", "3"))
        same = compared(judge, plain, plain, arguments.comparisons, limits)
        apart = compared(judge, plain, slower, arguments.comparisons, limits)
    result = {
        "comparisons": arguments.comparisons,
        "seconds_each": arguments.seconds,
        "a_a_false_claims": sum(r.low > 1 or r.high < 1 for r in same) / len(same),
        "a_a_median_ratio": float(np.median([r.value for r in same])),
        "a_a_half_width": float(np.median([(r.high - r.low) / 2 for r in same])),
        "b_3_percent_found": sum(r.low > 1 for r in apart) / len(apart),
        "b_3_percent_median_ratio": float(np.median([r.value for r in apart])),
        "processors": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
