"""What a weight is worth to the ranking, to first order: Fisher pruning (Theis et al., arXiv 1801.05787).

Taking a weight w away costs about w^2 F / 2, where F is the mean square of the gradient of log p(item) by w
over items drawn from the model's own softmax. It needs histories and no targets, and one scale for all
layers, so that a share of zeros for the whole model becomes a share of its own for each layer.
"""

from typing import Any

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
    serving = graphs.serving
    watched = variables(serving)
    names, tensors = list(watched), [variable.read_value() for variable in watched.values()]
    sums = [np.zeros(tensor.shape, np.float64) for tensor in tensors]

    def gradients_of(inputs: Any, number: Any) -> Any:
        with tf.GradientTape() as tape:
            scores = serving(inputs, training=False)
            drawn = tf.random.stateless_categorical(scores, 1, seed=[_SEED, number])[:, 0]
            loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(drawn, scores))
        found = tape.gradient(loss, list(watched.values()), unconnected_gradients="zero")
        return [tf.convert_to_tensor(gradient) for gradient in found]

    call = tf.function(gradients_of, reduce_retracing=True)
    count = min(row_count(rows), _MOST_ROWS)
    for draw in range(_DRAWS):
        for begin in range(0, count, _BATCH_ROWS):
            inputs = fed(serving, part(rows, begin, min(begin + _BATCH_ROWS, count)))
            gradients = call(inputs, tf.constant(draw * count + begin))
            _add(sums, _joined(graphs, names, [g.numpy() for g in gradients]))
    return {
        name: np.asarray(total * tensor.numpy() ** 2 / (_DRAWS * count), np.float32)
        for name, total, tensor in zip(names, sums, tensors, strict=True)
        if name != f"{graphs.tied}/kernel"
    }


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


def _add(sums: list[NDArray[np.float64]], gradients: list[NDArray[np.float32]]) -> None:
    # Items are drawn independently and gradients are 0 in the mean, so a batch's square is the rows' sum.
    for total, gradient in zip(sums, gradients, strict=True):
        total += gradient.astype(np.float64) ** 2


def _joined(
    graphs: Graphs, names: list[str], gradients: list[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """Return the gradients with a tied kernel's, transposed, added to its table's."""
    tied, table = f"{graphs.tied}/kernel", f"{graphs.table}/embeddings"
    if tied not in names or table not in names:
        return gradients
    both = dict(zip(names, gradients, strict=True))
    return [both[table] + both[tied].T if name == table else both[name] for name in names]
