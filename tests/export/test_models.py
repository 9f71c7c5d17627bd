"""The catalogue's networks are those of the papers, and published weights fit them."""

import importlib
import json

import pytest
import torch
from command_line import Edgeport
from torch import nn

from edgeport import catalog
from edgeport.errors import ExportError

# Parameters: those that torchvision's weights state, and (MobileNetV2 other than 1.0) the official release's table.
PARAMETERS = {
    ("shufflenet_v2", 0.5): 1_366_792,
    ("shufflenet_v2", 1.0): 2_278_604,
    ("shufflenet_v2", 1.5): 3_503_624,
    ("shufflenet_v2", 2.0): 7_393_996,
    ("mobilenet_v2", 1.4): 6_108_776,
    ("mobilenet_v2", 1.0): 3_504_872,
    ("mobilenet_v2", 0.75): 2_636_424,
    ("mobilenet_v2", 0.5): 1_968_680,
    ("mobilenet_v2", 0.35): 1_677_128,
}
TORCHVISION_KEYS = {
    "shufflenet_v2": {
        "conv1.0.weight": (24, 3, 3, 3),
        "conv1.1.running_var": (24,),
        "stage2.0.branch1.0.weight": (24, 1, 3, 3),
        "stage2.0.branch1.2.weight": (58, 24, 1, 1),
        "stage2.0.branch2.6.num_batches_tracked": (),
        "stage3.1.branch2.5.weight": (116, 116, 1, 1),
        "stage4.3.branch2.6.bias": (232,),
        "conv5.0.weight": (1024, 464, 1, 1),
        "fc.weight": (1000, 1024),
        "fc.bias": (1000,),
    },
    "mobilenet_v2": {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.1.conv.0.0.weight": (32, 1, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.2.conv.1.0.weight": (96, 1, 3, 3),
        "features.17.conv.2.weight": (320, 960, 1, 1),
        "features.17.conv.3.running_mean": (320,),
        "features.18.0.weight": (1280, 320, 1, 1),
        "classifier.1.bias": (1000,),
    },
}
NUMBER_OF_KEYS = {"shufflenet_v2": 338, "mobilenet_v2": 314}
PAPERS = {"shufflenet_v2": "1807.11164", "mobilenet_v2": "1801.04381"}


def build(name: str, **arguments: float) -> nn.Module:
    network = catalog.build(catalog.find_factory(name), arguments)
    assert isinstance(network, nn.Module)
    return network


@pytest.mark.parametrize(("name", "width"), PARAMETERS, ids=str)
def test_parameters(name: str, width: float) -> None:
    assert sum(p.numel() for p in build(name, width=width).parameters()) == PARAMETERS[name, width]


@pytest.mark.parametrize("name", sorted(TORCHVISION_KEYS))
def test_keys_are_those_of_torchvision(name: str) -> None:
    state = build(name).state_dict()
    found = {key: tuple(state[key].shape) for key in TORCHVISION_KEYS[name] if key in state}
    assert found == TORCHVISION_KEYS[name]
    assert len(state) == NUMBER_OF_KEYS[name]


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_every_network_says_where_it_comes_from_and_what_it_takes(name: str) -> None:
    factory = catalog.find_factory(name)
    assert factory.input_shapes == ((1, 3, 224, 224),)
    assert factory.preprocessing is not None
    assert PAPERS[name] in str(factory.paper)


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_networks_answer_for_any_batch_size_and_number_of_classes(name: str) -> None:
    network = build(name, num_classes=7).eval()
    with torch.no_grad():
        for shape in ((1, 3, 32, 32), (2, 3, 64, 96)):
            out = network(torch.randn(shape))
            assert out.shape == (shape[0], 7)
            assert out.isfinite().all()


def test_a_width_that_the_paper_does_not_have_names_those_that_it_has() -> None:
    with pytest.raises(ExportError, match=r"ValueError: width is 3.*0\.5, 1\.0, 1\.5, 2\.0"):
        build("shufflenet_v2", width=3)


@pytest.mark.parametrize("width", [0, -1.0])
def test_a_width_of_nothing_is_refused(width: float) -> None:
    with pytest.raises(ExportError, match="must be positive"):
        build("mobilenet_v2", width=width)


@pytest.mark.parametrize(("channels", "rounded"), [(32 * 0.35, 16), (24 * 0.75, 24), (16 * 0.35, 8), (32 * 1.4, 48)])
def test_channels_are_rounded_as_in_the_official_code(channels: float, rounded: int) -> None:
    assert importlib.import_module("edgeport.models.mobilenet_v2").make_divisible(channels) == rounded


def test_channel_shuffle_interleaves_groups() -> None:
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert importlib.import_module("edgeport.models.shufflenet_v2").channel_shuffle(x, 2).flatten().tolist() == [
        0,
        3,
        1,
        4,
        2,
        5,
    ]


def test_the_list_of_models_has_every_published_variant(here: Edgeport) -> None:
    listed = {m["name"]: m for m in json.loads(here("models", "--format=json").out)}
    assert list(listed) == catalog.model_names()
    for name, model in listed.items():
        assert [v["arguments"] for v in model["variants"]] == [v.arguments for v in catalog.variants(name)]
    assert [1, 3, 128, 128] in [v["input_shape"] for v in listed["mobilenet_v1"]["variants"]]
    said = here("models").out
    assert "width=1.0 input=1x3x160x160," in said
    assert "--format xml: choose from table, json" in here("models", "--format=xml", code=2).err
