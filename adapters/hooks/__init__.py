"""Hooks that send rows where people already look: TensorBoard, W&B, MLflow, CSV. A facade: names only.

Importing it imports none of the libraries; each is imported when its hook is made.
"""

from .csvfile import CSV
from .mlflow import MLflow
from .tensorboard import TensorBoard
from .wandb import WandB

__all__ = ["CSV", "MLflow", "TensorBoard", "WandB"]
