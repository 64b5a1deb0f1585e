"""A TensorFlow loop of one's own on real images, GradientTape and tf.data, with keepbest in three lines (marked ◀).

    python examples/tensorflow_loop.py [RUN] [EPOCHS]

RUN is a folder, or a bucket's URL: s3://my-bucket/run. Kill it at any moment and start it again: it continues, and ends
with the same weights, bit for bit: the order of the images, which is shuffled, and the dropout are continued too.
"""

import sys

import keras
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keepbest import Checkpointer, CheckpointPolicy

BATCH = 32


def load_data():
    digits = load_digits()  # 1,797 images of 8 × 8 pixels
    x, y = (digits.data / 16).astype("float32"), digits.target.astype("int64")
    x_train, x_val, y_train, y_val = train_test_split(x, y, test_size=0.25, random_state=0, stratify=y)
    train = tf.data.Dataset.from_tensor_slices((x_train, y_train)).shuffle(512, seed=0).repeat().batch(BATCH)
    return iter(train), len(x_train) // BATCH, (tf.constant(x_val), tf.constant(y_val))


class Dense(tf.Module):
    """Weights and a bias."""

    def __init__(self, generator, inputs, outputs):
        super().__init__()
        self.w = tf.Variable(generator.normal([inputs, outputs], stddev=inputs**-0.5))
        self.b = tf.Variable(tf.zeros(outputs))

    def __call__(self, x):  # noqa: D102
        return x @ self.w + self.b


class Classifier(tf.Module):
    """Two layers with dropout between them."""

    def __init__(self):
        super().__init__()
        self.random = tf.random.Generator.from_seed(0)  # a part of the state, as the variables are
        self.layers = [Dense(self.random, 64, 128), Dense(self.random, 128, 10)]

    def __call__(self, x, *, training=False):  # noqa: D102
        x = tf.nn.relu(self.layers[0](x))
        if training:
            kept = tf.cast(self.random.uniform(tf.shape(x)) > 0.4, x.dtype)
            x = x * kept / 0.6
        return self.layers[1](x)


def loss_and_accuracy(logits, y):
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
    return loss, tf.reduce_mean(tf.cast(tf.argmax(logits, 1) == y, tf.float32))


def make_step(model, optimizer):
    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss, accuracy = loss_and_accuracy(model(x, training=True), y)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss, accuracy

    return step


def main(run="demo-runs/tensorflow", epochs=20):
    batches, steps, (x_val, y_val) = load_data()
    model = Classifier()
    optimizer = keras.optimizers.Adam(3e-3)
    optimizer.build(model.trainable_variables)  # so that it has its state before anything is restored
    step = make_step(model, optimizer)

    policy = CheckpointPolicy(monitor="val_loss", mode="min", keep_best=3, keep_last=1, patience=5)
    with Checkpointer(run, policy, model=model, optimizer=optimizer, batches=batches) as ckpt:  # ◀ 1
        for epoch in ckpt.epochs(epochs):  # ◀ 2, was: for epoch in range(epochs)
            losses, accuracies = zip(*(step(*next(batches)) for _ in range(steps)), strict=True)
            train_loss, train_acc = float(tf.reduce_mean(losses)), float(tf.reduce_mean(accuracies))
            val_loss, val_acc = map(float, loss_and_accuracy(model(x_val), y_val))
            print(
                f"Epoch {epoch + 1}/{epochs}: Train Loss: {train_loss:.4f}, Train Acc: {train_acc:.4f}, "
                f"Val Loss: {val_loss:.4f}, Val Acc: {val_acc:.4f}",
                flush=True,
            )
            ckpt.log(train_loss=train_loss, train_acc=train_acc, val_loss=val_loss, val_acc=val_acc)  # ◀ 3
        best = ckpt.restore("best")

    _, val_acc = loss_and_accuracy(model(x_val), y_val)
    print(f"Best: epoch {best.epoch + 1}, Val Loss: {best.metrics['val_loss']:.4f}, Val Acc: {float(val_acc):.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
