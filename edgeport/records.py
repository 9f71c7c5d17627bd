"""Every record that edgeport keeps or prints: what was measured and under which circumstances. Nothing is derived here.

Schema history of the JSON forms:
    1  first version
    2  manifest: passes. inspect: layer_types are of layers with multiply-adds; other_types, modules and blocks beside
       them; a layer's products and channels one by one. profile: origin, and raw.profile's states before and
       after; an operator's us is of the typical runs, its runs_us of all, and its madds and bytes are null where they
       are unknown; raw.profile.preempted; assumed_shapes; input_data.
       manifest: calibration's held_back, verification's held_back and pieces, an artifact's calibrated and renamed, an
       int8 file's joins, float_joins, float_operators and worst_db; top1_agreement may be null. All that came after
       the first line has a default, so that what was written before it is read
"""

from typing import Annotated, Any

import msgspec

SCHEMA = 2
MIN_SQNR_DB = 10.0  # of an int8 file's outputs, unless another is asked for
MOST_THREADS = 1024

# What a file tells is held against these where it is read.
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[^/\x00]*\.(?i:onnx|tflite)\Z", max_length=255)]  # in its folder
Count = Annotated[int, msgspec.Meta(ge=0)]
Threads = Annotated[int, msgspec.Meta(ge=1, le=MOST_THREADS)]
Microseconds = Annotated[float, msgspec.Meta(ge=0, le=1e15)]


class Preprocessing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From a photo to a network's input: resize the shorter side, crop the centre, order the colours, then
    (value * scale - mean) / std for each colour. The defaults are those of torchvision's ImageNet weights.
    """

    resize: int = 256
    crop: int = 224
    colors: str = "RGB"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class Variant(msgspec.Struct, frozen=True):
    """A network as its paper or its authors published it: what the factory is called with, and the input (C, H, W)
    where it is not the file's INPUT_SHAPE.
    """

    arguments: dict[str, Any]
    input_shape: tuple[int, int, int] | None = None


class Quantization(msgspec.Struct, frozen=True):
    """real = (stored - zero_point) * scale."""

    scale: float
    zero_point: int


class TensorInfo(msgspec.Struct, frozen=True):
    """An input or output of an artifact. layout: NCHW, NHWC, or None where the axes have no such meaning."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str | None = None
    quantization: Quantization | None = None


class PieceVerification(msgspec.Struct, frozen=True):
    """One output, or one of the pieces that the network joins last in it, against PyTorch's.

    piece: where it lies in the output, such as "[:, 0:4]", or the operator that made it; "" for a whole output. Errors
    and ratio as in Verification, relative to this piece's own values.

    varying_db: as sqnr_db, of what differs from the piece's mean, which alone may be most of its values; None where
    nothing differs, or both are equal. agreement: the share of equal elements of integers or booleans, which have no
    ratio; None for floats.
    """

    output: str
    piece: str
    max_absolute_error: float
    max_relative_error: float
    sqnr_db: float | None
    varying_db: float | None = None
    agreement: float | None = None


class Verification(msgspec.Struct, frozen=True):
    """An artifact's outputs against PyTorch's on the same samples, over all outputs, and piece by piece.

    held_back: no range and no choice was made by these samples.

    max_relative_error: largest absolute difference over the largest absolute value of PyTorch's output, or the
    difference itself where that has nothing but zeros.
    sqnr_db: 10 log10(sum of squares of PyTorch's outputs / sum of squares of the differences), of floats, at least
    -120; None if equal.
    top1_agreement: share of the rows along the last axis of the first output in which the largest entry is the same
    one; None where that output is a map, several pieces, no floats, or has one entry a row.
    """

    samples: int
    max_absolute_error: float
    max_relative_error: float
    sqnr_db: float | None
    top1_agreement: float | None
    held_back: bool = False
    pieces: tuple[PieceVerification, ...] = ()


class LayerNoise(msgspec.Struct, frozen=True):
    """How much of a layer's output int8 keeps: signal-to-noise ratio against the float network, all before it int8."""

    name: str
    module: str
    sqnr_db: float


class FloatLayer(msgspec.Struct, frozen=True):
    """A layer left in float. gain_db: of the outputs' signal-to-noise ratio; madds: multiply-adds that stay float."""

    name: str
    module: str
    gain_db: float
    madds: int


class JoinedRange(msgspec.Struct, frozen=True):
    """A join of several tensors, and how many of its pieces have the range of its result.

    The others are requantised for it. cost_db: by how much the steps of a piece that is read elsewhere too became
    larger for it, 0 where none is.
    """

    name: str
    module: str
    pieces: int
    shared: int
    cost_db: float


