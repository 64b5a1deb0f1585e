"""An iterator of tf.data goes on where it stood, shuffle buffers included; one that cannot say where is refused."""

import numpy as np
import pytest

from keepbest import Checkpointer, CheckpointPolicy, open_run
from keepbest.errors import StateMismatchError, UnsupportedStateError


def save(url, **objects):
    with Checkpointer(url, CheckpointPolicy(), **objects) as ckpt:
        ckpt.log(loss=1.0)


def restored(url, **objects):
    ckpt = Checkpointer(url, CheckpointPolicy(), **objects)
    ckpt.restore("latest")
    ckpt.close()


def take(iterator, count):
    return [np.array(next(iterator)).tolist() for _ in range(count)]


PIPELINES = {
    "plain": lambda data: data.batch(3),
    "shuffled": lambda data: data.shuffle(20, seed=1).batch(3),
    "shuffled-without-seed": lambda data: data.shuffle(20).batch(3),
    "repeated": lambda data: data.shuffle(20, seed=1).repeat().batch(3),
    "parallel": lambda data: data.shuffle(20, seed=1).repeat().map(lambda x: x * 2, num_parallel_calls=2).batch(3),
    "prefetched": lambda data: data.repeat().shuffle(20, seed=1).batch(3).prefetch(4),
    "interleaved": lambda data: data.repeat().interleave(lambda x: data.take(x + 1), cycle_length=3).batch(2),
}


@pytest.mark.parametrize("kind", PIPELINES)
def test_the_same_batches_follow(tf, url, kind):
    """What comes after a restore in the middle of an epoch is what would have come."""
    make = lambda: iter(PIPELINES[kind](tf.data.Dataset.range(50)))  # noqa: E731 - one line for each process
    iterator = make()
    take(iterator, 5)
    save(url, data=iterator)
    expected = take(iterator, 11)
    other = make()
    restored(url, data=other)
    assert take(other, 11) == expected
    assert take(other, 11) == take(iterator, 11) if "repeat" in kind else True


def test_the_epochs_after_are_the_same_too(tf, url):
    """With repeat(), the order of each later epoch, shuffled anew, is the one that would have come."""
    make = lambda: iter(tf.data.Dataset.range(20).shuffle(20, seed=4).repeat())  # noqa: E731 - as above
    iterator = make()
    first = take(iterator, 20)
    take(iterator, 7)
    save(url, data=iterator)
    expected = take(iterator, 73)
    assert sorted(expected[13:33]) == sorted(first)
    assert expected[13:33] != first
    other = make()
    restored(url, data=other)
    assert take(other, 73) == expected


def test_an_iterator_at_its_end(tf, url):
    """One that has nothing left has nothing left after a restore."""
    iterator, other = (iter(tf.data.Dataset.range(4)) for _ in range(2))
    take(iterator, 4)
    assert next(iterator, None) is None
    save(url, data=iterator)
    restored(url, data=other)
    assert next(other, None) is None


def test_saving_moves_nothing(tf, url):
    """A save, and a restore that is refused, leave the iterator where it stands."""
    iterator, control = (iter(tf.data.Dataset.range(50).shuffle(10, seed=2).prefetch(3)) for _ in range(2))
    seen, other = [], tf.Variable([1.0])
    with Checkpointer(url, CheckpointPolicy(every_n_steps=1), data=iterator, other=other) as ckpt:
        for _ in range(10):
            seen += take(iterator, 1)
            ckpt.log_step()
    with pytest.raises(StateMismatchError, match=r"other: .*shape"):
        restored(url, data=iterator, other=tf.Variable([1.0, 2.0]))
    seen += take(iterator, 10)
    assert seen == take(control, 20)


