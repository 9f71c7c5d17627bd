"""Holds edgeport's measurements against the runtimes' own tools, and its op times against its own whole runs.

    python scripts/check_measurement.py FOLDER [--rounds 40] [--core 1]

FOLDER is an export (edgeport export MODEL -o FOLDER). For each file, edgeport's agent and the runtime's own tool
(litert-benchmark from the ai-edge-litert wheel; a plain loop over onnxruntime's Python API) run as fresh processes in
turn, on one core, in mirrored order (A B B A ...), with as many runs each; the ratio is taken round by round, so that
what slows the machine for a while slows both. Printed: the Hodges-Lehmann estimate of the ratio of medians, edgeport to
tool, with its 95% interval (signed ranks), and the sum of op times over the invoke time of five profiles: less what
passes between operators (what edgeport's shares are of), and as the profiler has it.

Exit code 0 if every ratio is within 3% of 1 and every sum within 5% of its invoke time, 1 otherwise.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from edgeport import stats
from edgeport.export.manifest import read_manifest
from edgeport.kit import RUNTIME_OF
from edgeport.measure import Artifact, Measurement, Settings
from edgeport.progress import Silent
from edgeport.records import Result
from edgeport.runner import local_runner

RUNS, WARMUP = 40, 10
RATIO_LIMIT, SUM_LIMIT = 0.03, 0.05
ONNX_LOOP = """
import sys, time, statistics, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
generator = numpy.random.default_rng(0)
feed = {i.name: generator.random(i.shape, dtype=numpy.float32) for i in session.get_inputs()}
samples = []
for _ in range(int(sys.argv[2]) + int(sys.argv[3])):
    start = time.perf_counter_ns()
    session.run(None, feed)
    samples.append(time.perf_counter_ns() - start)
print(statistics.median(samples[int(sys.argv[2]):]) / 1e6)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--core", type=int, default=1)
    args = parser.parse_args()
    os.sched_setaffinity(0, {args.core})  # children inherit it
    good = True
    for artifact in read_manifest(args.folder).artifacts:
        path = args.folder / artifact.file
        ratio = compare(path, args.rounds)
        net, whole = op_sums(path)
        good &= abs(ratio.value - 1) <= RATIO_LIMIT and abs(net - 1) <= SUM_LIMIT
        print(
            f"{artifact.file:<28} edgeport/tool {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]   "
            f"ops/invoke {net:.3f} ({whole:.3f} with the time between operators)",
            flush=True,
        )
    print("all within their limits" if good else f"not all within {RATIO_LIMIT:.0%} and {SUM_LIMIT:.0%}")
    return 0 if good else 1


def compare(path: Path, rounds: int) -> stats.Estimate:
    """Of edgeport's median latency over the tool's."""
    logs = []
    for n in range(rounds):
        arms = [edgeport_ms, tool_ms] if n % 2 == 0 else [tool_ms, edgeport_ms]
        times = {arm: arm(path) for arm in arms}
        logs.append(math.log(times[edgeport_ms] / times[tool_ms]))
    return stats.ratio(logs)


def edgeport_ms(path: Path) -> float:
    return stats.latency(measured(path, Settings(1, RUNS, WARMUP, launches=1, profile=False)).launches).median


def measured(path: Path, settings: Settings) -> Result:
    artifact = Artifact(path, path.stem, RUNTIME_OF[path.suffix], "")
    measurement = Measurement([artifact], local_runner(), settings, Silent())
    measurement.run()
    return measurement.results()[0]


def tool_ms(path: Path) -> float:
    if path.suffix == ".onnx":
        command = [sys.executable, "-c", ONNX_LOOP, str(path), str(WARMUP), str(RUNS)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model", f"--model={path}"]
        command += [f"--num_runs={RUNS}", f"--warmup_runs={WARMUP}", "--num_threads=1", f"--result_json={report}"]
        subprocess.run(command, check=True, capture_output=True)
        return float(json.loads(report.read_text())["latency"]["median_ms"])


def op_sums(path: Path) -> tuple[float, float]:
    """Sum of op times over invoke time: less what passes between operators, and with it. Median of five profiles."""
    net, whole = [], []
    for _ in range(5):
        profile = measured(path, Settings(1, 20, 5, launches=1)).profile
        assert profile is not None
        total = sum(op.us for op in profile.ops)
        net.append(total / stats.invoke_us(profile))
        whole.append(total * len(profile.invoke_us) / sum(profile.invoke_us))
    return median(net), median(whole)


if __name__ == "__main__":
    sys.exit(main())
