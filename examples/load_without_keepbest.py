"""The best models, loaded with nothing but safetensors and Keras: what keepbest writes belongs to you.

python examples/load_without_keepbest.py pytorch RUN/best/model.safetensors
python examples/load_without_keepbest.py keras FOLDER/model_10.keras
"""

import sys

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def validation_images():
    digits = load_digits()
    x, y = (digits.data / 16).astype("float32"), digits.target
    _, x_val, _, y_val = train_test_split(x, y, test_size=0.25, random_state=0, stratify=y)
    return x_val, y_val


def pytorch_accuracy(file):
    import torch
    from safetensors.torch import load_model
    from torch import nn

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.4), nn.Linear(128, 10))
    load_model(model, file)
    model.eval()
    x, y = validation_images()
    with torch.no_grad():
        return (model(torch.tensor(x)).argmax(1).numpy() == y).mean()


def keras_accuracy(file):
    import keras

    x, y = validation_images()
    return keras.saving.load_model(file).evaluate(x, y, verbose=0)[1]


if __name__ == "__main__":
    framework, path = sys.argv[1:]
    accuracy = {"pytorch": pytorch_accuracy, "keras": keras_accuracy}[framework](path)
    if "keepbest" in sys.modules:
        raise SystemExit("keepbest was imported: this was to show that it is not needed")
    print(f"Val Acc: {accuracy:.4f}")
