"""What one training step of one model costs at least: operations, functions, and numbers moved.

A step is a list of parts, each with its gradient. A multiplication, an addition, a comparison, a
division and a square root are an operation each; exp, log, erf, tanh and sigmoid are functions. A
part reads what it needs and writes what it makes once in its forward pass and once in each slope; a
loss has its slope in the same pass. What is done once a model, as the sigmoid of a position term,
is not counted. The tests hold each part against loops that do it, number by number.
"""

from dataclasses import dataclass

FUNCTION_OPERATIONS = 20
"""Of a function: a float32 polynomial with its range reduction is about ten multiply-adds."""


@dataclass(frozen=True)
class Work:
    """operations, functions: see above. moved: numbers read or written."""

    operations: int = 0
    functions: int = 0
    moved: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.operations + other.operations,
            self.functions + other.functions,
            self.moved + other.moved,
        )

    def __rmul__(self, times: int) -> "Work":
        return Work(times * self.operations, times * self.functions, times * self.moved)

    @property
    def all_operations(self) -> int:
        """With those of the functions."""
        return self.operations + FUNCTION_OPERATIONS * self.functions


def product(n: int, k: int, m: int, slopes: int) -> Work:
    """(n, k) by (k, m), and the slopes by so many of its factors, of which data have none."""
    passes = 1 + slopes
    return Work(passes * 2 * n * k * m, 0, passes * (n * k + k * m + n * m))


def row_loss(rows: int, n: int) -> Work:
    """-sum_r w_r sum_j t_rj log softmax(z_r)_j of targets that sum to one.

    A number of z: maximum, difference, sum, log p, product with t and its sum; p, p - t, times w. A
    row: its weight and sum, and 1 / Z.
    """
    return Work(9 * rows * n + 3 * rows, rows * (n + 1), 3 * rows * n + rows)


def choice_loss(rows: int, n: int) -> Work:
    """The mean of -log softmax(z_r) at a chosen place.

    A number of z: maximum, difference, sum; p over the rows. A row: log p and its sum; 1 / Z over
    the rows (two), and 1 over the rows less at the chosen place.
    """
    return Work(4 * rows * n + 5 * rows, rows * (n + 1), 2 * rows * n + rows)


def softmax(rows: int, n: int) -> Work:
    """p = softmax(z) within a model.

    A number: maximum, difference, sum, p; product with the slope and its sum, difference, times p.
    """
    return Work(8 * rows * n + rows, rows * n, 5 * rows * n)


def gelu(n: int) -> Work:
    """x Phi(x), Phi(x) = (1 + erf(x / sqrt 2)) / 2, and its slope Phi + x phi; Phi is kept."""
    return Work(10 * n, 2 * n, 7 * n)


def link(n: int) -> Work:
    """1 + tanh(f), and its slope 1 - tanh(f)^2; tanh(f) is kept."""
    return Work(4 * n, n, 6 * n)


def scale(rows: int, n: int, slopes: int) -> Work:
    """Each row x_r times its number a_r; slopes: by a alone, or by x too."""
    passes = Work(rows * n, 0, 2 * rows * n + rows) + Work(2 * rows * n, 0, 2 * rows * n + rows)
    return passes + (slopes - 1) * Work(rows * n, 0, 2 * rows * n + rows)


def shift(rows: int, n: int) -> Work:
    """A vector (n,) added to each row, in place."""
    return Work(2 * rows * n, 0, 3 * rows * n + 2 * n)


def added(n: int) -> Work:
    """One added to another in place: data, or the second slope of what is used twice."""
    return Work(n, 0, 3 * n)


def taken(rows: int, n: int, of: int) -> Work:
    """Rows taken from `of` rows, each at least once; their slopes are added into those."""
    return Work(rows * n, 0, 2 * rows * n + 2 * rows + 2 * of * n)


def squared_error(n: int) -> Work:
    """The mean square of y - t: difference, square and its sum; its slope."""
    return Work(4 * n, 0, 3 * n)


def adam(parameters: int) -> Work:
    """m (3), m's square (4), and the step (6)."""
    return Work(13 * parameters, 0, 7 * parameters)
