"""The protocol of paired modules: one description, a finite network and its infinite limit.

A layer is one class in one file::

    @module
    class Times(Module):
        factor: float = hyper(default=1.0)

        def output_shape(self, shape):
            return shape

        def init(self, key, shape, dtype=None):
            return ()

        def apply(self, params, x):
            return self.factor * x

        def propagate(self, state):
            state = moments(state)
            square = self.factor**2
            return replace(state, cov=state.cov.scale(square), ntk=state.ntk * square)

``Sequential`` and every other combinator work with it from there on, and so do ``kernel``,
``repr``, JSON, comparison and hashing.
"""

import dataclasses
import operator
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Self, dataclass_transform

import jax
import numpy as np

from ntk_lab.errors import InputError
from ntk_lab.kernel import Kernel, Need, Plan, State, evaluate, plan_kernel
from ntk_lab.kernel.native_steps import Step
from ntk_lab.nn.graph import Graph
from ntk_lab.nn.masked import Masked, accept_masks, refusal
from ntk_lab.nn.parameterization import (
    Parameterization,
    common_parameterization,
    learning_rate_scale,
)

Params = Any
Batch = jax.Array | Graph | Masked

_REGISTRY: dict[str, type["Module"]] = {}


class Pair:
    """A finite network and its infinite-width kernels, built from one description.

    Unpacks as the triple ``init, apply, kernel = pair``.
    """

    def init(self, key: jax.Array, shape: tuple[int, ...], dtype=None) -> Params:
        """Random parameters of the finite network; ``shape`` is that of one example."""
        raise TypeError(f"{type(self).__name__} does not define init(key, shape).")

    def apply(self, params: Params, x: Any) -> jax.Array:
        """Outputs on a batch ``(n, *shape)``, or on a ``Graph`` or ``Masked`` of such a batch."""
        raise TypeError(f"{type(self).__name__} does not define apply(params, x).")

    def kernel(self, x1: Batch, x2: Batch | None = None) -> Kernel:
        """Infinite-width NNGP and NTK, each of shape ``(n1, n2)``."""
        raise TypeError(f"{type(self).__name__} has no infinite-width kernel.")

    def __iter__(self) -> Iterator[Any]:
        return iter((self.init, self.apply, self.kernel))


def hyper(default: Any = dataclasses.MISSING) -> Any:
    """A field that kernels can be differentiated in, such as ``w_std``."""
    return dataclasses.field(default=default, metadata={"hyper": True})


@dataclass_transform(frozen_default=True, field_specifiers=(hyper, dataclasses.field))
def module(cls: type) -> type:
    """Make a subclass of :class:`Module` a frozen dataclass, a pytree, and known to JSON.

    Both its halves then take inputs with masks, if it says what becomes of absent positions.
    Fields declared with :func:`hyper` and fields holding modules are leaves or subtrees of the
    pytree; all others are static.
    """
    # Every class here has its own __repr__ from Module; the dataclass must not replace it.
    cls = dataclasses.dataclass(frozen=True, repr=False)(cls)
    dynamic = [f.name for f in dataclasses.fields(cls) if _is_dynamic(f)]
    static = [f.name for f in dataclasses.fields(cls) if not _is_dynamic(f)]

    def flatten(m):
        children = [(jax.tree_util.GetAttrKey(n), getattr(m, n)) for n in dynamic]
        return children, tuple(getattr(m, n) for n in static)

    def unflatten(aux, children):
        m = object.__new__(cls)
        for name, value in (*zip(static, aux, strict=True), *zip(dynamic, children, strict=True)):
            object.__setattr__(m, name, value)
        return m

    known = _REGISTRY.get(cls.__name__)
    if known is not None and known.__module__ != cls.__module__:
        raise InputError(
            f"a module called {cls.__name__} exists in {known.__module__}; JSON tells modules "
            "apart by name: choose another."
        )
    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
    _REGISTRY[cls.__name__] = cls
    accept_masks(cls)
    return cls


def registered(name: str) -> type["Module"]:
    """The module class of that name; raises InputError when there is none."""
    if name not in _REGISTRY:
        raise InputError(f"no module is called {name!r}; known are {sorted(_REGISTRY)}.")
    return _REGISTRY[name]


def submodules(default: Any = dataclasses.MISSING) -> Any:
    """A field that holds a module or a tuple of modules."""
    return dataclasses.field(default=default, metadata={"modules": True})


def _is_dynamic(field: dataclasses.Field) -> bool:
    return bool(field.metadata.get("hyper") or field.metadata.get("modules"))


