"""ONNX Runtime through the OrtApi function table of libonnxruntime.so, with its per-node profile.

The table is append-only by ONNX Runtime's ABI promise (onnxruntime_c_api.h), so these indices hold for later releases.
"""

import bisect
import ctypes as C
import json
import os
from typing import Any, Dict, List, Tuple

from . import telemetry
from .messages import AgentError
from .tensors import Tensor, with_shapes

P = C.c_void_p
API_VERSION = 17
WARNING, ERROR, ALL_OPTIMIZATIONS = 2, 3, 99
# Worker threads spin within a run, as ever, and stop when it ends (onnxruntime_session_options_config_keys.h).
SPIN_IN_RUNS_ALONE = b"session.force_spinning_stop"
EXACT_PRODUCTS = b"session.x64quantprecision"
KERNEL = "_kernel_time"  # how the trace names the time that a node computes
INDEX = {
    "GetErrorMessage": 2,
    "CreateEnv": 3,
    "DisableTelemetryEvents": 6,
    "CreateSession": 7,
    "Run": 9,
    "CreateSessionOptions": 10,
    "SetOptimizedModelFilePath": 11,
    "EnableProfiling": 14,
    "SetSessionLogSeverityLevel": 22,
    "SetSessionGraphOptimizationLevel": 23,
    "SetIntraOpNumThreads": 24,
    "SetInterOpNumThreads": 25,
    "SessionGetInputCount": 30,
    "SessionGetOutputCount": 31,
    "SessionGetInputTypeInfo": 33,
    "SessionGetOutputTypeInfo": 34,
    "SessionGetInputName": 36,
    "SessionGetOutputName": 37,
    "CreateTensorWithDataAsOrtValue": 49,
    "GetTensorMutableData": 51,
    "CastTypeInfoToTensorInfo": 55,
    "GetTensorElementType": 60,
    "GetDimensionsCount": 61,
    "GetDimensions": 62,
    "GetTensorTypeAndShape": 65,
    "CreateCpuMemoryInfo": 69,
    "GetAllocatorWithDefaultOptions": 78,
    "ReleaseStatus": 93,
    "ReleaseSession": 95,
    "ReleaseValue": 96,
    "AddSessionConfigEntry": 130,
}
# ONNXTensorElementDataType
ELEMENT_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}


class ApiBase(C.Structure):
    _fields_ = [("GetApi", C.CFUNCTYPE(P, C.c_uint32)), ("GetVersionString", C.CFUNCTYPE(C.c_char_p))]


