"""Every activation: its duals against integration, its edge cases, its text forms.

The reference integrates by the trapezoid rule, which converges exponentially for analytic
functions, or for functions with kinks by Gauss-Legendre rules in polar coordinates, between the
rays on which an input is at zero.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.errors import InputError, NumericalError
from ntk_lab.kernel import Covariance

nn = ntk.nn
KINKED = [
    nn.LeakyRelu(0.2),
    nn.ABRelu(0.5, -1.5),
    nn.ABRelu(-0.9, 1.0),
    nn.Abs(),
    nn.Sign(),
    nn.RectifiedMonomial(0),
    nn.RectifiedMonomial(1),
    nn.RectifiedMonomial(2),
    nn.RectifiedMonomial(5),
    nn.Elu(),
    nn.Elu(0.6),
    nn.Selu(),
    nn.Elementwise(jax.nn.leaky_relu, kinks=(0.0,)),
]
CLOSED = [
    nn.Erf(1.2, 0.7, 0.3),
    nn.SigmoidLike(),
    nn.Sin(1.2, 0.8, 0.3),
    nn.Cos(0.7, 1.1, 0.2),
    nn.Rbf(0.6),
    nn.Gaussian(1.3, -0.6),
    nn.Gabor(),
    nn.Exp(0.9, 0.4),
    nn.Monomial(0),
    nn.Monomial(3),
    nn.Monomial(4),
    nn.Polynomial((0.1, 0.5, -0.2, 0.05)),
    nn.Hermite(3),
]
EXPANDED = [
    nn.Tanh(),
    nn.Sigmoid(),
    nn.Silu(),
    nn.Softplus(),
    nn.Mish(),
    nn.Elementwise(jnp.arctan),
]
ALL = KINKED + CLOSED + EXPANDED
# Standard deviations and correlation.
PAIRS = [
    (1.0, 1.0, 0.3),
    (0.1, 0.2, -0.5),
    (3.0, 0.5, 0.9),
    (1.3, 0.7, 0.0),
    (1.0, 2.0, 0.999),
    (1.1, 0.9, -0.97),
    (1.4, 1.4, 1.0),
    (0.8, 1.6, -1.0),
    (3.0, 3.1, 0.995),
]


def covariance(pairs, dtype=np.float64):
    a, b, rho = np.transpose(pairs)
    # Correlations of one to rounding are of an input with itself, or with its antipode.
    rho = np.where(np.abs(rho) > 1 - 1e-14, np.sign(rho), rho)
    entries = a**2, b**2, a * b * rho, a * b * (1 - np.abs(rho))
    return Covariance(*(jnp.asarray(v, dtype) for v in entries))


@functools.cache
def functions(activation):
    """The function and its derivative, elementwise."""
    return jax.jit(activation.function), jax.jit(jax.vmap(jax.grad(activation.function)))


@functools.cache
def dual(activation):
    """Compiled once for all tests, which therefore ask for as many pairs as there are above."""
    return jax.jit(activation.dual)


def trapezoid(f, a, b, rho):
    z = np.linspace(-9, 9, 451)
    weights = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    v = b * (rho * z[:, None] + np.sqrt(1 - rho**2) * z)
    return weights @ (f(a * z)[:, None] * f(v)) @ weights


def polar(f, a, b, rho):
    theta = np.arccos(rho)
    x, w = np.polynomial.legendre.leggauss(60)
    r = (x + 1) * 6
    radial = w * 6 * r * np.exp(-(r**2) / 2) / (2 * np.pi)
    rays = np.mod(np.array([0, np.pi, theta, theta + np.pi]) + np.pi / 2, 2 * np.pi)
    rays = np.sort(np.append(rays, rays.min() + 2 * np.pi))
    total = 0.0
    for low, high in itertools.pairwise(rays):
        p = low + (high - low) * (x + 1) / 2
        values = f(a * np.outer(r, np.cos(p))) * f(b * np.outer(r, np.cos(p - theta)))
        total += radial @ values @ w * (high - low) / 2
    return total


def integrate(activation, f, pairs):
    rule = polar if activation in KINKED else trapezoid

    def of_any_shape(x):
        return np.asarray(f(jnp.asarray(x).ravel())).reshape(x.shape)

    return np.array([rule(of_any_shape, *pair) for pair in pairs])


@pytest.fixture(scope="module", params=ALL, ids=repr)
def activation(request):
    return request.param


@pytest.mark.x64
def test_duals_equal_integrals_in_both_precisions(activation):
    """Errors relative to ``sqrt(k11 k22)``; ``atan`` has its singularities nearest."""
    f, slope = functions(activation)
    expected = [integrate(activation, g, PAIRS) for g in (f, slope)]
    own = [[(s, s, 1.0) for s in np.transpose(PAIRS)[i]] for i in (0, 1)]
    variances, slopes = ([integrate(activation, g, p) for p in own] for g in (f, slope))
    scale = np.sqrt(variances[0] * variances[1])
    slope_scale = np.maximum(np.sqrt(slopes[0] * slopes[1]), 1e-300)
    for dtype, tolerance in ((np.float64, 1e-10), (np.float32, 1.5e-6)):
        product, derivative = dual(activation)(covariance(PAIRS, dtype))
        assert product.cov.dtype == derivative.dtype == dtype
        product, derivative = jax.tree.map(
            lambda v: np.asarray(v, np.float64), (product, derivative)
        )
        for got, variance in zip((product.var1, product.var2), variances, strict=True):
            np.testing.assert_allclose(got, variance, rtol=tolerance)
        assert (np.abs(product.cov - expected[0]) <= tolerance * scale).all()
        assert (np.abs(derivative - expected[1]) <= tolerance * slope_scale).all()
        norm = np.sqrt(product.var1 * product.var2)
        assert (np.abs(norm - np.abs(product.cov) - product.gap) <= tolerance * norm).all()
        assert product.gap[6] == 0


def network(activation, b_std=0.3):
    return nn.Sequential(nn.Dense(8, 1.2, b_std), activation, nn.Dense(1, 0.9))


def test_kernels_are_finite_and_semidefinite_at_zero_equal_and_opposite_inputs(activation):
    x = jax.random.normal(jax.random.key(0), (3, 4))
    x = jnp.concatenate([x, x[:1], -x[:1], 0 * x[:1]])
    for k in network(activation, None).kernel(x):
        values = np.linalg.eigvalsh(np.asarray(k, np.float64))
        assert values.min() >= -1e-5 * values.max()
        np.testing.assert_allclose(k[0, 3], k[0, 0], rtol=1e-5)


@pytest.mark.x64
@pytest.mark.slow
def test_gradients_match_finite_differences_and_are_finite_where_there_is_a_kink(activation):
    # The derivative of a long expansion compiles slowly: one stands for all.
    if activation in EXPANDED[1:]:
        pytest.skip("as Tanh")
    kernel = network(activation).kernel
    x = jax.random.normal(jax.random.key(0), (2, 4))
    points = jnp.concatenate([x, x[:1], -x[:1], 0 * x[:1]])

    @jax.jit
    def both(x):
        return jax.value_and_grad(lambda x: sum(k.sum() for k in kernel(x[:1], x[1:])))(x)

    direction = jax.random.normal(jax.random.key(1), points.shape)
    generic = points + direction / 3
    up, down = (both(generic + step * direction)[0] for step in (1e-5, -1e-5))
    derivative = jnp.sum(both(generic)[1] * direction)
    np.testing.assert_allclose(derivative, (up - down) / 2e-5, rtol=1e-6, atol=1e-8)
    assert jnp.isfinite(both(points)[1]).all()


@pytest.mark.x64
@pytest.mark.parametrize(
    "activation",
    [a for a in (*CLOSED, *KINKED) if jax.tree.leaves(a)] + [nn.ExpNormalized(0.8, -0.5)],
    ids=repr,
)
def test_kernels_are_differentiable_in_the_parameters_of_the_function(activation):
    leaves, treedef = jax.tree.flatten(activation)
    cov = covariance(PAIRS[:4])

    @jax.jit
    def f(activation):
        product, derivative = activation.dual(cov)
        return sum(jnp.sum(v) for v in (product.var1, product.var2, product.cov, derivative))

    gradient = jax.tree.leaves(jax.grad(f)(activation))
    for i, got in enumerate(gradient):
        up, down = (
            f(treedef.unflatten([v + s * (i == j) for j, v in enumerate(leaves)]))
            for s in (1e-5, -1e-5)
        )
        np.testing.assert_allclose(got, (up - down) / 2e-5, rtol=1e-6, atol=1e-8)


def test_wide_networks_have_the_kernel_on_average(activation):
    """One hidden layer: features of many neurons, and of their derivatives, are independent."""
    neurons = 40_000
    x = np.random.default_rng(3).normal(size=(3, 4))
    k = x @ x.T / 4 + 0.04
    z = np.random.default_rng(5).normal(size=(neurons, 3)) @ np.linalg.cholesky(k).T
    a = np.sqrt(np.diagonal(k))
    pairs = [(a[i], a[j], k[i, j] / (a[i] * a[j])) for i, j in np.ndindex(3, 3)]
    product, derivative = dual(activation)(
        covariance(pairs, np.result_type(jnp.result_type(float)))
    )
    for f, expected in zip(functions(activation), (product.cov, derivative), strict=True):
        features = np.asarray(f(jnp.asarray(z, float).ravel()), np.float64).reshape(z.shape)
        samples = features[:, :, None] * features[:, None, :]
        error = samples.std(0) / neurons**0.5
        distance = np.abs(samples.mean(0) - np.asarray(expected).reshape(3, 3))
        assert (distance <= 4.5 * error + 1e-5 * np.abs(expected).max()).all()


@pytest.mark.parametrize("activation", [*ALL, nn.ExpNormalized(2.0, do_clip=True)], ids=repr)
def test_text_forms_give_the_activation_back(activation):
    assert nn.from_json(activation.to_json()) == activation
    assert eval(repr(activation), vars(nn)) == activation


@pytest.mark.x64
def test_kinks_elsewhere_are_integrated_between_them():
    """Slopes of hard tanh are the probability that both inputs are within the kinks."""
    from scipy.stats import multivariate_normal

    hard = nn.Elementwise(jax.nn.hard_tanh, kinks=(-1, 1))
    product, derivative = jax.jit(hard.dual)(covariance(PAIRS))
    both = []
    for a, b, rho in PAIRS:
        normal = multivariate_normal([0, 0], [[1, rho], [rho, 1]], allow_singular=True)
        upper = np.array([1 / a, 1 / b])
        both.append(normal.cdf(upper, lower_limit=-upper))
    np.testing.assert_allclose(derivative, both, rtol=0, atol=1e-9)
    # For deviations well within the kinks it is the identity.
    np.testing.assert_allclose(product.cov[1], -0.01, rtol=1e-5)
    assert product.gap[6] == 0


@pytest.mark.x64
def test_exponentials_of_correlations_follow_their_formula():
    activation = nn.ExpNormalized(1.3, -0.4)
    a, b, rho = np.transpose(PAIRS)
    product, derivative = activation.dual(covariance(PAIRS))
    level = np.exp(1.3 * (rho - 0.4))
    np.testing.assert_allclose(product.cov, a * b * level, rtol=1e-13)
    np.testing.assert_allclose(derivative, 1.3 * level, rtol=1e-13)
    for call in (lambda: activation.init(jax.random.key(0), (3,)), lambda: activation.function(a)):
        with pytest.raises(InputError, match="kernels alone"):
            call()


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Monomial(-1),
        lambda: nn.Hermite(1.5),
        lambda: nn.RectifiedMonomial(True),
        lambda: nn.Polynomial(()),
        lambda: nn.Rbf(-1.0),
        lambda: nn.Elementwise("jax.nn.nothing"),
        lambda: nn.Elementwise("os.system"),
        lambda: nn.Elementwise(3),
        lambda: nn.Elementwise(jnp.tanh, kinks=(float("nan"),)),
        lambda: nn.Elementwise(lambda x: x).to_json(),
    ],
)
def test_unusable_parameters_are_refused(make):
    with pytest.raises(InputError):
        make()


def test_moments_that_do_not_exist_are_refused():
    with pytest.raises(NumericalError):
        network(nn.Gaussian(b=1.0)).kernel(jnp.ones((2, 3)))


def test_kinks_that_are_not_named_are_refused():
    with pytest.raises(NumericalError):
        network(nn.Elementwise(jax.nn.relu)).kernel(jnp.ones((2, 3)) * jnp.asarray([[1.0], [1.01]]))