class Module(Pair):
    """A layer or network. Subclasses are frozen dataclasses made by :func:`module`."""

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output for one example of shape ``shape``; raises InputError if unfit."""
        return shape

    def propagate(self, state: State) -> State:
        """The kernel rule: the state after this layer from the state before it."""
        raise TypeError(f"{type(self).__name__} has no infinite-width kernel rule.")

    def native_steps(self, shape: tuple[int, ...]) -> tuple[list[Step], int, "Module"] | None:
        """Steps up to a mean over positions, channels after them, and the layers left."""
        return None

    def native_step(self, shape: tuple[int, ...]) -> Step | None:
        """The layer as such a step, if it is one."""
        return None

    def vector_steps(self, shape: tuple[int, ...]) -> list[Step] | None:
        """The layer as steps over vectors, if it is that; see ``ntk_lab.kernel.native_vectors``."""
        return None

    def need(self, after: Need) -> Need:
        """What this layer must be given about positions if what follows it needs ``after``."""
        return after

    @property
    def ends_independent(self) -> bool:
        """Whether the output has fresh zero-mean weights, so that it is independent of the input.

        Sums of branches have the sum of their kernels only then.
        """
        return False

    @property
    def keeps_independence(self) -> bool:
        """Whether the output is a fixed linear map of the input, as pooling is."""
        return False

    @property
    def independent(self) -> bool:
        """Whether the output is independent of the input, of any mean: products need that."""
        return self.ends_independent

    @property
    def takes_graphs(self) -> bool:
        """Whether the input may be a :class:`ntk_lab.nn.Graph`, whose edges this layer uses."""
        return False

    def presence(self, mask: jax.Array) -> jax.Array:
        """Factors of the outputs for an :class:`ntk_lab.nn.Masked` input.

        From which positions of the input are present, ``(n, *S)`` booleans, to what each output
        is multiplied by after a layer that was given zeros at the others: ``(n, *S')``, booleans
        or numbers, zero where the output is absent; ``(n,)`` if the output has no positions.
        A layer that acts on each position by itself returns ``mask``. Raises InputError for
        layers that cannot have masks.
        """
        raise refusal(type(self).__name__)

    @property
    def takes_masks(self) -> bool:
        """Whether ``apply`` is to be given the mask, in place of zeros at absent positions."""
        return False

    @property
    def vocabulary_size(self) -> int | None:
        """Number of tokens if the input is integer tokens, else None."""
        return None

    def kernel(
        self,
        x1: Batch,
        x2: Batch | None = None,
        *,
        memory_limit: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Kernel:
        """Infinite-width kernels of this architecture.

        Parameters
        ----------
        x1, x2
            Inputs of shapes ``(n1, *shape)`` and ``(n2, *shape)``; ``x2=None`` means ``x1`` and
            costs about half. Or batches with edges or absent positions, :class:`ntk_lab.nn.Graph`
            and :class:`ntk_lab.nn.Masked`.
        memory_limit
            Bytes that may be used; half of what is free unless given. The kernel is computed in
            tiles that fit: :meth:`plan` says which.
        progress
            Called as ``progress(done, total)`` after each tile.

        Returns
        -------
        Kernel
            ``k.nngp`` and ``k.ntk``, each ``(n1, n2)``, in the dtype of the inputs.

        Raises
        ------
        InputError
            Inputs that are empty, not finite, of unequal shapes, or do not fit the layers; a
            result that does not fit into memory.
        NumericalError
            Kernel values that are not finite: the variance over- or underflows with depth.

        Notes
        -----
        Compiled once per architecture and shape; differentiable in the inputs, and in ``w_std``
        and ``b_std`` through ``jax.grad(lambda net: net.kernel(x).ntk.sum())(net)``. Cost:
        ``O(n1 n2 (d + layers))`` operations. NNGP: arXiv:1711.00165; NTK: arXiv:1806.07572.

        Examples
        --------
        >>> import jax.numpy as jnp, ntk_lab as ntk
        >>> net = ntk.nn.Sequential(ntk.nn.Dense(64), ntk.nn.Relu(), ntk.nn.Dense(1))
        >>> k = net.kernel(jnp.eye(3))
        >>> k.ntk.shape
        (3, 3)
        """
        shape = (x1.shape if isinstance(x1, Graph | Masked) else np.shape(x1))[1:]
        if shape:
            self.output_shape(shape)
        return evaluate(self, x1, x2, memory_limit, progress)

    def plan(
        self,
        shape1: tuple[int, ...],
        shape2: tuple[int, ...] | None = None,
        *,
        dtype: Any = None,
        memory_limit: int | None = None,
    ) -> Plan:
        """What :meth:`kernel` will cost for inputs of these shapes; nothing is computed.

        Parameters
        ----------
        shape1, shape2
            Shapes of the inputs, batch first; ``shape2=None`` is the symmetric kernel.
        dtype
            Of the inputs; JAX's default unless given.
        memory_limit
            As for :meth:`kernel`.

        Returns
        -------
        Plan
            Representation, tiles, memory and a class of time; ``print`` shows it.

        Raises
        ------
        InputError
            A result, or a single pair of examples, that does not fit into memory.

        Examples
        --------
        >>> import ntk_lab as ntk
        >>> layers = [ntk.nn.Conv(64, (3, 3)), ntk.nn.Relu(), ntk.nn.GlobalAvgPool()]
        >>> net = ntk.nn.Sequential(*layers, ntk.nn.Dense(10))
        >>> net.plan((100, 32, 32, 3)).representation
        'full spatial'
        """
        return plan_kernel(self, shape1, shape2, dtype, memory_limit)

    def with_width(self, width: int) -> Self:
        """The same architecture with every hidden layer of another width.

        The last layer with a width, the readout, keeps its own: it is the number of outputs.
        """
        width = operator.index(width)
        return self._map_layers(lambda m, readout: m if readout else replace(m, width=width))

    def with_parameterization(self, name: Parameterization) -> Self:
        """The same architecture in another parameterization (see :class:`ntk_lab.nn.Dense`).

        All apply to every layer with weights; but for ``mean_field``, which applies to the readout
        alone, over hidden layers in NTK parameterization, as in arXiv:1906.08034: scaling every
        layer by ``1/width`` would give a function that vanishes with depth.
        """
        hidden = "ntk" if name == "mean_field" else name
        return self._map_layers(
            lambda m, readout: replace(m, parameterization=name if readout else hidden)
        )

    def learning_rate_scale(self) -> float:
        """Factor on a learning rate that makes training time comparable across widths.

        The NTK is of order ``width`` in standard parameterization and ``1/width`` under a
        mean-field readout; the rate must go as its inverse. With ``n`` the width of the last
        hidden layer: 1 for ``ntk`` and ``mup``, ``1/n`` for ``standard``, ``n`` for
        ``mean_field``, ``n^-c`` for ``ABC``.
        """
        return learning_rate_scale(self._weighted_layers())

    def common_parameterization(self) -> str:
        """Name of the parameterization of the network as a whole.

        ``mean_field`` if its readout is and the rest is ``ntk``; otherwise that of all its
        layers, ``abc`` if they are of :class:`ntk_lab.nn.ABC`. Raises InputError for mixtures,
        whose training time has no common scale.
        """
        return common_parameterization(self._weighted_layers())

    def _weighted_layers(self) -> list[tuple[Any, bool]]:
        """Every layer with a width, and whether it belongs to the readout."""
        layers: list[tuple[Any, bool]] = []

        def record(layer, readout):
            layers.append((layer, readout))
            return layer

        self._map_layers(record)
        return layers

    def _map_layers(self, change: Callable[[Any, bool], Any], readout: bool = True) -> Any:
        """Replace each layer with a width by ``change(layer, is_readout)``, inside all modules.

        Of modules in a tuple the last with a width is the readout, as in ``Sequential``; fields
        are branches, each with a readout of its own.
        """
        mapped = object.__new__(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.metadata.get("modules"):
                value = _map_field(value, change, readout)
            object.__setattr__(mapped, field.name, value)
        return mapped

    def has_width(self) -> bool:
        """Whether this layer, or any inside it, has a width."""
        children = [
            getattr(self, f.name)
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if f.metadata.get("modules")
        ]
        return any(m.has_width() for m in jax.tree.leaves(children, is_leaf=_is_module))

    def to_json(self) -> str:
        """Architecture as JSON text; :func:`ntk_lab.nn.from_json` reads it back."""
        from ntk_lab.nn.serialize import to_json

        return to_json(self)

    def __repr__(self) -> str:
        parts = []
        for i, field in enumerate(dataclasses.fields(self)):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is dataclasses.MISSING and i == 0:
                parts.append(repr(value))
            elif value is not field.default and value != field.default:
                text = f"{value:.6g}" if isinstance(value, float) else repr(value)
                parts.append(f"{field.name}={text}")
        return f"{type(self).__name__}({', '.join(parts)})"


def _is_module(value: Any) -> bool:
    return isinstance(value, Module)


def _map_field(value: Any, change: Callable[[Any, bool], Any], readout: bool) -> Any:
    if _is_module(value):
        return value._map_layers(change, readout)
    last = max((i for i, m in enumerate(value) if m.has_width()), default=-1)
    return tuple(m._map_layers(change, readout and i == last) for i, m in enumerate(value))
