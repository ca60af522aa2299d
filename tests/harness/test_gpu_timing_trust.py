"""Reading what Nsight Compute writes; the text is from an H200, ncu 2025.3.1, with all but three columns left out."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from gpu_timing_trust import durations

RECORDED = """==PROF== Connected to process 898 (/usr/bin/python3.12)
done
==PROF== Disconnected from process 898
"ID","Kernel Name","gpu__time_duration.sum"
"","","ns"
"0","k_copy","2,368"
"1","k_copy","249,984"
"2","nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_NNT","176,704"
"""


def test_durations_are_read_by_launch():
    assert durations(RECORDED) == [("k_copy", 2368.0), ("k_copy", 249984.0), ("nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_NNT", 176704.0)]


def test_a_profiler_that_may_not_read_counters_tells_nothing():
    assert durations("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters\n") == []
