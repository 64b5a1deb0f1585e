"""Keras `fit` on real images: the drop-in ModelCheckpoint (one import changed, ◀ 1), and resuming (◀ 2).

    python examples/keras_fit.py [FOLDER] [EPOCHS]

FOLDER may be a bucket's URL, s3://my-bucket/keras. Kill it at any moment and start it again: it continues in the right
epoch, with optimizer state and the best so far.
"""

import sys

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keepbest import CheckpointPolicy
from keepbest.adapters.keras import BestCheckpoint, ModelCheckpoint  # ◀ 1, was: from keras.callbacks import …


def load_data():
    digits = load_digits()  # 1,797 images of 8 × 8 pixels
    x, y = (digits.data / 16).astype("float32"), digits.target.astype("int32")
    return train_test_split(x, y, test_size=0.25, random_state=0, stratify=y)


def build_model():
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main(folder="demo-runs/keras", epochs=10):
    keras.utils.set_random_seed(0)
    x_train, x_val, y_train, y_val = load_data()
    model = build_model()
    # ◀ 2: the whole service; weights, optimizer, random numbers, patience and the epoch continue after a restart.
    best = BestCheckpoint(f"{folder}/run", CheckpointPolicy(monitor="val_loss", keep_best=3, patience=5))
    callbacks = [
        best,
        ModelCheckpoint(
            f"{folder}/model_{{epoch:02d}}.keras",
            monitor="val_loss",
            save_best_only=True,
            save_weights_only=False,
            mode="min",
            verbose=1,
            resume=True,  # the one keyword that Keras' own does not have: go on from the best of the run before
        ),
    ]
    # fit's own shuffling cannot be restored, so that a resumed training sees the same batches: shuffle=False.
    model.fit(
        x_train,
        y_train,
        validation_data=(x_val, y_val),
        epochs=epochs,
        batch_size=32,
        shuffle=False,
        verbose=2,
        callbacks=callbacks,
    )
    _, accuracy = model.evaluate(x_val, y_val, verbose=0)  # BestCheckpoint has given it the best weights
    print(f"Best: epoch {best.checkpointer.run.best.epoch + 1}, Val Acc: {accuracy:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
