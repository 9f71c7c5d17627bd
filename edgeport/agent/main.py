"""The agent's commands: facts, state, hold, latency, ops, infer and serve."""

import argparse
import contextlib
import gc
import json
import os
import resource
import sys
import time
from typing import Any, Dict, Iterator, List, Optional

from . import PROTOCOL, litert, ort, telemetry
from .hold import hold
from .host import Host
from .messages import AgentError, emit
from .tensors import PIECE_BYTES, filling

RUNTIMES: Dict[str, Any] = {"litert": litert.Session, "onnxruntime": ort.Session}
LEAST_RUNS = 4
PROGRESS_NS = 1_000_000_000
SENSORS_HELP = "JSON: commands that tell what no file does, as lists of words"
AUTOGROUP = "/proc/self/autogroup"


def main(argv: Optional[List[str]] = None) -> int:
    """Runs one command. Returns 0, or 1 after an error that it has printed as a message."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a runtime that crashes leaves no file
    args = _parser().parse_args(argv)
    _leave_no_core_files()
    emit("hello", protocol=PROTOCOL, pid=os.getpid(), facts=telemetry.facts())
    try:
        telemetry.use(json.loads(getattr(args, "sensors", "{}")))
        if args.command in MEASURING:
            _leave_memory()
            if args.temporary:
                os.environ["TMPDIR"] = args.temporary
            _pin(args.cores)
            _take_priority(args.nice)
            args.host = Host(args.attached)
        args.function(args)
    except AgentError as e:
        emit("error", kind=e.kind, text=str(e))
        return 1
    except (OSError, MemoryError) as e:
        emit("error", kind=type(e).__name__, text=str(e) or type(e).__name__)
        return 1
    emit("bye", peak_bytes=telemetry.peak_bytes(), telemetry=telemetry.snapshot())
    return 0


def _leave_no_core_files() -> None:
    """Limits them to nothing, for this process and its children: a runtime that crashes would fill a small disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def latency(args: argparse.Namespace) -> None:
    """Times plain runs, one by one, with the profiler off."""
    session = _open(args)
    start = time.perf_counter_ns()
    session.run()
    emit("first", ns=time.perf_counter_ns() - start)
    _timed(session, args.warmup_runs, "warm-up")
    before = telemetry.snapshot()
    samples = _timed(session, args.num_runs, "run", args.max_seconds)
    emit("samples", ns=samples, before=before, after=telemetry.snapshot())


