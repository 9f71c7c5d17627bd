"""Random networks: a number makes the same one always, and what edgeport makes of each is what PyTorch computes."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import check_random_networks as script
import random_blocks
from check_random_networks import BEGIN, END, Request, Worker
from differential import ENOUGH_DB, FORMATS, MOST_ERROR, Fault, Record, judged

SEEDS = range(20)
KNOWN: dict[int, str] = {
    0: "litert-torch, which takes what the own lowering does not know, refuses transposed convolutions of this form"
}


@pytest.fixture(scope="module")
def records() -> Iterator[Callable[[int], Record]]:
    worker = Worker()
    yield lambda seed: script.checked(worker, Request(seed))
    worker.stop()


@pytest.mark.parametrize(
    "seed",
    [pytest.param(s, marks=pytest.mark.xfail(reason=KNOWN[s], strict=True)) if s in KNOWN else s for s in SEEDS],
)
def test_each_network_is_right_in_every_file(seed: int, records: Callable[[int], Record]) -> None:
    record = records(seed)
    assert record.faults == [], str(random_blocks.make(seed))
    assert set(record.figures["edgeport"]) == {f"{p}.{f}" for p in ("fp32", "int8") for f in FORMATS}


def test_a_number_makes_the_same_network_always() -> None:
    first, again, other = (random_blocks.make(seed) for seed in (3, 3, 4))
    assert str(first) == str(again) != str(other)
    for one, two in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    assert all(np.array_equal(a, b) for a, b in zip(first.samples(2, 1), again.samples(2, 1), strict=True))


def test_samples_of_the_verdict_are_not_those_of_the_calibration() -> None:
    network = random_blocks.make(3)
    assert not any(np.array_equal(a, b) for a, b in zip(network.samples(2, 1), network.samples(2, 2), strict=True))


def test_many_numbers_make_every_kind_of_network_whose_results_are_of_order_one() -> None:
    networks = [random_blocks.make(seed) for seed in range(60)]
    assert {network.kind for network in networks} == set(random_blocks.KINDS)
    for network in networks:
        with torch.no_grad():
            made = network(*(torch.from_numpy(array[0]) for array in network.samples(1, 1)))
        assert all(torch.isfinite(value).all() and float(value.abs().max()) < 1e4 for value in made)


def test_smaller_networks_keep_the_weights_and_the_last_of_them_has_one_step() -> None:
    network = random_blocks.make(3)
    first = next(iter(network.smaller()))
    assert len(first.outputs) == 1
    assert len(first.steps) < len(network.steps)
    lone = Request(3, smaller=(len(network.outputs),)).network()
    assert [step.name for step in lone.steps] == list(lone.outputs)
    ours, theirs = lone.state_dict(), network.state_dict()
    assert all(
        any(torch.equal(value, other) for other in theirs.values() if other.shape == value.shape)
        for value in ours.values()
    )


def test_a_piece_that_loses_more_than_others_is_a_fault() -> None:
    own = {"fp32.onnx": {"0": 2 * MOST_ERROR}, "int8.onnx": {"0": 20.0, "1": 30.0, "2": ENOUGH_DB}}
    plain = {"int8.onnx": {"0": 22.0, "1": 30.5, "2": 50.0}}
    stock = {"int8": {"0": 19.0, "1": 30.9, "2": 50.0}}
    faults = [(f.file, f.kind, f.piece) for f in judged("onnx", own, [plain, stock])]
    assert faults == [("fp32.onnx", "wrong", "0"), ("int8.onnx", "noisy", "0")]


def test_a_run_goes_on_where_it_was_ended_and_outlives_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    def check(worker: Worker, request: Request) -> Record:
        asked.append(request.seed)
        return Record(
            request.seed, "images", 3, faults=[Fault("int8.tflite", "crashed", "exit code -6")][: request.seed % 2]
        )

    monkeypatch.setattr(script, "checked", check)
    results = tmp_path / "results.jsonl"
    assert script.run(results, [Request(0)], 1, 1) == 0
    assert script.run(results, [Request(seed) for seed in range(3)], 2, 1) == 1
    assert sorted(asked) == [0, 1, 2]
    assert sorted(record.seed for record in script.read(results)) == [0, 1, 2]
    assert "1 (images, 3 steps" in capsys.readouterr().out


def test_a_worker_whose_process_ends_says_so_and_starts_another(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    with monkeypatch.context() as patch:
        patch.setattr(script, "__file__", "/dev/null")  # a script that ends at once
        lost = worker.check(Request(1))
    assert [fault.kind for fault in lost.faults] == ["crashed"]
    assert lost.seed == 1


def test_the_page_has_the_figures_between_its_markers(tmp_path: Path) -> None:
    results, page = tmp_path / "results.jsonl", tmp_path / "page.md"
    records = [Record(1, "images", 3), Record(2, "tokens", 4, faults=[Fault("int8.onnx", "noisy", "3 dB", "0")])]
    results.write_text("".join(script.line(record) for record in records))
    page.write_text(f"above\n{BEGIN}old\n{END}\nbelow\n")
    assert script.report(results, page) == 1
    text = page.read_text()
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert "old" not in text
    assert "2 networks on " in text
    assert "| int8.onnx | noisy | 1 | 2 |" in text