def test_another_dataset_is_a_difference(tf, url):
    """Elements of another kind, or another pipeline, are refused with all else that differs; nothing was moved."""
    numbers = tf.data.Dataset.range(50)
    iterator, weights = iter(numbers.shuffle(10, seed=2).batch(2)), tf.Variable([1.0])
    take(iterator, 3)
    save(url, data=iterator, weights=weights)
    weights.assign([7.0])
    floats = iter(numbers.map(lambda x: tf.cast(x, tf.float32)).shuffle(10, seed=2).batch(2))
    with pytest.raises(StateMismatchError, match=r"data: the iterator's elements are .*int64.*float32.* here"):
        restored(url, data=floats, weights=weights)
    other = iter(numbers.batch(2))
    take(other, 2)
    with pytest.raises(StateMismatchError, match="data: the iterator does not take its position"):
        restored(url, data=other, weights=weights)
    assert take(other, 2) == [[4, 5], [6, 7]]
    assert weights.numpy() == [7.0]


def test_what_cannot_say_where_it_stands(tf, url):
    """A generator of Python's, a map that draws random numbers: the error names the object and TensorFlow's reason."""
    python = tf.data.Dataset.from_generator(lambda: iter(range(5)), output_signature=tf.TensorSpec((), tf.int64))
    random = tf.data.Dataset.range(5).map(lambda x: tf.random.uniform(()))
    for dataset in (python, random):
        with pytest.raises(UnsupportedStateError, match=r"cannot save batches: .*cannot say where it stands.*state"):
            Checkpointer(url, CheckpointPolicy(), batches=iter(dataset))


def test_what_its_owner_says_may_be_left_out(tf, url):
    """TensorFlow's own option to save a pipeline without its outer state is heeded."""
    options = tf.data.Options()
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    dataset = tf.data.Dataset.range(9).map(lambda x: x + tf.random.uniform((), 0, 1, tf.int64)).with_options(options)
    iterator, other = iter(dataset), iter(dataset)
    take(iterator, 4)
    save(url, data=iterator)
    restored(url, data=other)
    assert take(other, 2) == [4, 5]


def test_a_dataset_is_no_iterator(tf, url):
    """A dataset itself is refused with what to hand over, and an iterator hidden in other data with how."""
    with pytest.raises(UnsupportedStateError, match=r"cannot save data: .*iter\(dataset\.repeat\(\)\)"):
        Checkpointer(url, CheckpointPolicy(), data=tf.data.Dataset.range(3))
    with pytest.raises(UnsupportedStateError, match=r"cannot save data\.train: .*by a name of its own"):
        Checkpointer(url, CheckpointPolicy(), data={"train": iter(tf.data.Dataset.range(3))})


def test_a_module_may_hold_it(tf, url):
    """An iterator that a module has as an attribute goes on with the module."""

    def make():
        module = tf.Module()
        module.w, module.batches = tf.Variable(1.0), iter(tf.data.Dataset.range(50).shuffle(9, seed=1))
        return module

    one, other = make(), make()
    take(one.batches, 5)
    save(url, model=one)
    restored(url, model=other)
    assert take(other.batches, 5) == take(one.batches, 5)


def test_the_shuffle_buffer_is_what_it_costs(tf, url):
    """A checkpoint holds the elements that wait in the buffer, each about once."""
    images = tf.data.Dataset.range(400).map(lambda x: tf.random.stateless_uniform((1000,), seed=[x, 1]))
    iterator = iter(images.shuffle(100, seed=1))
    next(iterator)
    save(url, data=iterator)
    held = open_run(url).latest.load("data")["bytes"].nbytes
    assert 100 * 4000 <= held <= 1.2 * 100 * 4000


def test_a_resume_within_an_epoch_says_nothing_of_batches(tf, url):
    """With the iterator among the objects, no warning speaks of batches that come twice."""
    policy = CheckpointPolicy(every_n_steps=1)
    iterator = iter(tf.data.Dataset.range(50))
    with pytest.raises(KeyboardInterrupt), Checkpointer(url, policy, data=iterator) as ckpt:
        for _ in ckpt.epochs(2):
            take(iterator, 1)
            ckpt.log_step()
            raise KeyboardInterrupt
    other = iter(tf.data.Dataset.range(50))
    with Checkpointer(url, policy, data=other) as ckpt:
        for _ in ckpt.epochs(1):
            assert ckpt.position.steps_in_epoch == 1
            assert take(other, 1) == [1]
            ckpt.log()
