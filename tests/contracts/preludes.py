"""What pages take for granted: code that runs, unseen, right before the first snippet that has the text in it.

Keep this short. A page that shows all it needs has no entry.
"""

from __future__ import annotations

_TORCH = """
import numpy as np
import torch

model = torch.nn.Linear(4, 2)
optimizer = torch.optim.Adam(model.parameters())
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 8)
_losses = iter(np.linspace(1, 0.5, 200))


def train_epoch(*_):
    return 0.7, 0.8


def validate_epoch(*_):
    return next(_losses), 0.8
"""

_KERAS = """
import keras

x, y = np.random.rand(64, 4).astype("float32"), np.random.rand(64, 1).astype("float32")
x_val, y_val = x, y
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("adam", "mse")
"""

_IN_A_BUCKET = """
import keepbest
from keepbest.adapters.keras import ModelCheckpoint

with Checkpointer("s3://my-bucket/runs/7", policy, model=model) as ckpt:
    for _ in ckpt.epochs(2):
        ckpt.log(val_loss=next(_losses))
"""

_KEY = """
import os
from cryptography.hazmat.primitives import serialization as _as
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

with open("me.pem", "wb") as _file:
    os.fchmod(_file.fileno(), 0o600)
    _key = Ed25519PrivateKey.generate()
    _file.write(_key.private_bytes(_as.Encoding.PEM, _as.PrivateFormat.PKCS8, _as.NoEncryption()))
"""

_OLD = """
import os
import torch

os.makedirs("old", exist_ok=True)
torch.save({"state_dict": {"weight": torch.zeros(2, 2)}, "epoch": 3, "global_step": 30}, "old/last.ckpt")
"""

PRELUDES = {
    "README.md": {
        "with Checkpointer": _TORCH,
        "s3://my-bucket": _IN_A_BUCKET,
        "model.fit": _KERAS,
        "keepbest sign": _KEY,
        "keepbest convert old": _OLD,
    },
}
