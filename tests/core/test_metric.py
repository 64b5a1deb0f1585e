"""One logged value becomes one float, or an error that says what to do."""

import math
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from keepbest.core.metric import Measured, check_reduce, scalar, scalars
from keepbest.errors import ConfigError, MetricValueError


class NumpyOnly:
    """A tensor as TensorFlow's is: its value comes by numpy() alone."""

    def __init__(self, value):
        self._value = np.asarray(value)
        self.shape = self._value.shape

    def numpy(self):
        return self._value[()]


class Symbolic:
    """A tensor inside a traced function: it has a shape and no value."""

    shape = ()

    def numpy(self):
        raise NotImplementedError("no value while tracing")


class Unfetchable:
    """A vector whose fetching would wait for the device."""

    shape = (1_000_000,)

    def tolist(self):
        raise AssertionError("the vector was fetched")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(0.5, 0.5, id="float"),
        pytest.param(3, 3.0, id="int"),
        pytest.param(True, 1.0, id="bool"),
        pytest.param(Decimal("0.25"), 0.25, id="decimal"),
        pytest.param(Fraction(1, 4), 0.25, id="fraction"),
        pytest.param(np.float64(0.5), 0.5, id="float64"),
        pytest.param(np.float16(0.5), 0.5, id="float16"),
        pytest.param(np.int64(7), 7.0, id="int64"),
        pytest.param(np.bool_(True), 1.0, id="numpy-bool"),
        pytest.param(np.array(0.5), 0.5, id="0-d-array"),
        pytest.param(np.array([[0.5]]), 0.5, id="size-1-array"),
        pytest.param([0.5], 0.5, id="list-of-one"),
        pytest.param(NumpyOnly(0.5), 0.5, id="numpy()-only"),
        pytest.param(NumpyOnly([0.5]), 0.5, id="numpy()-only-size-1"),
        pytest.param(Measured(np.float32(0.5), step=3), 0.5, id="measured"),
        pytest.param(float("-inf"), -math.inf, id="infinity"),
    ],
)
def test_one_number_is_taken_as_it_is(value, expected):
    """Whatever holds one number is logged as that number, and as a plain float."""
    found = scalar("m", value)
    assert found == expected
    assert type(found) is float


def test_nan_passes_through():
    """NaN is a value that can be logged; what it means is for the monitor to say."""
    assert math.isnan(scalar("m", np.float32("nan")))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        pytest.param("0.5", "a string", id="string"),
        pytest.param(np.array("x"), "a string", id="string-array"),
        pytest.param(None, "None", id="none"),
        pytest.param({"loss": 1}, "log its entries under names of their own", id="dict"),
        pytest.param(1j, "complex", id="complex"),
        pytest.param(np.complex64(1), "complex", id="numpy-complex"),
        pytest.param(10**400, "too large", id="huge-int"),
        pytest.param(np.array([0.1, 0.2]), "shape (2,)", id="vector"),
        pytest.param([0.1, 0.2], "reduce='mean'", id="list"),
        pytest.param(np.zeros((0,)), "shape (0,)", id="empty-array"),
        pytest.param([], "empty", id="empty-list"),
        pytest.param((0.5).hex, "call it", id="forgotten-parentheses"),
        pytest.param(object(), "of type object", id="object"),
        pytest.param(Symbolic(), "outside of compiled and traced functions", id="symbolic"),
        pytest.param(type("M", (), {"compute": None})(), "compute()", id="torchmetrics"),
        pytest.param(type("M", (), {"result": None})(), "result()", id="keras-metric"),
    ],
)
def test_what_is_not_one_number_is_refused_with_advice(value, says):
    """A value that is not one number raises an error that names the metric and says what to do."""
    with pytest.raises(MetricValueError) as caught:
        scalar("val_f1", value)
    assert "val_f1" in str(caught.value)
    assert says in str(caught.value)
    assert caught.value.metric == "val_f1"


def test_a_vector_nobody_reduces_is_not_fetched():
    """A vector logged by mistake is refused by its shape, without waiting for a device to hand it over."""
    with pytest.raises(MetricValueError, match="reduce='mean'"):
        scalar("m", Unfetchable())


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [("mean", 2.5), ("min", 1.0), ("max", 4.0), (0, 1.0), (3, 4.0), (-1, 4.0)],
)
@pytest.mark.parametrize("vector", [np.array([[1.0, 2.0], [3.0, 4.0]]), [1, 2, 3, 4], [[1, 2], (3, 4.0)]], ids=type)
def test_a_vector_is_reduced_as_asked(vector, reduce, expected):
    """A named reduction makes one number of a vector, an index picks one element of it flattened."""
    assert scalar("m", vector, reduce) == expected


@pytest.mark.parametrize("reduce", ["mean", "min", "max"])
def test_nan_in_a_vector_is_not_lost(reduce):
    """A vector with a NaN in it reduces to NaN, wherever the NaN stands."""
    assert math.isnan(scalar("m", [math.nan, 1.0], reduce))
    assert math.isnan(scalar("m", [1.0, math.nan], reduce))


@pytest.mark.parametrize("index", [4, -5])
def test_an_index_outside_the_vector_is_refused(index):
    """An index that the vector does not have is an error, never another element."""
    with pytest.raises(MetricValueError, match=f"no element {index}"):
        scalar("m", [1, 2, 3, 4], index)


def test_one_number_needs_no_reduction():
    """A reduction leaves a single number alone, so values may be converted before they are judged."""
    assert scalar("m", 0.5, "mean") == scalar("m", np.array([0.5]), 3) == 0.5


@pytest.mark.parametrize("reduce", ["median", True, 1.5, ""])
def test_an_unknown_reduction_is_refused(reduce):
    """A reduction that does not exist is an error that lists the ones that do."""
    with pytest.raises(ConfigError, match="'mean', 'min', 'max'"):
        check_reduce(reduce)


def test_scalars_reduce_by_name():
    """Each metric of a row is converted, and reduced by its own reduction."""
    assert scalars({"a": [1, 3], "b": np.float32(2), "c": 1}, {"a": "mean", "b": "max"}) == {"a": 2, "b": 2, "c": 1}


def test_torch_tensors():
    """PyTorch tensors are taken, those with a gradient or in bfloat16 too, and without a warning."""
    torch = pytest.importorskip("torch")
    assert scalar("m", torch.tensor(0.5, requires_grad=True)) == 0.5
    assert scalar("m", torch.tensor([0.5], dtype=torch.bfloat16)) == 0.5
    assert scalar("m", torch.tensor([1.0, 2.0]), "mean") == 1.5
    with pytest.raises(MetricValueError, match="cannot be read here"):
        scalar("m", torch.zeros((), device="meta"))


JAX = """
import jax, pytest
from keepbest.core.metric import scalar
from keepbest.errors import MetricValueError

assert scalar("m", jax.numpy.float32(0.5)) == 0.5

def step(x):
    with pytest.raises(MetricValueError, match="cannot be read here"):
        scalar("m", x)
    return x

jax.jit(step)(1.0)
"""


def test_jax_arrays():
    """JAX arrays are taken, and a traced one is an error that says where to log.

    In a process of its own: who has used JAX may not fork any more.
    """
    subprocess.run([sys.executable, "-W", "error", "-c", JAX], check=True)
