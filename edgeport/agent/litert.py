"""LiteRT (TFLite) through the C API of libLiteRt.so, with its per-op profiler.

Constants and structures are those of LiteRT's C headers (litert_model.h, litert_layout.h, litert_profiler_event.h).
"""

import ctypes as C
import struct
from typing import Any, Dict, List, Tuple

from . import telemetry
from .flatbuffer import without_outputs
from .messages import AgentError
from .tensors import Tensor, with_shapes

P = C.c_void_p
CPU = 1  # LiteRtHwAccelerators: kLiteRtHwAcceleratorCpu
LOCK_READ, LOCK_WRITE = 0, 1  # LiteRtTensorBufferLockMode
# litert_model_types.h: LiteRtElementType, which follows TfLiteType.
ELEMENT_TYPES = {
    1: "float32",
    2: "int32",
    3: "uint8",
    4: "int64",
    5: "string",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float16",
    11: "float64",
    13: "uint64",
    16: "uint32",
    17: "uint16",
}
# Event types of tflite::Profiler: the whole run and bookkeeping, an op that LiteRT ran itself, one that a delegate ran.
DEFAULT, RUNTIME_OP, DELEGATE_OP = 1, 2, 8
DESTRUCTOR = C.CFUNCTYPE(None, P)


class Layout(C.Structure):
    _fields_ = [
        ("rank", C.c_uint, 7),
        ("has_strides", C.c_uint, 1),
        ("dims", C.c_int32 * 8),
        ("strides", C.c_uint32 * 8),
    ]


class RankedTensorType(C.Structure):
    _fields_ = [("element_type", C.c_int), ("layout", Layout)]


class MemoryUsage(C.Structure):
    _fields_ = [("total", C.c_size_t), ("in_use", C.c_size_t), ("private", C.c_size_t)]


class Event(C.Structure):
    _fields_ = [
        ("tag", C.c_char_p),
        ("type", C.c_int),
        ("start_us", C.c_uint64),
        ("elapsed_us", C.c_uint64),
        ("begin", MemoryUsage),
        ("end", MemoryUsage),
        ("meta1", C.c_uint64),
        ("meta2", C.c_uint64),
        ("source", C.c_int),
    ]


