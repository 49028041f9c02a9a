"""Learning curves from the spectrum against brute force, and the spectra behind them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import ntk_lab as ntk
from ntk_lab.errors import InputError
from tests.tolerance import assert_close

VALUES = np.arange(1, 401.0) ** -1.5
POWER = np.arange(1, 401.0) ** -2.0


def test_kappa_solves_its_equation_as_a_bracketing_solver_does():
    n = np.array([1.0, 7.0, 60.0, 390.0])
    for ridge in (0.0, 1e-3, 2.0):
        curve = ntk.theory.learning_curve(jnp.asarray(VALUES), POWER, n, ridge=ridge)

        def excess(log, size, ridge=ridge):
            kappa = np.exp(log)
            return (VALUES / (VALUES + kappa)).sum() + ridge / kappa - size

        expected = [np.exp(optimize.brentq(excess, -40, 10, (s,), xtol=1e-14)) for s in n]
        assert_close(curve.kappa, np.array(expected), factor=20, atol=0)


def test_multiplicities_are_repeated_modes():
    n, counts = jnp.array([3.0, 9.0]), np.array([1, 4, 12])
    values, power = jnp.array([1.0, 0.3, 0.02]), jnp.array([0.5, 1.0, 0.6])
    short = ntk.theory.learning_curve(values, power, n, multiplicity=counts, noise=0.1, ridge=0.05)
    long = ntk.theory.learning_curve(
        np.repeat(values, counts), np.repeat(power / counts.astype(power.dtype), counts), n,
        noise=0.1, ridge=0.05,
    )  # fmt: skip
    for field in ("kappa", "overfitting", "test_error", "train_error"):
        assert_close(getattr(short, field), getattr(long, field), factor=5)


def test_gaussian_features_have_the_predicted_errors():
    # The theory's own assumption, by brute force: train and test error over 100 training sets.
    rng, n, noise = np.random.default_rng(0), 60, 0.2
    for ridge in (0.0, 0.5):
        test, train = [], []
        for _ in range(100):
            features = rng.standard_normal((n, len(VALUES))) * VALUES**0.5
            y = features @ (POWER**0.5 / VALUES**0.5) + noise**0.5 * rng.standard_normal(n)
            kernel = features @ features.T
            dual = np.linalg.solve(kernel + ridge * np.eye(n), y)
            coefficients = VALUES**0.5 * (features.T @ dual)
            test.append(((coefficients - POWER**0.5) ** 2).sum() + noise)
            train.append(((kernel @ dual - y) ** 2).mean())
        curve = ntk.theory.learning_curve(VALUES, POWER, n, ridge=ridge, noise=noise)
        for measured, expected in ((test, curve.test_error), (train, curve.train_error)):
            error = np.std(measured, ddof=1) / len(measured) ** 0.5
            # Corrections to the limit are of relative order 1/n.
            allowed = 4 * error + 0.5 / n * float(expected) + 1e-12
            assert abs(np.mean(measured) - float(expected)) < allowed


@pytest.mark.x64
def test_gradients_are_those_of_differences_and_programs_compile():
    def error(ridge, n):
        return ntk.theory.learning_curve(VALUES, POWER, n, ridge=ridge, noise=0.3).test_error

    gradient = jax.jit(jax.grad(error, argnums=(0, 1)))(0.1, 50.0)
    for place, step in ((0, np.array([1e-5, 0])), (1, np.array([0, 1e-3]))):
        at = np.array([0.1, 50.0])
        difference = (error(*(at + step)) - error(*(at - step))) / (2 * step.sum())
        assert_close(gradient[place], difference, factor=1e4)
    second = jax.grad(jax.grad(error))(0.1, 50.0)
    first = jax.grad(error)
    assert_close(second, (first(0.1 + 1e-5, 50.0) - first(0.1 - 1e-5, 50.0)) / 2e-5, factor=1e5)


def test_sphere_spectra_have_their_trace_and_add_up_to_the_kernel():
    # exp(t) is nearly a polynomial of degree 30: the addition theorem gives it back at t = 1.
    spectrum = ntk.theory.sphere_spectrum(np.exp, dimension=7, degrees=30, points=100)
    trace = (spectrum.eigenvalues * spectrum.multiplicity).sum()
    assert abs(trace - np.e) < 1e-11
    points = np.random.default_rng(0).standard_normal((30_000, 7))
    t = points[:, 0] / np.linalg.norm(points, axis=1)
    harmonic = (7 * t**2 - 1) / 6
    sample = np.exp(t) * harmonic
    error = sample.std() / len(t) ** 0.5
    assert abs(sample.mean() - spectrum.eigenvalues[2]) < 4 * error
    assert spectrum.multiplicity[:4].tolist() == [1, 7, 27, 77]


def test_spectra_of_kernels_with_roots_have_their_closed_forms():
    # On the circle the kernel 1 - angle / pi has 2 / (pi k)^2 at odd k, cosine and sine each.
    circle = ntk.theory.sphere_spectrum(lambda t: 1 - np.arccos(t) / np.pi, 2, 8, points=60)
    k = np.arange(1, 8)
    closed = np.where(k % 2 == 1, 2 / (np.pi * k) ** 2, 0.0)
    np.testing.assert_allclose(circle.eigenvalues, [0.5, *closed], rtol=1e-12, atol=1e-14)
    assert circle.multiplicity.tolist() == [1] + [2] * 7

    def arccosine(t):
        angle = np.arccos(t)
        return (np.sin(angle) + (np.pi - angle) * t) / np.pi

    sphere = ntk.theory.sphere_spectrum(arccosine, 5, 60, points=400)
    np.testing.assert_allclose(sphere.eigenvalues[1], 0.5 / 5, rtol=1e-13)  # linear part t / 2
    # Above degree 1 odd degrees vanish, up to rounding; the rest is the trace but for a tail.
    np.testing.assert_allclose(sphere.eigenvalues[3::2], 0, atol=1e-14)
    assert 0 < 1 - (sphere.eigenvalues * sphere.multiplicity).sum() < 1e-3


def test_a_network_on_the_sphere_learns_as_its_spectrum_says(key):
    d, population = 8, 1000
    x = np.asarray(jax.random.normal(key, (population, d)), np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    net = ntk.nn.Sequential(ntk.nn.Dense(8, w_std=2**0.5), ntk.nn.Relu(), ntk.nn.Dense(1))

    def kernel(t):
        pairs = np.zeros((len(t), d))
        pairs[:, 0], pairs[:, 1] = t, np.sqrt(1 - t**2)
        return np.asarray(net.kernel(jnp.eye(d)[:1], jnp.asarray(pairs)).ntk)[0]

    spectrum = ntk.theory.sphere_spectrum(kernel, d, 40, points=400)
    gram = np.asarray(net.kernel(jnp.asarray(x)).ntk)
    y = d**0.5 * x[:, :1] + (x[:, :1] * x[:, 1:2]) * (d * (d + 2)) ** 0.5
    power = np.zeros(40)
    power[1], power[2] = 1.0, 1.0
    sizes = [20, 60, 150]
    predicted = ntk.theory.learning_curve(
        np.maximum(spectrum.eigenvalues, 0), power, np.array(sizes, float),
        multiplicity=spectrum.multiplicity, ridge=0.01, noise=0.2,
    )  # fmt: skip
    measured = ntk.theory.measured_learning_curve(
        gram, y, sizes, key=key, repeats=20, ridge=0.01, noise=0.2
    )
    # The examples stand for their distribution up to their own scatter, a few per cent.
    expected = np.asarray(predicted.test_error) - 0.2
    assert (np.abs(measured.mean - expected) < 4 * measured.standard_error + 0.05 * expected).all()


def random_population(rng, size, outputs=2):
    """A kernel with eigenvectors in random directions, and targets in all of its modes."""
    vectors = np.linalg.qr(rng.standard_normal((size, size)))[0]
    values = VALUES[:size]
    coefficients = POWER[:size, None] ** 0.5 * rng.standard_normal((size, outputs))
    return (vectors * values) @ vectors.T * size, vectors @ coefficients * size**0.5


@pytest.mark.parametrize(("ridge", "noise"), [(0.0, 0.0), (0.0, 0.3), (5.0, 0.0), (5.0, 0.3)])
def test_modes_of_a_population_predict_subsets_of_it_up_to_all_but_one(key, ridge, noise):
    kernel, y = random_population(np.random.default_rng(1), 200)
    modes = ntk.theory.kernel_modes(kernel, y)
    assert_close(modes.power.sum(), (y**2).sum() / 200)
    sizes = [10, 60, 150, 199]
    predicted = ntk.theory.learning_curve(
        *modes, np.array(sizes, float), ridge=ridge, noise=noise, population=200
    )
    measured = ntk.theory.measured_learning_curve(
        kernel, y, sizes, key=key, repeats=100, ridge=ridge, noise=noise
    )
    expected = np.asarray(predicted.test_error) - noise
    # One kernel has its own eigenvectors, whose chance does not average out over subsets.
    off = np.abs(measured.mean - expected)
    assert (off < 3 * measured.standard_error + 0.05 * expected).all()
    if ridge == 0:  # the correction matters: what an infinite population would give is far off
        infinite = ntk.theory.learning_curve(*modes, 150.0, noise=noise).test_error - noise
        assert abs(float(infinite) - measured.mean[2]) > 0.3 * measured.mean[2]


def test_training_errors_and_the_price_of_noise_in_a_population():
    rng, size, n, ridge, noise = np.random.default_rng(2), 300, 120, 3.0, 0.4
    kernel, y = random_population(rng, size)
    modes = ntk.theory.kernel_modes(kernel, y)

    def theory(level):
        return ntk.theory.learning_curve(*modes, n, ridge=ridge, noise=level, population=size)

    train, noise_alone = [], []
    for _ in range(200):
        chosen = rng.permutation(size)
        trained, others = chosen[:n], chosen[n:]
        given = noise**0.5 * rng.standard_normal((n, 1))
        regularized = kernel[np.ix_(trained, trained)] + ridge * np.eye(n)
        labels = y[trained] + given * 0.5**0.5 * np.array([[1, -1]])
        train.append(((ridge * np.linalg.solve(regularized, labels)) ** 2).sum(1).mean())
        kicked = kernel[np.ix_(others, trained)] @ np.linalg.solve(regularized, given)
        noise_alone.append((kicked**2).mean() / noise + 1)
    for values, expected in ((train, theory(noise).train_error), (noise_alone, theory(0.0)[2])):
        error = np.std(values, ddof=1) / len(values) ** 0.5
        assert abs(np.mean(values) - float(expected)) < 4 * error + 0.02 * float(expected)
    step = (theory(1.0).test_error - theory(0.0).test_error) / theory(0.0).overfitting
    assert_close(step, 1.0, factor=50)


def test_a_large_population_is_an_infinite_one():
    n = np.array([3.0, 50.0, 300.0])
    for ridge in (0.0, 0.2):
        settings = {"ridge": ridge, "noise": 0.3}
        finite = ntk.theory.learning_curve(VALUES, POWER, n, population=1e12, **settings)
        infinite = ntk.theory.learning_curve(VALUES, POWER, n, **settings)
        for field in ("kappa", "overfitting", "test_error", "train_error"):
            rtol = 1e-8 if finite.kappa.dtype == jnp.float64 else 1e-4
            np.testing.assert_allclose(
                getattr(finite, field), getattr(infinite, field), rtol=rtol, atol=0
            )


def test_the_spectrum_gives_the_exponent():
    # lambda ~ i^-a and v^2 ~ i^-b make kappa ~ n^-a and the test error ~ n^-(b - 1) if b < 2a + 1.
    i = np.arange(1, 200_001.0)
    error = ntk.theory.learning_curve(i**-1.5, i**-2.0, np.array([200.0, 2000.0])).test_error
    assert abs(np.log10(error[0] / error[1]) - 1.0) < 0.05  # the sum ends at a finite i


def test_power_laws_have_intervals_that_cover(key):
    x, truth, covered = np.array([10.0, 20, 40, 80, 160]), 5.0, 0
    rng = np.random.default_rng(3)
    for _ in range(300):
        clean = truth * x**-0.7
        noisy = clean * np.exp(0.05 * rng.standard_normal(5))
        _, low, high = ntk.theory.fit_power_law(x, noisy, 0.05 * noisy).at(1000.0)
        covered += bool(low < truth * 1000**-0.7 < high)
    assert covered > 0.93 * 300  # at least 95% in the long run


def test_a_curve_that_is_no_power_law_is_a_misfit():
    rng, x = np.random.default_rng(0), np.array([30.0, 60, 120, 240, 480])
    for floor, low, high in ((0.0, 0.01, 6), (0.05, 20, 1000)):
        values = (x**-0.7 + floor) * (1 + 0.003 * rng.standard_normal(5))
        law = ntk.theory.fit_power_law(x, values, 0.003 * values)
        assert low < law.misfit < high  # chi squared of 3 degrees of freedom, a third of it
        # What the values' own errors say is widened by the misfit.
        assert law.standard_error >= 0.003 / np.log(x).std() / 5**0.5 * max(law.misfit, 1) ** 0.4
    assert np.isnan(ntk.theory.fit_power_law(x, x).misfit)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="more than n modes"):
        ntk.theory.learning_curve(jnp.ones(3), np.ones(3), 3.0)
    with pytest.raises(InputError, match="one entry a mode"):
        ntk.theory.learning_curve(jnp.ones(3), np.ones(2), 1.0)
    with pytest.raises(InputError, match="power must not be negative"):
        ntk.theory.learning_curve(jnp.ones(3), -np.ones(3), 1.0)
    with pytest.raises(InputError, match="leaves some"):
        ntk.theory.learning_curve(jnp.ones(9), np.ones(9), 5.0, population=8)
    with pytest.raises(InputError, match="leaves some"):
        ntk.theory.learning_curve(jnp.ones(9), np.ones(9), 9.0, ridge=1.0, population=9)
    with pytest.raises(InputError, match="must be numbers"):
        ntk.theory.learning_curve(jnp.ones(9), np.ones(9), 5.0, population=np.array([9, 10]))
    with pytest.raises(InputError, match="dimension >= 2"):
        ntk.theory.sphere_spectrum(np.exp, 1, 3)
    with pytest.raises(InputError, match="points > 2"):
        ntk.theory.sphere_spectrum(np.exp, 3, 30, points=60)
    with pytest.raises(InputError, match="same examples"):
        ntk.theory.kernel_modes(np.eye(3), np.ones(3))
    with pytest.raises(InputError, match="sizes between"):
        ntk.theory.measured_learning_curve(np.eye(3), np.ones((3, 1)), [3], key=jax.random.key(0))
    with pytest.raises(InputError, match="three points"):
        ntk.theory.fit_power_law([1, 2], [1, 2])
