"""Kernels along training: what `kernel_evolution` says against what was built into them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk_lab as ntk
from ntk_lab.empirical import choose_k, effective_rank, kernel_evolution, participation_ratio
from ntk_lab.empirical.alignment import alignment
from ntk_lab.errors import InputError, NumericalError
from tests.tolerance import assert_close

RNG = np.random.default_rng(0)
Q = np.linalg.qr(RNG.normal(size=(12, 12)))[0]
VALUES = np.array([40.0, 9, 8, 7, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
Y = RNG.normal(size=(12, 2))


def kernel(values, vectors=Q):
    k = vectors * values @ vectors.T
    return (k + k.T) / 2


def turned(angle, i=3, j=4):
    """Eigenvectors of which two are turned towards each other."""
    vectors = Q.copy()
    c, s = np.cos(angle), np.sin(angle)
    vectors[:, i], vectors[:, j] = c * Q[:, i] + s * Q[:, j], c * Q[:, j] - s * Q[:, i]
    return vectors


def test_a_growing_kernel_drifts_but_keeps_its_direction_and_spectrum():
    found = kernel_evolution([kernel(VALUES), kernel(3 * VALUES)], times=[0, 0.5], targets=Y)
    np.testing.assert_allclose(found.drift, [0, 2], rtol=1e-12)
    np.testing.assert_allclose(found.norm, [1, 3], rtol=1e-12)
    np.testing.assert_allclose(found.velocity, [4], rtol=1e-12)
    np.testing.assert_allclose(found.distance, 0, atol=1e-12)
    np.testing.assert_allclose(found.cka, 1, rtol=1e-12)
    np.testing.assert_allclose(found.overlap, 1, rtol=1e-12)
    np.testing.assert_allclose(found.growth[1], 3, rtol=1e-12)
    assert found.alignment[0] == pytest.approx(found.alignment[1], rel=1e-12)
    assert found.effective_rank[0] == pytest.approx(found.effective_rank[1], rel=1e-12)


@pytest.mark.parametrize("angle", [1e-6, 0.3, 1.2])
def test_the_rotation_of_eigenvectors_is_the_angle_they_were_turned_by(angle):
    found = kernel_evolution([kernel(VALUES), kernel(VALUES, turned(angle))], k=4)
    np.testing.assert_allclose(found.angles[0], 0, atol=1e-7)
    np.testing.assert_allclose(found.angles[1], [0, 0, 0, angle], rtol=1e-6, atol=1e-12)
    assert found.overlap[0, 1] == pytest.approx((3 + np.cos(angle) ** 2) / 4, rel=1e-12)
    np.testing.assert_allclose(found.gap, 1 - 1 / 7, rtol=1e-12)
    inside = kernel_evolution([kernel(VALUES), kernel(VALUES, turned(angle, 1, 2))], k=4)
    np.testing.assert_allclose(inside.overlap, 1, rtol=1e-12)  # the space is what counts


def test_random_spaces_overlap_by_chance():
    spaces = [np.linalg.qr(RNG.normal(size=(12, 12)))[0] for _ in range(60)]
    found = kernel_evolution([kernel(VALUES, v) for v in spaces], k=4)
    assert found.chance == 4 / 12
    pairs = found.overlap[np.triu_indices(60, 1)]
    assert abs(pairs.mean() - found.chance) < 0.01


def test_alignment_is_one_for_the_targets_own_kernel_and_matches_its_definition():
    gram = Y @ Y.T
    found = kernel_evolution([kernel(VALUES), gram, gram + 0.1 * kernel(VALUES)], targets=Y, k=2)
    assert found.alignment[1] == pytest.approx(1, rel=1e-12)
    assert found.captured[1] == pytest.approx(1, rel=1e-12)
    assert found.alignment[0] == pytest.approx(alignment(kernel(VALUES), gram), rel=1e-12)
    assert found.cka[0, 2] == pytest.approx(
        alignment(kernel(VALUES), gram + 0.1 * kernel(VALUES)), rel=1e-12
    )
    captured = np.sum((Q[:, :2].T @ Y) ** 2) / np.sum(Y**2)
    assert found.captured[0] == pytest.approx(captured, rel=1e-10)
    np.testing.assert_allclose(found.eigenvalues[0], VALUES, rtol=1e-12)


def test_a_kernel_with_outputs_is_a_matrix_of_pairs_centred_over_examples():
    per_output = [kernel(VALUES), kernel(VALUES, turned(0.4)) * 2]
    stacked = np.zeros((12, 12, 2, 2))
    for i, k in enumerate(per_output):
        stacked[:, :, i, i] = k
    found = kernel_evolution([stacked, stacked * 2], targets=Y)
    both = np.sort(np.concatenate([np.linalg.eigvalsh(k) for k in per_output]))[::-1]
    np.testing.assert_allclose(found.eigenvalues[0], both, rtol=1e-10)
    h = np.eye(12) - 1 / 12
    centred = [h @ k @ h for k in per_output]
    inner = sum(Y[:, i] @ centred[i] @ Y[:, i] for i in range(2))
    norm = np.sqrt(sum(np.sum(k**2) for k in centred)) * np.sum((h @ Y) ** 2)
    assert found.alignment[0] == pytest.approx(inner / norm, rel=1e-12)


def test_effective_ranks_count_equal_eigenvalues_and_keep_their_order():
    np.testing.assert_allclose(effective_rank(np.ones((3, 5))), 5)
    np.testing.assert_allclose(participation_ratio([2.0, 2.0, 0, 0]), 2)
    found = kernel_evolution([kernel(VALUES)])
    p = VALUES / VALUES.sum()
    assert found.effective_rank[0] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-10)
    k = kernel(VALUES)
    assert found.participation_ratio[0] == pytest.approx(np.trace(k) ** 2 / (k**2).sum(), rel=1e-10)
    assert 1 < found.participation_ratio[0] < found.effective_rank[0] < 12
    assert np.isnan(effective_rank([0.0, 0.0]))
    with pytest.raises(InputError, match="an eigenvalue is -1"):
        effective_rank([1.0, -1.0])


def test_the_number_of_eigenvectors_is_where_they_stand_apart_at_every_time():
    assert choose_k(VALUES) == 4
    later = VALUES.copy()
    later[4] = 6.9  # now the gap lies after the fifth
    later[5:] /= 10
    assert choose_k([later]) == 5
    assert choose_k([VALUES, np.where(VALUES == 1.0, 6.9, VALUES)]) in (2, 3, 5)
    assert choose_k([3.0, 1.0]) == 1
    assert choose_k([3.0, 2.0, 1.0, 0, 0, 0, 0, 0, 0]) == 2  # zeros are no gap
    found = kernel_evolution([kernel(VALUES)])
    assert found.k == 4


def test_a_trained_network_is_followed_from_its_checkpoints():
    x = jax.random.normal(jax.random.key(0), (9, 3))
    y = jnp.sin(2 * x[:, :1])
    params = {"a": jax.random.normal(jax.random.key(1), (3, 6)), "b": jnp.ones((6, 1))}

    def f(p, x):
        return jnp.tanh(x @ p["a"]) @ p["b"]

    gradient = jax.jit(jax.grad(lambda p: ((f(p, x) - y) ** 2).sum() / 18))
    run = {}
    for step in range(21):
        if step in (0, 5, 20):
            run[step] = params
        params = jax.tree.map(lambda p, g: p - 0.2 * g, params, gradient(params))
    kernels = ntk.empirical.after_kernels(f, run, x, targets=y)
    found = kernel_evolution(kernels, targets=y)
    np.testing.assert_array_equal(found.times, [0, 5, 20])
    assert_close(found.drift, kernels.drift)
    assert_close(found.alignment, kernels.alignment)
    assert len(found) == 3
    lines = str(found).splitlines()
    assert len(lines) == 4
    assert "alignment" in lines[0]
    assert lines[-1].split()[0] == "20"
    streamed = kernel_evolution((k for k in kernels.kernels), times=(0, 5, 20), targets=y)
    np.testing.assert_array_equal(streamed.angles, found.angles)


def test_float32_kernels_give_what_float64_kernels_give():
    pair = [kernel(VALUES), kernel(1.5 * VALUES, turned(0.3))]
    exact = kernel_evolution(pair, targets=Y)
    rounded = kernel_evolution([k.astype(np.float32) for k in pair], targets=Y)
    for name in ("drift", "velocity", "cka", "alignment", "effective_rank", "overlap", "growth"):
        np.testing.assert_allclose(getattr(rounded, name), getattr(exact, name), rtol=2e-5)


@pytest.mark.parametrize(
    ("kernels", "change", "error", "words"),
    [
        ([], {}, InputError, "empty"),
        ([np.ones((2, 3))], {}, InputError, r"shape \(2, 3\)"),
        ([np.eye(2), np.eye(3)], {}, InputError, "one network on one batch"),
        ([np.eye(3) * np.nan], {}, NumericalError, "kernel 0 holds NaN"),
        ([np.eye(3), np.zeros((3, 3))], {}, NumericalError, "kernel 1 is zero"),
        ([np.arange(9.0).reshape(3, 3)], {}, NumericalError, "not symmetric"),
        ([np.diag([1.0, -0.5])], {}, NumericalError, "not positive semi-definite"),
        ([np.eye(3)] * 2, {"times": [1, 1]}, InputError, "2 rising numbers"),
        ([np.eye(3)], {"k": 4}, InputError, "from 1 to 3"),
        ([np.eye(3)], {"targets": np.ones(4)}, InputError, r"\(4, 1\); the kernels call for"),
        ([np.eye(3)], {"targets": np.zeros(3)}, InputError, "all zero"),
    ],
)
def test_kernels_that_cannot_be_followed_are_explained(kernels, change, error, words):
    with pytest.raises(error, match=words):
        kernel_evolution(kernels, **change)


def test_after_kernels_that_are_no_matrices_are_explained():
    f, run, x = (lambda w, x: w**2 * x), [jnp.asarray(1.0)], jnp.ones((3, 2))
    for settings, words in [({"keep": False}, "keep=True"), ({"outputs": "diagonal"}, "diagonal")]:
        with pytest.raises(InputError, match=words):
            kernel_evolution(ntk.empirical.after_kernels(f, run, x, **settings))


def test_a_constant_kernel_has_no_alignment():
    found = kernel_evolution([np.ones((4, 4))], targets=np.arange(4.0))
    assert np.isnan(found.alignment[0])
    assert np.isnan(found.cka[0, 0])
