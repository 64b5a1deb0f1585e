"""A million cases of the fuzzer, and properties that Hypothesis looks for."""

from __future__ import annotations

import json
import random

import pytest
from faults import fuzz
from faults.mutations import mutated
from faults.targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepbest.errors import KeepbestError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=6) | st.sampled_from(["$tuple", "$set", "$dict", "$torch"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_parsers_bear_anything(tmp_path, name):
    """What is nearly valid gives a result or an error of keepbest's, and nothing else, in no time."""
    tally = fuzz.fuzzed(tmp_path, name, TARGETS[name].cases, seed=1)
    assert tally.tried == TARGETS[name].cases
    assert tally.harmless, tally.findings


@pytest.mark.parametrize("name", ["manifests", "state files", "positions and standings", "indexes", "policies as JSON"])
@given(tree=JSON)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore")
def test_parsers_bear_any_json(tmp_path, name, tree):
    """Any JSON at all gives a result or an error of keepbest's."""
    try:
        TARGETS[name].read(json.dumps(tree).encode(), tmp_path)
    except KeepbestError as error:
        assert str(error)  # noqa: PT017 - most trees give one, and some give none


def test_the_fuzzer_makes_new_things():
    """Mutations are many, and nearly all are other than what they were made of."""
    draw = random.Random(0)
    corpus = TARGETS["manifests"].corpus()
    made = {mutated(draw, corpus) for _ in range(300)}
    assert len(made - set(corpus)) > 250
