"""Adapters: how each framework gives and takes state. This file is the table; importing it imports no framework.

Each adapter is one module (see `core.registry.Adapter`), loaded when the first object of its framework is handed over.
"""

from ..core.registry import register

register("torch", f"{__name__}.torch", framework="torch")
register("keras", f"{__name__}.keras", framework="keras")
register("tensorflow", f"{__name__}.tensorflow", framework="tensorflow")
register("jax", f"{__name__}.jax", framework="jax")
register("jaxlib", f"{__name__}.jax", framework="jax")
