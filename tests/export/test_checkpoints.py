"""Published checkpoints load into the networks that are theirs and compute what their authors' code computes.

Those given to another network are named, with what to ask for instead. The checkpoints are of random numbers, made
without the networks: see layouts.py.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from command_line import Edgeport

from edgeport import catalog
from edgeport.errors import ExportError
from edgeport.export import capture

from . import layouts
from .layouts import Layout, State

USAGE = 2


def module_prefixed(state: State) -> State:
    return {f"module.{key}": tensor for key, tensor in state.items()}


FORMS: dict[str, Callable[[State], object]] = {
    "raw": lambda state: state,
    "raw, module.": module_prefixed,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "state_dict, module.": lambda state: {"state_dict": module_prefixed(state)},
    "without counts of batches": lambda state: {k: t for k, t in state.items() if "num_batches_tracked" not in k},
}

# What the network is asked for as, and a checkpoint that is its own.
OWN: list[tuple[str, dict[str, Any], Callable[[], Layout]]] = [
    ("shufflenet_v2", {}, lambda: layouts.torchvision_v2(1.0)),
    ("shufflenet_v2", {"width": 0.5}, lambda: layouts.torchvision_v2(0.5)),
    ("shufflenet_v2", {"variant": "official"}, lambda: layouts.megvii_v2(1.0)),
    ("shufflenet_v2", {"variant": "official", "width": 0.5}, lambda: layouts.megvii_v2(0.5)),
    ("shufflenet_v1", {"groups": 3, "width": 0.5}, lambda: layouts.megvii_v1(3, 0.5)),
    ("shufflenet_v1", {"groups": 8, "width": 0.5}, lambda: layouts.megvii_v1(8, 0.5)),
    ("shufflenet_v1", {"groups": 3, "width": 1.0}, lambda: layouts.megvii_v1(3, 1.0)),
    ("mobilenet_v2", {}, layouts.torchvision_mobilenet_v2),
]


def saved(folder: Path, content: object) -> Path:
    path = folder / "weights.pth"
    torch.save(content, path)
    return path


@pytest.mark.parametrize(("model", "arguments", "layout"), OWN, ids=[f"{m} {a}" for m, a, _ in OWN])
def test_a_network_computes_what_its_checkpoints_authors_do(
    model: str, arguments: dict[str, Any], layout: Callable[[], Layout], tmp_path: Path
) -> None:
    state, forward = layout()
    network = capture.make_network(catalog.find_factory(model), arguments, saved(tmp_path, state))
    image = torch.randn((2, 3, 64, 96), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = forward(image), network(image)
    assert float(wanted.std()) > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("model", "arguments", "layout"),
    [
        ("shufflenet_v2", {"width": 0.5}, layouts.torchvision_v2(0.5)),
        ("shufflenet_v2", {"variant": "official", "width": 0.5}, layouts.megvii_v2(0.5)),
        ("shufflenet_v1", {"groups": 3, "width": 0.5}, layouts.megvii_v1(3, 0.5)),
        ("mobilenet_v2", {}, layouts.torchvision_mobilenet_v2()),
    ],
    ids=["torchvision v2", "megvii v2", "megvii v1", "torchvision mobilenet_v2"],
)
def test_every_form_of_a_checkpoint_loads(
    form: str, model: str, arguments: dict[str, Any], layout: Layout, tmp_path: Path
) -> None:
    path = saved(tmp_path, FORMS[form](layout.state))
    loaded = capture.make_network(catalog.find_factory(model), arguments, path).state_dict()
    counts = [key for key in loaded if key.endswith("num_batches_tracked")]
    assert set(loaded) == set(layout.state)
    assert all(torch.equal(loaded[key], layout.state[key]) for key in loaded if key not in counts)


# Of another network

MEGVII_V2, TORCHVISION_V2 = "megvii's ShuffleNetV2", "torchvision's ShuffleNetV2"
ALIEN: list[tuple[str, dict[str, Any], Callable[[], Layout], str, str]] = [
    (
        *("shufflenet_v2", {}, lambda: layouts.megvii_v2(1.5)),
        *(MEGVII_V2, "shufflenet_v2 --set variant=official --set width=1.5"),
    ),
    (
        *("shufflenet_v2", {"variant": "official"}, lambda: layouts.torchvision_v2(1.0)),
        *(TORCHVISION_V2, "shufflenet_v2 --set variant=torchvision --set width=1.0"),
    ),
    (
        *("shufflenet_v2", {"width": 0.5}, lambda: layouts.torchvision_v2(2.0)),
        *(TORCHVISION_V2, "shufflenet_v2 --set variant=torchvision --set width=2.0"),
    ),
    (
        *("shufflenet_v2", {}, lambda: layouts.torchvision_v2(1.0, classes=10)),
        *(TORCHVISION_V2, "shufflenet_v2 --set variant=torchvision --set width=1.0 --set num_classes=10"),
    ),
    (
        *("shufflenet_v2", {"variant": "official"}, lambda: layouts.megvii_v1(3, 0.5)),
        *("megvii's ShuffleNet v1", "shufflenet_v1 --set groups=3 --set width=0.5"),
    ),
    (
        *("shufflenet_v1", {"groups": 3}, lambda: layouts.megvii_v1(8, 1.0)),
        *("megvii's ShuffleNet v1", "shufflenet_v1 --set groups=8 --set width=1.0"),
    ),
    (
        *("shufflenet_v1", {}, lambda: layouts.megvii_v2(0.5)),
        *(MEGVII_V2, "shufflenet_v2 --set variant=official --set width=0.5"),
    ),
    (
        *("mobilenet_v1", {}, layouts.torchvision_mobilenet_v2),
        *("torchvision's MobileNetV2", "mobilenet_v2 --set width=1.0"),
    ),
]


@pytest.mark.parametrize(
    ("model", "arguments", "layout", "whose", "instead"), ALIEN, ids=[f"{a[-1]} to {a[0]} {a[1]}" for a in ALIEN]
)
def test_a_checkpoint_of_another_network_is_named_with_what_to_ask_for(
    model: str, arguments: dict[str, Any], layout: Callable[[], Layout], whose: str, instead: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, {"state_dict": module_prefixed(layout().state)})
    with pytest.raises(ExportError) as failure:
        capture.make_network(catalog.find_factory(model), arguments, path)
    first, _, rest = str(failure.value).partition("\n")
    assert first == f"--weights {path} does not fit this network: it holds {whose} weights; use {instead}"
    assert rest.startswith("Of this network's, ")


CATALOGUE = [(name, variant.arguments) for name in catalog.model_names() for variant in catalog.variants(name)]
SHAPELESS = ("padding",)  # arguments that weights do not tell


@pytest.mark.parametrize(("name", "arguments"), CATALOGUE, ids=[f"{n} {a}" for n, a in CATALOGUE])
def test_every_published_variant_is_recognised(name: str, arguments: dict[str, Any]) -> None:
    factory = catalog.find_factory(name)
    with torch.device("meta"):
        state = catalog.build(factory, {**arguments, "num_classes": 12}).state_dict()
    assert factory.recognise is not None
    _, found = factory.recognise({key: tuple(tensor.shape) for key, tensor in state.items()})
    assert found == {**{k: v for k, v in arguments.items() if k not in SHAPELESS}, "num_classes": 12}


def test_what_nobody_knows_is_not_guessed(tmp_path: Path) -> None:
    state = layouts.megvii_v2(1.0).state
    del state["features.3.branch_main.0.weight"]  # nearly megvii's
    with pytest.raises(ExportError) as failure:
        capture.make_network(catalog.find_factory("shufflenet_v2"), {}, saved(tmp_path, state))
    assert "it holds" not in str(failure.value)
    assert "missing: conv1.0.weight" in str(failure.value)


@pytest.mark.parametrize(
    "state",
    [
        {"classifier.weight": torch.zeros(3)},
        {"features.1.branch_main_2.0.weight": torch.zeros(240), "features.1.branch_main_1.0.weight": torch.zeros(2, 0)},
        {"fc.weight": torch.zeros(()), "conv5.0.weight": torch.zeros(4, 464)},
        {"classifier.weight": torch.zeros(10, 0)},
        {},
    ],
    ids=["vector", "no groups", "scalar", "no width", "nothing"],
)
def test_oddly_shaped_tensors_are_nobodys(state: State, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"does not fit this network; \d+ missing"):
        capture.make_network(catalog.find_factory("mobilenet_v2"), {}, saved(tmp_path, state))


def test_what_is_no_state_dict_says_what_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": layouts.megvii_v1(3, 0.5).state, "epoch": 1})
    with pytest.raises(ExportError, match="holds a dict of model, epoch, not a state dict of tensors; save it with"):
        capture.make_network(catalog.find_factory("shufflenet_v1"), {}, path)


OWN_MODULE = "from torch import nn\n\ndef build():\n    return nn.ModuleDict({'module': nn.Linear(2, 2)})\n"


def test_a_networks_own_module_called_module_is_not_taken_for_a_wrapper(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(OWN_MODULE)
    state = {"module.weight": torch.randn(2, 2), "module.bias": torch.randn(2)}
    network = capture.make_network(catalog.find_factory(f"{tmp_path / 'net.py'}:build"), {}, saved(tmp_path, state))
    assert torch.equal(network.state_dict()["module.weight"], state["module.weight"])


# What they were trained on

MEGVII = {"colors": "BGR", "scale": 1.0, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


@pytest.mark.parametrize(
    ("model", "sets", "layout"),
    [
        ("shufflenet_v1", ("width=0.5",), layouts.megvii_v1(3, 0.5)),
        ("shufflenet_v2", ("width=0.5", "variant=official"), layouts.megvii_v2(0.5)),
    ],
    ids=["v1", "v2"],
)
def test_megviis_weights_are_calibrated_with_bgr_of_0_to_255(
    model: str, sets: tuple[str, ...], layout: Layout, tmp_path: Path, here: Edgeport
) -> None:
    """Said in the manifest, and to be seen in the range of the quantised input."""
    weights = saved(tmp_path, layout.state)
    flags = [word for text in sets for word in ("--set", text)]
    options = ("--weights", weights, "--input-shape=1,3,64,64", "--precisions=int8", "--formats=onnx", "--target=x86")
    here("export", model, *flags, *options, "--min-sqnr-db=0", "-o", tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert {key: manifest["preprocessing"][key] for key in MEGVII} == MEGVII
    assert manifest["model"]["weights"] == "weights.pth"
    assert 0.8 < input_scale(tmp_path / f"{model}.int8.onnx") <= 1.0


BESIDE = "from torch import nn\nfrom edgeport.records import Preprocessing\nPREPROCESSING = {}\nbuild = nn.ReLU\n"
INSIDE = "from torch import nn\n\nclass Net(nn.ReLU):\n    PREPROCESSING = {}\n\nbuild = Net\n"


@pytest.mark.parametrize("source", [BESIDE, INSIDE], ids=["beside the factory", "in the network"])
@pytest.mark.parametrize(
    ("declared", "why"),
    [("{'mean': 0}", "it is a dict"), ("__import__('edgeport.records').records.Preprocessing(mean=0.5)", "Expected")],
)
def test_a_preprocessing_that_is_none(source: str, declared: str, why: str, tmp_path: Path, here: Edgeport) -> None:
    (tmp_path / "net.py").write_text(source.format(declared))
    done = here("export", f"{tmp_path / 'net.py'}:build", "--input-shape=1,3,8,8", "-o", tmp_path / "out", code=USAGE)
    assert f"PREPROCESSING of {tmp_path / 'net.py'}:build: {why}" in done.err
    assert "write edgeport.records.Preprocessing(" in done.err


def input_scale(path: Path) -> float:
    """What one step of the quantised input stands for."""
    graph = onnx.load(path).graph
    name = graph.input[0].name
    first = next(node for node in graph.node if name in node.input)
    if first.op_type == "SpaceToDepth":  # what is quantised is the image as blocks of pixels
        first = next(node for node in graph.node if first.output[0] in node.input)
    assert first.op_type == "QuantizeLinear"
    return float(next(onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name == first.input[1]))
