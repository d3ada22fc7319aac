"""What a weight is worth to the ranking, to first order: Fisher pruning (Theis et al., arXiv 1801.05787).

Taking a weight w away costs about w^2 F / 2, where F is the mean square of the gradient of log p(item) by w
over items drawn from the model's own softmax. It needs histories and no targets, and one scale for all
layers, so that a share of zeros for the whole model becomes a share of its own for each layer.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.compress.sensitivity import Weights, variables
from edgepack.keras2 import tf
from edgepack.models.graphs import Graphs, fed
from edgepack.rows import Rows, part, row_count

_BATCH_ROWS = 16
_MOST_ROWS = 1024
_DRAWS = 4
_SEED = 23


def importance(graphs: Graphs, rows: NDArray[np.int32] | Rows) -> Weights:
    """Return w^2 F of each weight that compression takes: "layer/variable" -> float32 of its shape.

    `graphs.serving` holds the trained weights and gives scores float32 [n, V + 1] for `rows` int32 [n, L] an
    input. A tied kernel's worth stands with the table that it is.
    """
    weights = {name: variable.numpy() for name, variable in variables(graphs.serving).items()}
    weights.pop(f"{graphs.tied}/kernel", None)
    sums = {name: np.zeros(values.shape) for name, values in weights.items()}
    for gradients in _gradients(graphs, rows):
        for name, total in sums.items():
            total += gradients[name].astype(np.float64) ** 2
    scale = 1 / (_DRAWS * _rows_used(rows))
    return {n: np.asarray(scale * sums[n] * values**2, np.float32) for n, values in weights.items()}


class TableWorth(NamedTuple):
    """What an error in the item table costs: along each direction, and in each row.

    `metric` float64 [d, d] and `rows` float64 [V + 1]: a table that is off by D costs the ranking about
    the sum of d' `metric` d over its rows d, a row about `rows` times its square.
    """

    metric: NDArray[np.float64]
    rows: NDArray[np.float64]


def table_worth(graphs: Graphs, rows: NDArray[np.int32] | Rows) -> TableWorth:
    """Return the Fisher information of the item table's directions and rows; arguments as of `importance`."""
    name = f"{graphs.table}/embeddings"
    items, width = variables(graphs.serving)[name].shape
    metric, worth = np.zeros((width, width)), np.zeros(items)
    for gradients in _gradients(graphs, rows):
        table = gradients[name].astype(np.float64)
        metric += table.T @ table
        worth += (table**2).sum(axis=1)
    scale = 1 / (_DRAWS * _rows_used(rows))
    return TableWorth(scale * metric, scale * worth)


def _rows_used(rows: NDArray[np.int32] | Rows) -> int:
    return min(row_count(rows), _MOST_ROWS)


def _gradients(graphs: Graphs, rows: NDArray[np.int32] | Rows) -> Iterator[Weights]:
    """Yield, batch by batch, the gradients of the log chance of items that the model draws itself.

    Draws are independent and gradients are 0 in the mean, so that a batch's square is the sum of its rows'.
    A tied kernel's gradient, transposed, is added to its table's.
    """
    serving = graphs.serving
    watched = variables(serving)
    tied, table = f"{graphs.tied}/kernel", f"{graphs.table}/embeddings"

    def gradients_of(inputs: Any, number: Any) -> Any:
        with tf.GradientTape() as tape:
            scores = serving(inputs, training=False)
            drawn = tf.random.stateless_categorical(scores, 1, seed=[_SEED, number])[:, 0]
            loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(drawn, scores))
        found = tape.gradient(loss, list(watched.values()), unconnected_gradients="zero")
        return [tf.convert_to_tensor(gradient) for gradient in found]

    call = tf.function(gradients_of, reduce_retracing=True)
    count = _rows_used(rows)
    for draw in range(_DRAWS):
        for begin in range(0, count, _BATCH_ROWS):
            inputs = fed(serving, part(rows, begin, min(begin + _BATCH_ROWS, count)))
            found = call(inputs, tf.constant(draw * count + begin))
            gradients = {n: gradient.numpy() for n, gradient in zip(watched, found, strict=True)}
            if tied in gradients and table in gradients:
                gradients[table] += gradients.pop(tied).T
            yield gradients


def zero_shares(worth: Weights, share: float, *, most: float = 0.95) -> dict[str, float]:
    """Return the share of zeros of each weight when the `share` of all that is worth least goes.

    No weight gives up more than `most` of its values: a layer without any lets nothing through.
    """
    everything = np.concatenate([values.ravel() for values in worth.values()])
    limit = np.quantile(everything, share)
    return {name: min(most, float(np.mean(values <= limit))) for name, values in worth.items()}


def without_least(values: NDArray[np.float32], worth: NDArray[np.float32], share: float) -> Any:
    """Return `values` with zeros in place of the `share` of them that is worth least."""
    gone = np.argsort(worth, axis=None, kind="stable")[: round(share * values.size)]
    kept = np.array(values)
    kept.flat[gone] = 0
    return kept
