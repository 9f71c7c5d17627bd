"""What TensorFlow Lite's benchmark_model writes, understood.

The texts here are written after its sources and after logs that people have published; none was made by a run of ours.
"""

import pytest

from edgeport import benchmark_model
from edgeport.errors import DeviceError

LOG = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Num threads: [1]
INFO: Loaded model /data/local/tmp/m.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: The input model file size (MB): 2.6109
INFO: Initialized session in 11.951ms.
INFO: Running benchmark for at least 4 iterations and at least 0.001 seconds but terminate if exceeding 150 seconds.
INFO: count=4 first=8711 curr=5162 min=5162 max=8711 avg=5814.5 std=1147 p5=5162 median=5196 p95=8711

INFO: Running benchmark for at least 16 iterations and at least 0.001 seconds but terminate if exceeding 150 seconds.
INFO: count=16 first=5216 curr=4978 min=4908 max=6861 avg=5.37e+03 std=607 p5=4962 median=5189 p95=6862

INFO: Inference timings in us: Init: 11951, First inference: 8711, Warmup (avg): 5814.5, Inference (avg): 5.37e+03
INFO: Memory footprint delta from the start of the tool (MB): init=4.21094 overall=46.0859
"""
PROFILE = """\
Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
node type, start, first, avg_ms, %, cdf%, mem KB, times called, name
ModifyGraphWithDelegate, 0, 1.2, 1.2, 90%, 90%, 1024, 1, ModifyGraphWithDelegate/0
AllocateTensors, 1.2, 0.1, 0.1, 10%, 100%, 0, 2, AllocateTensors/0

Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
node type, start, first, avg_ms, %, cdf%, mem KB, times called, name
TfLiteXNNPackDelegate, 0, 4.5, 4.4, 88%, 88%, 0, 1, [a, b]:12
SOFTMAX, 4.5, 0.6, 0.5, 12%, 100%, 0, 1, [StatefulPartitionedCall:0]:11

============================== Top by Computation Time ==============================
node type, start, first, avg_ms, %, cdf%, mem KB, times called, name
TfLiteXNNPackDelegate, 0, 4.5, 4.4, 88%, 88%, 0, 1, [a, b]:12

Number of nodes executed: 2
============================== Summary by node type ==============================
node type, count, avg_ms, avg %, cdf %, mem KB, times called
TfLiteXNNPackDelegate, 1, 4.4, 88%, 88%, 0, 1
SOFTMAX, 1, 0.5, 12%, 100%, 0, 1

Timings (microseconds): count=16 first=5100 curr=4900 min=4900 max=5100 avg=4950 std=60
Memory (bytes): count=0
2 nodes observed

Delegate internal:
============================== Run Order ==============================
node type, start, first, avg_ms, %, cdf%, mem KB, times called, name
Convolution (NHWC, QC8) IGEMM, 0, 3.1, 3, 70%, 70%, 0, 1, Delegate/Convolution (NHWC, QC8) IGEMM:0
Fully Connected (NC, QS8, QC8W) GEMM, 0, 0.7, 7e-01, 30%, 100%, 0, 2, Delegate/Fully Connected (NC, QS8, QC8W) GEMM:1

Timings (microseconds): count=16 first=3800 curr=3700 min=3700 max=3800 avg=3750 std=20
"""


def test_a_launch_is_told_by_the_median_of_its_timed_runs() -> None:
    told = benchmark_model.summary(LOG)
    assert (told.init, told.first, told.typical, told.mean) == (11951, 8711, 5189, 5370)


def test_an_older_program_tells_a_mean_alone() -> None:
    older = "\n".join(line.partition(" p5=")[0] for line in LOG.splitlines())
    assert benchmark_model.summary(older).typical == 5370


def test_a_launch_of_one_run_is_that_run() -> None:
    one = "count=1 curr=1357602\nInference timings in us: Init: 5, First inference: 7, Warmup (avg): 1"
    assert benchmark_model.summary(one).typical == 1357602


@pytest.mark.parametrize(
    "log", ["", "count=x avg=y", LOG.replace("Inference timings", "Something else").replace("Init:", "")]
)
def test_a_log_without_times_is_an_error(log: str) -> None:
    with pytest.raises(DeviceError, match="told no times"):
        benchmark_model.summary(log)


def test_operators_of_the_runs_are_read_whatever_commas_their_names_hold() -> None:
    rows = benchmark_model.operators(PROFILE)
    assert [(row.name, row.source, row.index, row.us) for row in rows] == [
        ("SOFTMAX", "runtime", 11, (500.0,)),
        ("Convolution (NHWC, QC8) IGEMM", "delegate", 0, (3000.0,)),
        ("Fully Connected (NC, QS8, QC8W) GEMM", "delegate", 1, (1400.0,)),
    ]


def test_a_delegate_that_tells_nothing_of_its_inside_stays_one_operator() -> None:
    outside = PROFILE.partition("Delegate internal")[0]
    assert [row.name for row in benchmark_model.operators(outside)] == ["TfLiteXNNPackDelegate", "SOFTMAX"]


def test_a_table_without_a_column_of_starts_is_read_by_its_header() -> None:
    newer = PROFILE.replace("node type, start, first", "node type, first").replace(", 0, 3.1, 3,", ", 3.1, 3,")
    assert ("Convolution (NHWC, QC8) IGEMM", (3000.0,)) in [(r.name, r.us) for r in benchmark_model.operators(newer)]


def test_what_is_no_profile_has_no_operators() -> None:
    assert benchmark_model.operators("no such file") == []
