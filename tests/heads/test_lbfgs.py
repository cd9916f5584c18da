import numpy as np
import pytest
from scipy.optimize import minimize

from featuretl.heads._solver.lbfgs import minimise


def quadratics(problems=3, size=30, seed=0):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((problems, size, size)) * np.logspace(0, -2, size)
    H = A @ A.transpose(0, 2, 1) + 1e-4 * np.eye(size)
    return H, rng.standard_normal((problems, size))


def test_minimises_every_problem_of_a_batch():
    H, b = quadratics()

    def evaluate(x, which):
        Hx = np.einsum("bij,bj->bi", H[which], x)
        return (
            0.5 * (x * Hx).sum(axis=1) - (b[which] * x).sum(axis=1) + 1e7,
            Hx - b[which],
            x[:, :1],
        )

    solution = minimise(evaluate, lambda q, *_: q, np.zeros_like(b), 1e-12, 2000)
    exact = np.linalg.solve(H, b[..., None])[..., 0]
    assert solution.converged.all()
    np.testing.assert_allclose(solution.value, evaluate(exact, np.arange(3))[0], rtol=1e-7)


def test_the_exact_inverse_hessian_needs_one_step():
    H, b = quadratics()
    inverse = np.linalg.inv(H)

    def evaluate(x, which):
        Hx = np.einsum("bij,bj->bi", H[which], x)
        value = 0.5 * (x * Hx).sum(axis=1) - (b[which] * x).sum(axis=1)
        return value + 1e8, Hx - b[which], x[:, :1]

    solution = minimise(
        evaluate,
        lambda q, _, which: np.einsum("bij,bj->bi", inverse[which], q),
        np.zeros_like(b),
        1e-13,
        50,
    )
    assert solution.n_iter <= 3


def test_a_batch_equals_its_problems_alone():
    scales = np.array([1.0, 30.0, 2.0, 0.1])[:, None]
    asked = []

    def function(scales):
        def evaluate(x, which):
            asked.append(len(which))
            scale = scales[which]
            value = np.logaddexp(0, -scale * x).sum(axis=1) + 0.05 * np.square(x).sum(axis=1)
            return value, -scale / (1 + np.exp(scale * x)) + 0.1 * x, x[:, :1]

        return evaluate

    start = np.full((4, 4), -2.0)
    together = minimise(function(scales), lambda q, *_: q, start, 1e-10, 500)
    assert together.converged.all()
    assert asked[-1] < asked[0] == 4  # converged problems are no longer evaluated
    for i in range(4):
        own = function(scales[i : i + 1])
        alone = minimise(own, lambda q, *_: q, start[:1], 1e-10, 500)
        np.testing.assert_allclose(together.x[i], alone.x[0], rtol=1e-9)
        scipy = minimize(lambda x, f=own: f(x[None], [0])[0][0], start[0], tol=1e-12)
        np.testing.assert_allclose(together.value[i], scipy.fun, rtol=1e-7)
        np.testing.assert_allclose(together.value[i], alone.value[0], rtol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_backs_off_from_values_that_are_not_finite(bad):
    def evaluate(x, which):
        value = np.where(x[:, 0] < 1, (x[:, 0] - 0.9) ** 2 + 1, bad)
        return value, 2 * (x - 0.9), x

    solution = minimise(evaluate, lambda q, *_: 10 * q, np.zeros((1, 1)), 1e-12, 100)
    assert solution.x[0, 0] == pytest.approx(0.9, abs=1e-4)


def test_reports_what_did_not_converge():
    H, b = quadratics()

    def function(x, which):
        Hx = np.einsum("bij,bj->bi", H[which], x)
        return (
            0.5 * (x * Hx).sum(axis=1) - (b[which] * x).sum(axis=1) + 1e3,
            Hx - b[which],
            x[:, :1],
        )

    solution = minimise(function, lambda q, *_: q, np.zeros_like(b), 1e-14, 3)
    assert not solution.converged.any()
    assert solution.n_iter == 3