class Quantized(msgspec.Struct, frozen=True):
    """How an int8 file came to be. method: of choosing ranges.

    held_back: samples on which choices were judged, 0 where there were too few to; none of the verdict's are among
    them. tried: signal-to-noise ratio of the worst piece of the outputs for them, in dB, by method, by bound on what
    shared ranges may cost, and by change of the constants, in the order of trying; where int8 is poor, also of the
    graph as it was written. changes: those made. worst_db: the same of the form that was chosen, null where none can be
    judged.

    joins: where ranges are shared. float_joins: operators that join and move pieces in float, since their ranges are
    unlike. float_operators: those that 256 equal steps cannot hold, such as masks and the statistics of a norm, and
    those whose fixed steps their answers fill little of.
    """

    method: str
    held_back: int
    tried: dict[str, float]
    changes: tuple[str, ...]
    float_layers: tuple[FloatLayer, ...]
    layers: tuple[LayerNoise, ...]
    joins: tuple[JoinedRange, ...] = ()
    float_joins: tuple[str, ...] = ()
    float_operators: tuple[str, ...] = ()
    worst_db: float | None = None


class Artifact(msgspec.Struct, frozen=True):
    """One file of an export. verification: what it is judged by, on samples held back where there are enough.

    quantized: of an int8 file. calibrated: its figures on the samples that its ranges were taken from, where others
    were held back. An fp32 file, which has no ranges, is judged by all samples. renamed: the file's names of outputs
    that could not keep the network's, by those: in ONNX no output is called as an input is.
    """

    file: FileName
    format: str
    precision: str
    sha256: Sha256
    size_bytes: Count
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    verification: Verification
    opset: int | None = None
    quantized: Quantized | None = None
    calibrated: Verification | None = None
    renamed: dict[str, str] = {}


class Calibration(msgspec.Struct, frozen=True):
    """The samples that int8 ranges and verification come from. held_back: how many were for the verdict alone."""

    source: str
    samples: Count
    sha256: Sha256
    held_back: Count = 0


class Model(msgspec.Struct, frozen=True):
    """What was exported. weights: the file's name, or None for the random weights of a fixed seed."""

    name: str
    source: str
    arguments: dict[str, Any]
    parameters: int
    weights: str | None
    weights_sha256: str
    paper: str | None = None


class Rewrite(msgspec.Struct, frozen=True):
    """What one graph pass did. changes: as the pass counts them; operators: of the whole graph, before and after.

    formats: for whose files it ran.
    """

    name: str
    what: str
    formats: tuple[str, ...]
    changes: int
    operators_before: int
    operators_after: int


class Manifest(msgspec.Struct, frozen=True):
    """manifest.json of an export folder."""

    schema: int
    model: Model
    target: str
    calibration: Calibration
    versions: dict[str, str]
    artifacts: tuple[Artifact, ...]
    preprocessing: Preprocessing | None = None
    passes: tuple[Rewrite, ...] = ()


class Launch(msgspec.Struct, frozen=True):
    """One fresh process of the agent that timed plain runs. Times in ns, snapshots as the agent read them."""

    init_ns: Count
    first_ns: Count
    samples_ns: tuple[Count, ...]
    peak_bytes: Count | None
    before: dict[str, Any]
    after: dict[str, Any]


class OpTime(msgspec.Struct, frozen=True, kw_only=True):
    """One operator that the runtime ran. us: mean over the typical runs (stats.typical_runs; but see OpProfile), with
    what the profiler cuts off; runs_us: of each profiled run as the profiler told it, none in results that kept only
    the mean.

    op: the runtime's own kind. class_: a class of the breakdown. module: the path of the PyTorch module, or the layer,
    that it came from, "" for the network itself, None where it cannot be told. madds: multiply-adds that it computes,
    bytes: that it reads and writes, weights too; None where they are not known.
    """

    name: str
    op: str
    class_: str = msgspec.field(name="class")
    module: str | None
    shape: tuple[int, ...]
    us: Microseconds
    madds: Count | None
    bytes: Count | None
    runs_us: tuple[Count, ...] = ()


class OpProfile(msgspec.Struct, frozen=True):
    """One process that ran with the runtime's profiler on. invoke_us: whole runs by that profiler, one a run.

    between_us: what passes in them between one operator's end and the next one's start, one a run: the profiler writing
    its records, and dispatch. plain_ns: runs without the profiler in the same process, half before and half after.
    preempted: how often in each run the system gave a core to another program, nothing where that was not told.
    disturbed: all runs were so much longer for it (stats.is_disturbed) that an operator's us is the mean of the quicker
    half of its own times.
    """

    plain_ns: tuple[Count, ...]
    invoke_us: tuple[Count, ...]
    between_us: tuple[int, ...]
    ops: tuple[OpTime, ...]
    before: dict[str, Any]
    after: dict[str, Any]
    preempted: tuple[int, ...] = ()
    disturbed: bool = False


