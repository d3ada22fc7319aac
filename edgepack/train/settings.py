"""How to train, and what a training leaves behind."""

from typing import Literal, NamedTuple

import msgspec


class TrainingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to train; a family's `TRAINING` overrides some of these.

    The learning rate rises over `warmup_steps` and then falls in a line to 1 % of itself. `patience`
    stops after that many epochs without a better validation NDCG@10 (0: never). `keep` says which
    epoch's weights remain. `newest` is the chance that a history longer than the model's shows its
    newest window; `same_basket` the share of targets out of the own basket when the log has baskets;
    `filter_seen` says whether items that a user has count neither as targets nor in the ranking (for
    targets: next baskets only); `cuts_per_user` how often a history is cut in an epoch, by models that
    learn one position at a time; `query_dropout` the chance that a search is hidden from a search model.
    Models that fill gaps mask the newest item alone with chance `mask_newest`, else the share `mask_share` of
    all.
    """

    loss: Literal["sampled-softmax", "full-softmax", "bce"] = "sampled-softmax"
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    negatives: int = 300
    patience: int = 0
    keep: Literal["best", "last"] = "best"
    seed: int = 1
    validation_users: int = 1000
    newest: float = 0.5
    same_basket: float = 0.5
    filter_seen: bool = True
    cuts_per_user: int = 4
    query_dropout: float = 0.1
    mask_share: float = 0.3
    mask_newest: float = 0.5


class History(NamedTuple):
    """One record an epoch: `loss`, `valid_ndcg@10`, `valid_hr@10`, and `cpu_s`, `wall_s` since the start.

    `kept_epoch`, counted from 1, is the one whose weights remain.
    """

    records: list[dict[str, float]]
    kept_epoch: int