class Session:
    """One .onnx file on the CPU provider, all graph optimisations on. Errors carry ONNX Runtime's own text."""

    name = "onnxruntime"

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
        """scratch: a folder for what its profiler writes; "" leaves the profiler off.

        sleeps: between runs it takes no processor time from others, as it does by default for some 40 ms.
        leaves_outputs is for LiteRT: ONNX Runtime makes its own buffers for outputs of any size.

        exact: int8 products are added to 32 bits by x86-64 processors without VNNI too, which is slower.
        """
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it would report to its maker, from a thread beside what is timed
        lib = C.CDLL(library)
        lib.OrtGetApiBase.restype = C.POINTER(ApiBase)
        self._base = lib.OrtGetApiBase().contents
        self._table = C.cast(self._base.GetApi(API_VERSION), C.POINTER(P))
        self._folder = scratch
        env = self._new("CreateEnv", [C.c_int, C.c_char_p], WARNING, b"edgeport")
        self._call("DisableTelemetryEvents", [P], env)  # a measurement tells nobody, and is not disturbed by telling
        options = self._options(num_threads, sleeps, exact)
        self._session = self._new("CreateSession", [P, C.c_char_p, P], env, model.encode(), options)
        self._allocator = self._new("GetAllocatorWithDefaultOptions", [])
        self.inputs = with_shapes(self._declared("Input"), shapes)
        self.outputs = self._declared("Output")
        self._memory = self._new("CreateCpuMemoryInfo", [C.c_int, C.c_int], 0, 0)
        self._data = [C.create_string_buffer(max(1, t.nbytes)) for t in self.inputs]
        n_in, n_out = len(self.inputs), len(self.outputs)
        self._in_names = (C.c_char_p * n_in)(*[t.name.encode() for t in self.inputs])
        self._out_names = (C.c_char_p * n_out)(*[t.name.encode() for t in self.outputs])
        self._ins = (P * n_in)(*[self._value(t, d) for t, d in zip(self.inputs, self._data)])
        self._outs = (P * n_out)()
        self._run = self._function("Run", P, P, P, P, C.c_size_t, P, C.c_size_t, P)
        self._release_value = self._function("ReleaseValue", P, restype=None)

    def version(self) -> str:
        return str(self._base.GetVersionString().decode())

    def write(self, i: int, data: bytes, at: int = 0) -> None:
        if at + len(data) > len(self._data[i]):
            raise AgentError("usage", f"input {self.inputs[i].name!r} has only {len(self._data[i])} bytes")
        C.memmove(C.byref(self._data[i], at), data, len(data))

    def read(self, i: int) -> bytes:
        """The bytes of output i of the last run; its true shape replaces the declared one."""
        info = self._new("GetTensorTypeAndShape", [P], self._outs[i])
        self.outputs[i] = self._described(self.outputs[i].name, info)
        address = self._new("GetTensorMutableData", [P], self._outs[i])
        return C.string_at(address, self.outputs[i].nbytes)

    def run(self) -> None:
        self._free_outputs()
        n_in, n_out = len(self._ins), len(self._outs)
        self._check(
            "run", self._run(self._session, None, self._in_names, self._ins, n_in, self._out_names, n_out, self._outs)
        )

    def profiled_runs(self, runs: int) -> Dict[str, List[Any]]:
        """Runs with the profiler on, which ends the session. rows: [{name, op, shapes, us: [one a run]}] in execution
        order; preempted: how often in each run the system gave a core to another program.

        The session is profiled from its start, so only the last runs of the trace are taken: what came before was
        warm-up.
        """
        preempted = []
        for _ in range(runs):
            switches = telemetry.involuntary_switches()
            self.run()
            preempted.append(telemetry.involuntary_switches() - switches)
            telemetry.step_aside(preempted[-1])
        self._free_outputs()
        self._function("ReleaseSession", P, restype=None)(self._session)  # writes the profile
        path = next(os.path.join(self._folder, f) for f in os.listdir(self._folder) if f.startswith("profile"))
        with open(path, encoding="utf-8") as f:
            return {"rows": _rows(json.load(f), runs), "preempted": preempted}

    def optimized_model(self) -> str:
        """Where ONNX Runtime wrote the graph that it runs, which names what each profiled node was made of."""
        return os.path.join(self._folder, "optimized.onnx")

    def _options(self, num_threads: int, sleeps: bool, exact: bool) -> Any:
        options = self._new("CreateSessionOptions", [])
        self._call("SetIntraOpNumThreads", [P, C.c_int], options, num_threads)
        self._call("SetInterOpNumThreads", [P, C.c_int], options, 1)
        self._call("SetSessionGraphOptimizationLevel", [P, C.c_int], options, ALL_OPTIMIZATIONS)
        if sleeps:
            self._call("AddSessionConfigEntry", [P, C.c_char_p, C.c_char_p], options, SPIN_IN_RUNS_ALONE, b"1")
        if exact:
            self._call("AddSessionConfigEntry", [P, C.c_char_p, C.c_char_p], options, EXACT_PRODUCTS, b"1")
        if self._folder:
            self._call("SetSessionLogSeverityLevel", [P, C.c_int], options, ERROR)
            self._call("EnableProfiling", [P, C.c_char_p], options, os.path.join(self._folder, "profile").encode())
            self._call("SetOptimizedModelFilePath", [P, C.c_char_p], options, self.optimized_model().encode())
        return options

    def _function(self, name: str, *argtypes: Any, restype: Any = P) -> Any:
        return C.CFUNCTYPE(restype, *argtypes)(self._table[INDEX[name]])

    def _check(self, kind: str, status: Any) -> None:
        if status:
            text = self._function("GetErrorMessage", P, restype=C.c_char_p)(status).decode(errors="replace")
            self._function("ReleaseStatus", P, restype=None)(status)
            raise AgentError(kind, f"ONNX Runtime: {text}")

    def _call(self, name: str, argtypes: List[Any], *args: Any) -> None:
        self._check("runtime", self._function(name, *argtypes)(*args))

    def _new(self, name: str, argtypes: List[Any], *args: Any) -> Any:
        out = P()
        self._call(name, [*argtypes, P], *args, C.addressof(out))
        return out

    def _declared(self, kind: str) -> List[Tensor]:
        n = C.c_size_t()
        self._call(f"SessionGet{kind}Count", [P, P], self._session, C.addressof(n))
        tensors = []
        for i in range(n.value):
            name = C.c_char_p()
            get_name = f"SessionGet{kind}Name"
            self._call(get_name, [P, C.c_size_t, P, P], self._session, i, self._allocator, C.addressof(name))
            info = self._new(f"SessionGet{kind}TypeInfo", [P, C.c_size_t], self._session, i)
            tensor = self._new("CastTypeInfoToTensorInfo", [P], info)
            text = (name.value or b"").decode(errors="replace")
            if not tensor.value:
                if kind == "Input":
                    raise AgentError("unsupported", f"input {text!r} is not a tensor")
                tensors.append(Tensor(text, "not a tensor", []))
                continue
            tensors.append(self._described(text, tensor))
        return tensors

    def _described(self, name: str, info: Any) -> Tensor:
        kind, rank = C.c_int(), C.c_size_t()
        self._call("GetTensorElementType", [P, P], info, C.addressof(kind))
        self._call("GetDimensionsCount", [P, P], info, C.addressof(rank))
        dims = (C.c_int64 * rank.value)()
        self._call("GetDimensions", [P, P, C.c_size_t], info, C.addressof(dims), rank.value)
        return Tensor(name, ELEMENT_TYPES.get(kind.value, f"ONNX type {kind.value}"), list(dims))

    def _value(self, tensor: Tensor, data: Any) -> Any:
        code = next(c for c, dtype in ELEMENT_TYPES.items() if dtype == tensor.dtype)
        dims = (C.c_int64 * len(tensor.shape))(*tensor.shape)
        types = [P, P, C.c_size_t, P, C.c_size_t, C.c_int]
        name = "CreateTensorWithDataAsOrtValue"
        return self._new(name, types, self._memory, data, tensor.nbytes, dims, len(tensor.shape), code)

    def _free_outputs(self) -> None:
        for i, value in enumerate(self._outs):
            if value:
                self._release_value(value)
                self._outs[i] = None


