"""How to train, and what a training leaves behind."""

from typing import Annotated, Literal, NamedTuple

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
    all. `start` is where the weights begin (`train.start`): "random"; "neighbours", the item table on axes of
    which items are taken next to which; or "ease" (family mf alone), which ranks before it has learnt
    anything and may be kept as it is with 0 `epochs`. `average` > 0 ranks and keeps an exponential moving
    average of the weights instead of the last ones: a step keeps that share of it (0.999: some 1,000 steps).
    """

    start: Literal["random", "neighbours", "ease"] = "random"
    loss: Literal["sampled-softmax", "full-softmax", "bce"] = "sampled-softmax"
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    negatives: int = 300
    patience: int = 0
    keep: Literal["best", "last"] = "best"
    average: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    seed: int = 1
    validation_users: int = 1000
    newest: float = 0.5
    same_basket: float = 0.5
    filter_seen: bool = True
    cuts_per_user: int = 4
    query_dropout: float = 0.1
    mask_share: float = 0.3
    mask_newest: float = 0.5


_Weight = Annotated[float, msgspec.Meta(ge=0)]
_Count = Annotated[int, msgspec.Meta(ge=1)]


class Distillation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a student's loss is made of: the weights of four parts, each 0 to leave it out.

    `hard`: the training's own loss on what users took. `soft`: Kullback-Leibler divergence of the
    student's softmax over the catalogue from the teacher's at `temperature`, times temperature squared
    (Hinton et al., 2015). `ranking`: the same over the `top` best items of the teacher and the `top` best
    of the student alone (Ranking Distillation, KDD 2018; sampled by both as RCE-KD does). `hints`: squared
    distance of the teacher's hidden states from a linear projection of the student's, which lives in
    training only, relative to their variance (FitNets, 2015); needs two models that encode a history.

    A student much smaller than its teacher wants no dropout: SASRec of half the width (32, two blocks) came
    in 20 epochs on MovieLens-1M to NDCG@10 0.1513 and overlap@10 0.738 with its teacher (0.1560) without,
    to 0.1430 and 0.678 with 0.2. Two teachers which differ in their seed have an overlap of 0.675.

    The teacher is asked at `positions` positions of a batch. `start` is where the student's item table
    begins: "random", or the "teacher" table's best approximation of the student's width.
    """

    hard: _Weight = 0.5
    soft: _Weight = 1.0
    temperature: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    ranking: _Weight = 0.0
    top: _Count = 50
    hints: _Weight = 0.0
    positions: _Count = 256
    start: Literal["random", "teacher"] = "teacher"

    def __post_init__(self) -> None:
        """Refuse a loss without any part."""
        if not (self.hard or self.soft or self.ranking or self.hints):
            raise ValueError("hard, soft, ranking and hints are all 0, which teaches nothing")


class History(NamedTuple):
    """One record an epoch: `loss`, `valid_ndcg@10`, `valid_hr@10`, and `cpu_s`, `wall_s` since the start.

    `kept_epoch`, counted from 1, is the one whose weights remain.
    """

    records: list[dict[str, float]]
    kept_epoch: int
