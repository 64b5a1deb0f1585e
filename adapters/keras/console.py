"""Console: where Keras prints, to the terminal or to its log (`keras.config.disable_interactive_logging`)."""

from __future__ import annotations


def say(message: str) -> None:
    """Print a line as Keras' own callbacks do."""
    from keras.src.utils import io_utils  # noqa: PLC0415 - Keras has no public name for it

    io_utils.print_msg(message)
