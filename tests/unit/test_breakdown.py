"""What a profile adds up to, by class and by module."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_results import op, profile, shufflenet_profile

from edgeport import breakdown
from edgeport.attribution import CLASS_NAMES
from edgeport.breakdown import ROOT, UNATTRIBUTED
from edgeport.records import OpProfile

CLASSES = st.sampled_from(CLASS_NAMES)
MODULES = st.sampled_from([None, "", "stem", "stage2.0.branch1.0", "stage2.1.branch2.0", "stage3.0"])
PROFILES = st.lists(st.builds(op, CLASSES, st.floats(0, 200), MODULES, st.integers(0, 10**8))).map(
    lambda o: profile(*o)
)


def test_classes_stand_in_the_papers_order_with_their_shares() -> None:
    lines = breakdown.by_class(shufflenet_profile())
    assert [line.key for line in lines] == [*CLASS_NAMES, UNATTRIBUTED]
    assert [line.us for line in lines] == [500, 100, 100, 200, 50, 50]
    assert [line.share for line in lines] == pytest.approx([0.5, 0.1, 0.1, 0.2, 0.05, 0.05])


def test_modules_are_cut_off_at_the_depth_asked_for_slowest_first() -> None:
    lines = breakdown.by_module(shufflenet_profile(), 1)
    assert [(line.key, line.us) for line in lines] == [
        ("stage2", 700),
        ("stage3", 100),
        (ROOT, 100),
        (UNATTRIBUTED, 100),
    ]
    assert lines[0].madds == 60_000_000


def test_at_depth_zero_the_network_is_one_line() -> None:
    lines = breakdown.by_module(shufflenet_profile(), 0)
    assert [(line.key, line.us) for line in lines] == [(ROOT, 900), (UNATTRIBUTED, 100)]


def test_operators_keep_the_order_in_which_they_ran() -> None:
    pairs = breakdown.by_op(shufflenet_profile())
    assert [line.us for _, line in pairs] == [400, 200, 100, 100, 100, 50]
    assert pairs[0][1].gmacs == pytest.approx(100)


def test_what_no_module_can_be_given_is_said() -> None:
    assert breakdown.unattributed_share(shufflenet_profile()) == pytest.approx(0.1)


@given(PROFILES, st.integers(0, 4))
def test_no_time_is_lost_or_counted_twice_however_it_is_broken_down(made: OpProfile, depth: int) -> None:
    for lines in (breakdown.by_class(made), breakdown.by_module(made, depth)):
        assert sum(line.us for line in lines) == pytest.approx(1000)
        assert sum(line.share for line in lines) == pytest.approx(1)


@given(PROFILES)
def test_every_operators_cost_is_in_its_class_and_in_its_module_if_it_has_one(made: OpProfile) -> None:
    known = [o for o in made.ops if o.module is not None]
    for lines, ops in ((breakdown.by_class(made), made.ops), (breakdown.by_module(made, 2), known)):
        assert sum(line.madds for line in lines) == sum(o.madds or 0 for o in ops)
        assert sum(line.bytes for line in lines) == 4096 * len(ops)


def test_an_operator_too_short_to_be_timed_has_no_rate() -> None:
    assert breakdown.by_op(profile(op("conv", 0, "stem", 1000)))[0][1].gmacs == 0