class Commit(msgspec.Struct, frozen=True):
    """What git had checked out where a command ran. unix_time: of the commit; branch: None where it is not known;
    dirty: files that git tracks were not as in the commit.
    """

    id: str
    unix_time: int
    branch: str | None
    dirty: bool


class Origin(msgspec.Struct, frozen=True):
    """When (by the host's clock), by which version of edgeport and on which commit a record was made."""

    unix_time: float
    edgeport: str
    commit: Commit | None = None


class InputData(msgspec.Struct, frozen=True):
    """The file that some inputs' values came from; the others were filled."""

    file: str
    sha256: str
    inputs: tuple[str, ...]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact measured with one runtime on one device. inputs: as they were run. assumed_shapes: by input, where
    the file leaves sizes open and nobody said which to take. takes_outputs: False where the runtime took no buffers
    for outputs whose sizes are known only when the network has run.
    """

    model: str
    file: FileName
    sha256: Sha256
    size_bytes: Count
    device: str
    runtime: str
    runtime_version: str
    precision: str
    num_threads: Threads
    cores: tuple[Count, ...]
    warmup_runs: Count
    inputs: tuple[TensorInfo, ...]
    facts: dict[str, Any]
    launches: tuple[Launch, ...]
    profile: OpProfile | None = None
    origin: Origin | None = None
    assumed_shapes: dict[str, tuple[int, ...]] = {}
    input_data: InputData | None = None
    takes_outputs: bool = True

    @property
    def is_emulated(self) -> bool:
        """Whether its times say nothing of a real device."""
        return bool(self.facts.get("emulated"))


class Criteria(msgspec.Struct, frozen=True):
    """What a comparison is judged by. tolerance: the slowdown that is no regression; effect: the one that must not be
    missed, greater than that; 0.02 is 2%. alpha: the chance that one session calls a slowdown of just the tolerance a
    regression, shared by all comparisons that are made together, of which there are `comparisons`. size_tolerance: by
    which share the file may grow; accuracy_tolerance: which share of the samples may be named wrongly besides; None
    where that is not judged.
    """

    tolerance: float = 0.02
    effect: float = 0.05
    alpha: float = 0.005
    comparisons: int = 1
    size_tolerance: float | None = None
    accuracy_tolerance: float | None = None


class TimedBlock(msgspec.Struct, frozen=True):
    """One fresh process each of the candidate, the baseline and a byte copy of the baseline, timed by turns.

    ns: by arm, burst by burst, of each run; waited_ns: the part of it that the thread which called the runtime waited
    for a core that others had; preempted: how often the system gave a core to another program. Bursts of the same
    position ran beside each other. before, after: what the agent read of the device.
    """

    ns: dict[str, tuple[tuple[Count, ...], ...]]
    waited_ns: dict[str, tuple[tuple[int, ...], ...]]
    preempted: dict[str, tuple[tuple[int, ...], ...]]
    before: dict[str, Any]
    after: dict[str, Any]


class Session(msgspec.Struct, frozen=True):
    """Blocks that are judged together. dropped: those in which the device said that it was throttled."""

    seed: int
    blocks: tuple[TimedBlock, ...]
    dropped: tuple[TimedBlock, ...] = ()


class Accuracy(msgspec.Struct, frozen=True):
    """How many of the same labelled samples each side names rightly (top-1)."""

    source: str
    samples: Count
    baseline_right: Count
    candidate_right: Count


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate measured against its baseline on one device. differences: in words, why they cannot be compared, in
    which case there are no sessions. baselines, candidates: separate launches, that tell of the circumstances and
    profile. spin_percent: by how much the candidate was slowed down on purpose, to try the gate out. origin: of the
    candidate's side.
    """

    name: str
    device: str
    criteria: Criteria
    cores: tuple[int, ...]
    nice: int
    max_minutes: float
    baselines: tuple[Result, ...]
    candidates: tuple[Result, ...]
    sessions: tuple[Session, ...]
    differences: tuple[str, ...] = ()
    accuracy: Accuracy | None = None
    spin_percent: float = 0.0
    origin: Origin | None = None


class ExportOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a model is exported, as it was written on the command line; paths as they were given."""

    assignments: tuple[str, ...] = ()
    weights: str | None = None
    input_shapes: tuple[str, ...] = ()
    target: str | None = None
    calibration_data: str | None = None
    min_sqnr_db: float = MIN_SQNR_DB


class BaselineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that a baseline keeps, what it measured then, and how it is made anew: model as it was given, and the
    options of its export.
    """

    model: str
    options: ExportOptions
    result: Result
    preprocessing: Preprocessing | None = None


class Baseline(msgspec.Struct, frozen=True):
    """baseline.json of a baseline's folder; the artifacts lie beside it, in objects/, named by their hashes."""

    schema: int
    entries: tuple[BaselineEntry, ...]