class Session:
    """One .tflite file, compiled for the CPU. Every method raises AgentError with the call that LiteRT refused."""

    name = "litert"

    def __init__(
        self,
        library: str,
        model: str,
        num_threads: int,
        shapes: Dict[str, List[int]],
        scratch: str = "",
        sleeps: bool = False,
        leaves_outputs: bool = False,
        exact: bool = False,
    ) -> None:
        """scratch: not empty, it profiles, though its profiler writes no files.

        sleeps: between runs it takes no processor time from others; XNNPACK's threads never do. leaves_outputs: no
        output is taken, since LiteRT takes no buffer for one whose size is known only when it has run.

        exact: int8 products are added to 32 bits, as its kernels do in any case.
        """
        self._lib = C.CDLL(library)
        self._libc = C.CDLL(None)
        self._libc.strdup.restype, self._libc.strdup.argtypes = P, [C.c_char_p]
        self._libc.free.argtypes = [P]
        profiling = bool(scratch)
        self._free = DESTRUCTOR(self._libc.free)
        self._env = self._new("LiteRtCreateEnvironment", [C.c_int, P], 0, None)
        self._model = self._loaded(model, leaves_outputs)
        options = self._new("LiteRtCreateOptions", [])
        self._call("LiteRtSetOptionsHardwareAccelerators", [P, C.c_int], options, CPU)
        self._add_options(
            options, b"runtime_options_string", b"enable_profiling = %s\n" % str(profiling).lower().encode()
        )
        self._add_options(options, b"xnnpack", b"num_threads = %d\n" % num_threads)
        self._compiled = self._new("LiteRtCreateCompiledModel", [P, P, P], self._env, self._model, options)
        self._profiler = self._new("LiteRtCompiledModelGetProfiler", [P], self._compiled) if profiling else None
        self._signature = self._new("LiteRtGetModelSignature", [P, C.c_size_t], self._model, 0)
        declared = self._declared("Input")
        self.inputs = with_shapes(declared, shapes, tells_open=False)
        for i, (before, after) in enumerate(zip(declared, self.inputs)):
            if before.shape != after.shape:
                self._resize(i, before, after.shape)
        self.outputs = self._allocated(self._declared("Output"))
        self._ins = self._buffers("Input", self.inputs)
        self._outs = self._buffers("Output", self.outputs)

    def version(self) -> str:
        return ""  # the C API does not tell; the host knows which wheel the library came from

    def write(self, i: int, data: bytes, at: int = 0) -> None:
        if at + len(data) > self.inputs[i].nbytes:
            raise AgentError("usage", f"input {self.inputs[i].name!r} has only {self.inputs[i].nbytes} bytes")
        self._copy(self._ins[i], LOCK_WRITE, data, len(data), at)

    def read(self, i: int) -> bytes:
        return self._copy(self._outs[i], LOCK_READ, b"", self.outputs[i].nbytes)

    def run(self) -> None:
        status = self._run()
        if status:
            raise AgentError("run", f"LiteRtRunCompiledModel returned {status}")

    def profiled_runs(self, runs: int) -> Dict[str, List[Any]]:
        """Runs with the profiler on. rows: [{name, source, index, us: [one a run]}] in execution order; preempted: how
        often in each run the system gave a core to another program.

        The row of source "invoke" is the whole run; "between" is what passes between one operator's end and the next
        one's start: the profiler writing its records, and dispatch.
        """
        rows: Dict[Any, Dict[str, Any]] = {}
        preempted = []
        for run in range(runs):
            self._call("LiteRtResetProfiler", [P], self._profiler)
            self._call("LiteRtStartProfiler", [P], self._profiler)
            switches = telemetry.involuntary_switches()
            self.run()
            preempted.append(telemetry.involuntary_switches() - switches)
            self._call("LiteRtStopProfiler", [P], self._profiler)
            self._add_times(rows, run, runs)
            telemetry.step_aside(preempted[-1])
        return {"rows": list(rows.values()), "preempted": preempted}

    def _add_times(self, rows: Dict[Any, Dict[str, Any]], run: int, runs: int) -> None:
        """Writes what the profiler told of one run of so many into the rows."""
        spans = []
        for position, event in enumerate(self._events()):
            name = event.tag.decode(errors="replace")
            source = _source(event.type, name)
            if not source:
                continue
            key = (position, name, source, event.meta1)
            _row(rows, key, name, source, event.meta1, runs)["us"][run] = event.elapsed_us
            if source != "invoke":
                spans.append((event.start_us, event.elapsed_us))
        _row(rows, "between", "between operators", "between", -1, runs)["us"][run] = between_us(spans)

    def _events(self) -> Any:
        n = C.c_int()
        self._call("LiteRtGetNumProfilerEvents", [P, C.POINTER(C.c_int)], self._profiler, C.byref(n))
        events = (Event * n.value)()
        self._call("LiteRtGetProfilerEvents", [P, C.c_int, C.POINTER(Event)], self._profiler, n.value, events)
        return events

    def _call(self, name: str, argtypes: List[Any], *args: Any) -> None:
        function = getattr(self._lib, name)
        function.argtypes = argtypes
        status = function(*args)
        if status:
            raise AgentError("runtime", f"LiteRT refused the model: {name} returned {status}")

    def _new(self, name: str, argtypes: List[Any], *args: Any) -> Any:
        out = P()
        self._call(name, [*argtypes, C.POINTER(P)], *args, C.byref(out))
        return out

    def _loaded(self, model: str, leaves_outputs: bool) -> Any:
        if not leaves_outputs:
            return self._new("LiteRtCreateModelFromFile", [P, C.c_char_p], self._env, model.encode())
        with open(model, "rb") as f:
            data = bytearray(f.read())
        try:
            without_outputs(data)
        except struct.error as e:
            raise AgentError("runtime", f"{model} is no .tflite file, or is damaged: {e}") from e
        self._bytes = (C.c_char * len(data)).from_buffer(data)  # which LiteRT goes on reading
        return self._new("LiteRtCreateModelFromBuffer", [P, P, C.c_size_t], self._env, self._bytes, len(data))

    def _add_options(self, options: Any, identifier: bytes, toml: bytes) -> None:
        payload = self._libc.strdup(toml)  # LiteRT frees it
        opaque = self._new("LiteRtCreateOpaqueOptions", [C.c_char_p, P, DESTRUCTOR], identifier, payload, self._free)
        self._call("LiteRtAddOpaqueOptions", [P, P], options, opaque)

    def _declared(self, kind: str) -> List[Tensor]:
        n = C.c_size_t()
        self._call(f"LiteRtGetNumSignature{kind}s", [P, C.POINTER(C.c_size_t)], self._signature, C.byref(n))
        tensors = []
        for i in range(n.value):
            name = C.c_char_p()
            get_name = f"LiteRtGetSignature{kind}Name"
            self._call(get_name, [P, C.c_size_t, C.POINTER(C.c_char_p)], self._signature, i, C.byref(name))
            ranked = self._ranked_type(kind, i)
            dtype = ELEMENT_TYPES.get(ranked.element_type, f"LiteRT type {ranked.element_type}")
            shape = list(ranked.layout.dims[: ranked.layout.rank])
            tensors.append(Tensor((name.value or b"").decode(errors="replace"), dtype, shape))
        return tensors

    def _ranked_type(self, kind: str, i: int) -> RankedTensorType:
        get = f"LiteRtGetSignature{kind}TensorByIndex"
        tensor = self._new(get, [P, C.c_size_t], self._signature, i)
        ranked = RankedTensorType()
        self._call("LiteRtGetRankedTensorType", [P, C.POINTER(RankedTensorType)], tensor, C.byref(ranked))
        return ranked

    def _resize(self, i: int, declared: Tensor, shape: List[int]) -> None:
        dims = (C.c_int * len(shape))(*shape)
        name = "LiteRtCompiledModelResizeInputTensor"
        types = [P, C.c_size_t, C.c_size_t, C.POINTER(C.c_int), C.c_size_t]
        try:
            self._call(name, types, self._compiled, 0, i, dims, len(shape))
        except AgentError as e:
            text = f"input {declared.name!r} is {declared.shape} in the model; LiteRT refused {shape}, as asked for"
            raise AgentError("shape", text) from e

    def _allocated(self, outputs: List[Tensor]) -> List[Tensor]:
        """The outputs with the shapes that they have once the inputs' are known."""
        if not outputs:
            return []
        layouts = (Layout * len(outputs))()
        types = [P, C.c_size_t, C.c_size_t, C.POINTER(Layout), C.c_bool]
        self._call("LiteRtGetCompiledModelOutputTensorLayouts", types, self._compiled, 0, len(outputs), layouts, True)
        return [t._replace(shape=list(o.dims[: o.rank])) for t, o in zip(outputs, layouts)]

    def _buffers(self, kind: str, tensors: List[Tensor]) -> Any:
        array = (P * len(tensors))()
        for i, tensor in enumerate(tensors):
            ranked = self._ranked_type(kind, i)
            ranked.layout.rank = len(tensor.shape)
            for d, size in enumerate(tensor.shape):
                ranked.layout.dims[d] = size
            get = f"LiteRtGetCompiledModel{kind}BufferRequirements"
            needs = self._new(get, [P, C.c_size_t, C.c_size_t], self._compiled, 0, i)
            array[i] = self._new(
                "LiteRtCreateManagedTensorBufferFromRequirements",
                [P, C.POINTER(RankedTensorType), P],
                self._env,
                C.byref(ranked),
                needs,
            )
        return array

    def _copy(self, buffer: Any, mode: int, data: bytes, n: int, at: int = 0) -> bytes:
        address = P()
        lock = "LiteRtLockTensorBuffer"
        self._call(lock, [P, C.POINTER(P), C.c_int], buffer, C.byref(address), mode)
        out = b""
        if mode == LOCK_WRITE:
            C.memmove((address.value or 0) + at, data, n)
        else:
            out = C.string_at(address, n)
        self._call("LiteRtUnlockTensorBuffer", [P], buffer)
        return out

    def _run(self) -> int:
        function = self._lib.LiteRtRunCompiledModel
        function.argtypes = [P, C.c_size_t, C.c_size_t, P, C.c_size_t, P]
        ins, outs = self._ins, self._outs
        self._run = lambda: function(self._compiled, 0, len(ins), ins, len(outs), outs)  # type: ignore[method-assign]
        return int(self._run())


def _row(rows: Dict[Any, Dict[str, Any]], key: Any, name: str, source: str, index: int, runs: int) -> Dict[str, Any]:
    """The row of this key, with a time of 0 for runs that do not have it."""
    return rows.setdefault(key, {"name": name, "source": source, "index": index, "us": [0] * runs})


def between_us(spans: List[Tuple[int, int]]) -> int:
    """What passes between the end of one operator, (start, duration) in us, and the start of the next one.

    A delegate's events have no start (0): what passes beside them is not known, and not counted.
    """
    total, last_end = 0, 0
    for start, elapsed in spans:
        total += max(0, start - last_end) if start and last_end else 0
        last_end = start + elapsed if start else 0
    return total


def _source(event_type: int, name: str) -> str:
    """Who spent the time: "invoke" is the whole run, "" is bookkeeping around it."""
    if event_type == DEFAULT:
        return "invoke" if name == "Invoke" else ""
    return {RUNTIME_OP: "runtime", DELEGATE_OP: "delegate"}.get(event_type, "")
