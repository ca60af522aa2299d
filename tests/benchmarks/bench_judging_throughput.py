"""Candidates judged per minute, and where the time goes: right and distinct kernels of one operator, built ahead by as many threads as
there are processors, judged one after the other. usage: bench_judging_throughput.py [--candidates 40] [--json FILE]"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from kernelevolve_lab import paths
from kernelevolve_lab.harness.judge import COMPILED, Judge
from kernelevolve_lab.operators.loading import ref_of
from kernelevolve_lab.records import Candidate
from kernelevolve_lab.targets import measure, resolve

SOURCE = """#include "kel.h"
#include <cmath>
extern "C" void kernel(const kel::Tensor* in, kel::Tensor* out, kel::Stream stream) {
    const float* x = in[0].ptr<float>(); const float* r = in[1].ptr<float>(); const float* w = in[2].ptr<float>();
    float* y = out[0].ptr<float>(); float* h = out[1].ptr<float>();
    const long rows = in[0].size(0), cols = in[0].size(1);
    #pragma omp parallel for num_threads(stream.threads) schedule(static, %CHUNK%)
    for (long i = 0; i < rows; ++i) {
        float sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (long j = 0; j < cols; ++j) { const float v = x[i * cols + j] + r[i * cols + j]; h[i * cols + j] = v; sum += v * v; }
        const float scale = 1.0f / std::sqrt(sum / cols + 1e-6f);
        #pragma omp simd
        for (long j = 0; j < cols; ++j) y[i * cols + j] = h[i * cols + j] * scale * w[j];
    }
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    candidates = [Candidate(language="cpp", source=SOURCE.replace("%CHUNK%", str(n + 1))) for n in range(arguments.candidates)]
    target = measure(resolve("cpu"), paths.cache_dir())
    with TemporaryDirectory() as scratch, Judge(ref_of("rms_norm"), target, cache=Path(scratch)) as judge:
        judge.baselines(COMPILED)
        started = time.perf_counter()
        stages: Counter[str] = Counter()
        verdicts: Counter[str] = Counter()
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as builders:
            builds = [builders.submit(judge.build, candidate) for candidate in candidates]
            for candidate, build in zip(candidates, builds, strict=True):
                found = judge.evaluate(candidate, build.result())
                stages.update(found.stage_seconds)
                verdicts[found.verdict.value] += 1
        seconds = time.perf_counter() - started
    result = {
        "operator": "rms_norm",
        "candidates": len(candidates),
        "per_minute": round(60 * len(candidates) / seconds, 1),
        "seconds_each": {name: round(value / len(candidates), 3) for name, value in stages.items()},
        "wall_each": round(seconds / len(candidates), 3),
        "verdicts": dict(verdicts),
        "processors": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
