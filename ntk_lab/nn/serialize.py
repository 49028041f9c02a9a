"""Architectures as JSON and back."""

import dataclasses
import json
from typing import Any

from ntk_lab.errors import InputError
from ntk_lab.nn.module import Module, registered
from ntk_lab.nn.parameterization import ABC, Standard


def to_json(net: Module) -> str:
    """JSON text of an architecture: ``{"module": name, field: value, ...}``, nested."""
    return json.dumps(_encode(net))


def from_json(text: str) -> Module:
    """Architecture from the text that :meth:`Module.to_json` wrote.

    Raises
    ------
    InputError
        Text that is not such JSON, or that names a module which is not defined.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"this is not JSON of an architecture: {error}.") from error
    if not isinstance(data, dict) or "module" not in data:
        raise InputError(
            f"JSON of an architecture starts with {{'module': ...}}; got {text[:60]!r}."
        )
    return _decode(data)


def _encode(value: Any) -> Any:
    if isinstance(value, Module):
        fields = dataclasses.fields(value)  # type: ignore[arg-type]
        return {"module": type(value).__name__} | {
            f.name: _encode(getattr(value, f.name)) for f in fields
        }
    if isinstance(value, ABC | Standard):
        return {"parameterization": type(value).__name__} | dataclasses.asdict(value)
    if isinstance(value, tuple):
        return [_encode(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if callable(value):
        raise InputError(
            f"{value!r} cannot be written as JSON: a layer holds it as code. Functions of jax.nn "
            'and jax.numpy are kept by name, Elementwise("jax.nn.silu"); for one of your own write '
            "a layer (ntk_lab/nn/module.py)."
        )
    return float(value)


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(v) for v in value)
    if not isinstance(value, dict):
        return value
    if "module" not in value:
        return _decode_parameterization(value)
    cls = registered(value["module"])
    fields = {k: _decode(v) for k, v in value.items() if k != "module"}
    for several in ("layers", "branches"):
        if several in fields:
            return cls(*fields.pop(several), **fields)
    return cls(**fields)


def _decode_parameterization(value: dict[str, Any]) -> ABC | Standard:
    known = {"ABC": ABC, "Standard": Standard}
    name = value.get("parameterization")
    if name not in known:
        raise InputError(f"JSON of an architecture has an entry that is not known: {value!r}.")
    return known[name](**{k: _decode(v) for k, v in value.items() if k != "parameterization"})