def ops(args: argparse.Namespace) -> None:
    """Times runs with the runtime's profiler on, op by op; and, in the same process, plain runs before and after."""
    plain, session = _open(args), _open(args, scratch=args.scratch)
    for _ in range(1 + args.warmup_runs):
        plain.run()
    before = telemetry.snapshot()
    plain_ns = _timed(plain, max(1, args.num_runs // 2), "plain run")
    for _ in range(1 + args.warmup_runs):
        session.run()
    profiled = session.profiled_runs(args.num_runs)
    plain.run()
    plain_ns += _timed(plain, max(1, args.num_runs // 2), "plain run")
    after = telemetry.snapshot()
    optimized = session.optimized_model() if isinstance(session, ort.Session) else None
    emit("ops", **profiled, plain_ns=plain_ns, optimized_model=optimized, before=before, after=after)


def infer(args: argparse.Namespace) -> None:
    """Computes the outputs of given inputs: each --data file holds every sample of that input, one after another."""
    session = _open(args)
    if len(args.data) != len(session.inputs) or len(args.result) != len(session.outputs):
        counts = f"{len(session.inputs)} inputs and {len(session.outputs)} outputs"
        raise AgentError("usage", f"the model has {counts}; give as many --data and --result")
    with contextlib.ExitStack() as stack:
        ins = [stack.enter_context(open(path, "rb")) for path in args.data]
        outs = [stack.enter_context(open(path, "wb")) for path in args.result]
        _infer_samples(session, args.samples, ins, outs)
    emit("inferred", outputs=[t.as_dict() for t in session.outputs])


def state(args: argparse.Namespace) -> None:
    """Says how the device is, before anything is measured."""
    busy = telemetry.busy_processes(args.seconds)
    emit("state", snapshot=telemetry.snapshot(), busy=busy)


def serve(args: argparse.Namespace) -> None:
    """Holds the model loaded and answers each line "burst N" on standard input with the times of N runs, and each
    "telemetry" with the device's state.

    Between bursts it takes no processor time, so that another process can be timed on the same cores. It ends when its
    input does, which is also what becomes of it if the host dies.
    """
    session = _open(args, sleeps=True)
    _timed(session, args.warmup_runs, "warm-up")
    if args.num_threads == len(os.sched_getaffinity(0)):
        _pin_threads()
    emit("serving", telemetry=telemetry.snapshot())
    for line in args.host.lines():
        if line.strip() == "telemetry":
            emit("telemetry", telemetry=telemetry.snapshot())
            continue
        command, _, number = line.partition(" ")
        if command != "burst" or not number.strip().isdigit():
            raise AgentError("usage", f"{line.strip()!r} is no request; there are 'burst N' and 'telemetry'")
        emit("burst", **_burst(session, int(number), args.spin_percent / 100))


MEASURING = {"latency": latency, "ops": ops, "infer": infer, "serve": serve}


def _infer_samples(session: Any, samples: int, ins: List[Any], outs: List[Any]) -> None:
    for n in range(samples):
        for i, (f, tensor) in enumerate(zip(ins, session.inputs)):
            data = f.read(tensor.nbytes)
            if len(data) != tensor.nbytes:
                raise AgentError(
                    "usage", f"input {tensor.name!r} has {len(data)} of {tensor.nbytes} bytes in sample {n}"
                )
            session.write(i, data)
        session.run()
        for i, out in enumerate(outs):
            out.write(session.read(i))


def _open(args: argparse.Namespace, scratch: str = "", sleeps: bool = False) -> Any:
    with open(args.library, "rb") as f:  # an early, clear error; and the file is in the page cache for all launches
        f.read(4)
    start = time.perf_counter_ns()
    settings = (args.num_threads, _shapes(args), scratch, sleeps, args.leave_outputs)
    exact = getattr(args, "exact_products", False)
    session = RUNTIMES[args.runtime](args.library, args.model, *settings, exact=exact)
    ready_ns = time.perf_counter_ns() - start
    if args.command != "infer":
        _fill(session, dict(text.rpartition("=")[::2] for text in args.input_data))
    emit(
        "ready",
        init_ns=ready_ns,
        version=session.version(),
        inputs=[t.as_dict() for t in session.inputs],
        outputs=[t.as_dict() for t in session.outputs],
        cores=sorted(os.sched_getaffinity(0)),
        nice=os.getpriority(os.PRIO_PROCESS, 0),
    )
    return session


def _timed(session: Any, runs: int, phase: str, max_seconds: float = 0.0) -> List[int]:
    """Nanoseconds of each run; says that it is alive about once a second, between runs. max_seconds: after which, and
    LEAST_RUNS runs, there are no more; 0 for no limit.
    """
    samples, clock, run = [], time.perf_counter_ns, session.run
    said = clock()
    late = said + int(max_seconds * 1e9) if max_seconds else None
    gc.disable()
    for n in range(runs):
        start = clock()
        run()
        end = clock()
        samples.append(end - start)
        if end - said > PROGRESS_NS:
            emit("progress", phase=phase, done=n + 1, of=runs)
            said = clock()
        if late is not None and end > late and n + 1 >= LEAST_RUNS:
            break
    gc.enable()
    return samples


def _burst(session: Any, runs: int, slower_by: float) -> Dict[str, List[int]]:
    """Of each run: nanoseconds; how often in it the system gave a core of ours to another program; and for how many of
    the nanoseconds the thread that called the runtime waited for its core, which others had.

    That is the time in which it neither computed nor, as far as the system tells, slept: the system's count alone has
    waiting before and after the run in it. slower_by: the share of its time that each run is made longer by,
    computing: asleep, the core's clock would fall.
    """
    made: Dict[str, List[int]] = {"ns": [], "preempted": [], "waited_ns": []}
    clock, cpu, waited, run = time.perf_counter_ns, time.thread_time_ns, telemetry.waited_ns, session.run
    gc.disable()
    for _ in range(runs):
        switches, delay, used = telemetry.involuntary_switches(), waited(), cpu()
        start = clock()
        run()
        end = clock()
        if slower_by:
            wanted = end + int(slower_by * (end - start))
            while end < wanted:
                end = clock()
        used, delay = cpu() - used, waited() - delay
        made["ns"].append(end - start)
        made["preempted"].append(telemetry.involuntary_switches() - switches)
        made["waited_ns"].append(max(0, min(end - start - used, delay)))
    gc.enable()
    return made


def _take_priority(nice: int) -> None:
    """Before other programs (nice below 0, which may need root) or after them.

    Linux shares the processor out between sessions first (sched(7), "The autogroup feature"), so that a priority
    counts for nothing outside its own session: we start one, and give the same priority to all of it.
    """
    if not nice:
        return
    try:
        if os.getsid(0) != os.getpid():
            os.setsid()
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        if os.path.exists(AUTOGROUP):
            with open(AUTOGROUP, "w", encoding="ascii") as f:
                f.write(str(nice))
    except OSError as e:
        raise AgentError("priority", f"the system does not allow --nice {nice}: {e.strerror}") from e


def _leave_memory() -> None:
    """Takes no more memory than the device has: a model that asks for more fails, and takes no other program along."""
    with contextlib.suppress(OSError, ValueError, LookupError):  # a system that does not tell, or allow it
        with open("/proc/meminfo", encoding="ascii") as f:
            told = dict(line.split(":", 1) for line in f)
        free = 1024 * sum(int(told[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = free if hard == resource.RLIM_INFINITY else min(free, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _pin(cores: Optional[str]) -> None:
    if cores:
        wanted = {int(c) for c in cores.split(",")}
        os.sched_setaffinity(0, wanted)
        got = os.sched_getaffinity(0)
        if got != wanted:
            raise AgentError("pin", f"asked for cores {sorted(wanted)}, the system allows {sorted(got)}")


def _pin_threads() -> None:
    """One core for each thread that computes: two that share a core, as they may for seconds, halve the speed.

    Those that compute are the ones that have computed most so far; others, which a runtime keeps for other ends, stay
    where they may.
    """
    cores, main_thread = sorted(os.sched_getaffinity(0)), os.getpid()
    others = [int(name) for name in os.listdir("/proc/self/task") if int(name) != main_thread]
    workers = sorted(others, key=telemetry.thread_ns, reverse=True)
    for core, thread in zip(cores, [main_thread, *workers]):
        os.sched_setaffinity(thread, {core})


def _fill(session: Any, files: Dict[str, str]) -> None:
    """Writes the inputs: from the file that is given for one, by its name, and with the filler else."""
    unknown = set(files) - {tensor.name for tensor in session.inputs}
    if unknown:
        known = ", ".join(tensor.name for tensor in session.inputs)
        raise AgentError("usage", f"the model has no input {sorted(unknown)[0]!r}; it has {known}")
    for i, tensor in enumerate(session.inputs):
        if tensor.name not in files:
            _write(session, i, filling(tensor))
            continue
        if os.path.getsize(files[tensor.name]) != tensor.nbytes:
            raise AgentError("usage", f"the data of input {tensor.name!r} are not its {tensor.nbytes} bytes")
        with open(files[tensor.name], "rb") as f:
            _write(session, i, iter(lambda: f.read(PIECE_BYTES), b""))


def _write(session: Any, i: int, pieces: Iterator[bytes]) -> None:
    at = 0
    for piece in pieces:
        session.write(i, piece, at)
        at += len(piece)


def _shapes(args: argparse.Namespace) -> Dict[str, List[int]]:
    pairs = (text.rpartition("=") for text in args.input_shape)
    return {name: [int(size) for size in shape.split(",") if size] for name, _, shape in pairs}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgeport-agent", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    commands.add_parser("facts", help="what this device is").set_defaults(function=lambda args: None)
    looking = commands.add_parser("state", help="the state that it is in, and who else computes")
    looking.set_defaults(function=state)
    looking.add_argument("--seconds", type=float, default=0.5, help="how long to watch")
    looking.add_argument("--sensors", default="{}", help=SENSORS_HELP)
    holding = commands.add_parser("hold", help="keep the device for one host while standard input is open")
    holding.set_defaults(function=hold)
    holding.add_argument("--owner", required=True, help="who to name to others")
    holding.add_argument("--wait", type=float, default=0.0, help="seconds to wait for another owner to end")
    holding.add_argument("--silence", type=float, default=40.0, help="seconds without a line after which it ends")
    holding.add_argument("--session", default="", help="the owner's folder, removed at the end; others' beside it too")
    for function in MEASURING.values():
        sub = commands.add_parser(function.__name__, help=(function.__doc__ or "").partition("\n")[0])
        sub.set_defaults(function=function)
        sub.add_argument("--runtime", choices=sorted(RUNTIMES), required=True)
        sub.add_argument("--library", required=True, help="the runtime's shared library")
        sub.add_argument("--model", required=True)
        sub.add_argument("--num-threads", type=int, default=1)
        sub.add_argument("--cores", help="pin to these cores: 2,3")
        sub.add_argument("--nice", type=int, default=0, help="priority: -20 before all other programs, 19 after")
        sub.add_argument("--attached", action="store_true", help="end when standard input does: the host has gone")
        sub.add_argument("--sensors", default="{}", help=SENSORS_HELP)
        sub.add_argument("--temporary", help="a folder for temporary files, of which ONNX Runtime leaves one")
        sub.add_argument("--input-shape", action="append", default=[], metavar="NAME=1,3,224,224")
        sub.add_argument("--input-data", action="append", default=[], metavar="NAME=FILE", help="an input's bytes")
        sub.add_argument("--leave-outputs", action="store_true", help="take no outputs of LiteRT")
        if function is serve:  # for trying out whether a slowdown is found
            sub.add_argument("--spin-percent", type=float, default=0.0, help=argparse.SUPPRESS)
        if function is infer:
            sub.add_argument("--samples", type=int, default=1)
            sub.add_argument("--data", action="append", default=[])
            sub.add_argument("--result", action="append", default=[])
            sub.add_argument("--exact-products", action="store_true", help="add int8 products to 32 bits everywhere")
        else:
            sub.add_argument("--warmup-runs", type=int, default=10)
        if function in (latency, ops):
            sub.add_argument("--num-runs", type=int, default=50)
        if function is latency:
            sub.add_argument("--max-seconds", type=float, default=0.0, help="of timed runs; 0 for no limit")
        if function is ops:
            sub.add_argument("--scratch", required=True, help="a folder for what the runtime's profiler writes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