def _rows(trace: List[Dict[str, Any]], last: int) -> List[Dict[str, Any]]:
    """One row a node from ONNX Runtime's trace: its own time, summed for each of the last runs.

    A node that runs a subgraph (If, Loop) contains its children's time; its own is what remains. The row of source
    "invoke" is the whole run; "between" is what passes between one operator's end and the next one's start: the
    profiler writing its records, and dispatch.
    """
    runs = [e for e in trace if e.get("cat") == "Session" and e.get("name") == "model_run"]
    starts = [e["ts"] for e in runs]
    rows: Dict[Any, Dict[str, Any]] = {}
    parents: List[Tuple[int, Dict[str, Any]]] = []
    between, ends = [0] * len(runs), [0] * len(runs)
    for event in sorted((e for e in trace if _is_kernel(e)), key=lambda e: (e["ts"], -e["dur"])):
        run = bisect.bisect_right(starts, event["ts"]) - 1
        if run < 0:
            continue
        row = _row(rows, event, len(runs))
        while parents and parents[-1][0] <= event["ts"]:
            parents.pop()
        if parents:
            parents[-1][1]["us"][run] -= event["dur"]
        row["us"][run] += event["dur"]
        end = event["ts"] + event["dur"]
        parents.append((end, row))
        between[run] += max(0, event["ts"] - ends[run]) if ends[run] else 0
        ends[run] = max(ends[run], end)
    for row in rows.values():
        row["us"] = row["us"][-last:]
    return [
        *rows.values(),
        {"name": "model_run", "source": "invoke", "index": -1, "us": [e["dur"] for e in runs[-last:]]},
        {"name": "between operators", "source": "between", "index": -1, "us": between[-last:]},
    ]


def _is_kernel(event: Dict[str, Any]) -> bool:
    return event.get("cat") == "Node" and event.get("name", "").endswith(KERNEL)


def _row(rows: Dict[Any, Dict[str, Any]], event: Dict[str, Any], runs: int) -> Dict[str, Any]:
    args, name = event["args"], event["name"][: -len(KERNEL)]
    index = int(args.get("node_index", -1))
    blank = {
        "name": name,
        "source": "runtime",
        "index": index,
        "op": args.get("op_name", ""),
        "inputs": args.get("input_type_shape", []),
        "outputs": args.get("output_type_shape", []),
        "us": [0] * runs,
    }
    return rows.setdefault((index, name, blank["op"]), blank)
