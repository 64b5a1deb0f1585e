"""A policy's file or text becomes its fields; whether they make sense is for CheckpointPolicy to say."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, PolicyError
from .checks import shown


def parse_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the fields in a .json, .yaml, .yml or .toml file.

    Raises:
        ConfigError: the file cannot be read, is of another kind, or needs PyYAML, which is not installed.
        PolicyError: it is not valid JSON, YAML or TOML, or holds no fields.
    """
    try:
        file = Path(path)
    except TypeError:
        raise ConfigError(f"a policy file is given by its path, 'policy.toml', not {shown(path)}.") from None
    kind = file.suffix.lower()
    if kind not in (".json", ".yaml", ".yml", ".toml"):
        raise ConfigError(f"{file} is no policy file: its name must end in .json, .yaml, .yml or .toml.")
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the policy file {file}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise PolicyError(f"{file} is not text in UTF-8: {error}.") from error
    except ValueError as error:  # a zero byte in the path
        raise ConfigError(f"{str(file)!r} is no path of a policy file: {error}.") from error
    if kind == ".json":
        return parse_json(text, str(file))
    return _parse_toml(text, str(file)) if kind == ".toml" else _parse_yaml(text, str(file))


def parse_json(text: str | bytes, what: str = "this policy") -> dict[str, Any]:
    """Return the fields in a JSON text, called `what` in errors.

    Raises:
        PolicyError: it is not JSON, or no object.
    """
    if not isinstance(text, str | bytes | bytearray):
        raise PolicyError(f'{what} must be a text in JSON, \'{{"monitor": "val_loss"}}\', not {shown(text)}.')
    try:
        return _fields(json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, what)), what)
    except PolicyError:
        raise
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"{what} is not valid JSON: {error}.") from error


def _parse_toml(text: str, what: str) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - few policies are files, and it compiles a dozen patterns

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"{what} is not valid TOML: {error}.") from error


def _parse_yaml(text: str, what: str) -> dict[str, Any]:
    try:
        import yaml  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise ConfigError(f"reading {what} needs PyYAML: pip install pyyaml, or write it as .toml or .json.") from error
    try:
        return _fields(yaml.load(text, _yaml_loader(yaml.SafeLoader, what)), what)  # noqa: S506 - a SafeLoader
    except PolicyError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise PolicyError(f"{what} is not valid YAML: {error}.") from error


def _yaml_loader(base: Any, what: str) -> Any:
    """Return PyYAML's safe loader that takes no key twice."""

    class Loader(base):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyYAML's signature
            _once([(key.value, value) for key, value in node.value if isinstance(key.value, str)], what)
            return super().construct_mapping(node, deep)

    return Loader


def _once(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    """Return a mapping in which each key stands once; of two, nobody knows which was meant."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise PolicyError(f"{what} says '{name}' twice. Keep the one that is meant.")
        fields[name] = value
    return fields


def _fields(parsed: object, what: str) -> dict[str, Any]:
    if isinstance(parsed, Mapping) and all(isinstance(name, str) for name in parsed):
        return dict(parsed)
    raise PolicyError(f"{what} must hold the fields of a CheckpointPolicy by name, such as monitor: val_loss.")
