"""A linear head on frozen vectors, trained to convergence by full-batch L-BFGS (METHOD 4; Eq. 8). [ours]

In:  vectors of prompts (P, D), labels of training and of held-out rows, a loss (`targets`). A prompt with
     many pairs has many rows and one vector, which is read once. Vectors in a file are read a block at a
     time. Sparse vectors (counts of words) are read as they are: standardised, a word that one text has would
     be the longest, and nothing would be sparse.
Out: `Head`, with f(x) = softmax(weight x + bias).

The L2 penalty on the weights of the standardised vectors is the one with the least held-out loss; each fit
starts where the next larger penalty ended. Held-out losses leave the entropy prior out, which is a penalty as
well. `regress` fits its predictions tau * logits, so that heads of different tau are multiples of each other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from scipy.sparse import csr_matrix, issparse

from preforch_training.embeddings.stored import StoredVectors, blocks_of, store_vectors
from preforch_training.orchestrator.config import PENALTIES, Loss
from preforch_training.orchestrator.targets import (
    LOG_SCALE_LIMIT,
    check_tau,
    head_loss,
    softmax,
)
from preforch_training.statistics.lbfgs import minimise

Dense: TypeAlias = np.ndarray | StoredVectors
Vectors: TypeAlias = Dense | csr_matrix

SPARSE_PENALTIES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
"""L2 penalties on the weights of sparse vectors, which are of length 1 and not standardised."""
RISES = 2
"""So many penalties in a row that are no better than a larger one end the search."""


@dataclass(frozen=True)
class GridPoint:
    """Losses of the fit with one penalty; neither holds penalty or prior."""

    penalty: float
    train_loss: float
    held_out_loss: float


@dataclass(frozen=True)
class Labelled:
    """N labels, (N, K), and the vector that each belongs to: its row in (P, D), (N,)."""

    row_N: np.ndarray
    labels_NK: np.ndarray


@dataclass(frozen=True)
class Head:
    """`log_scale` is 0 except for `bt_gate`.
    `grid` holds the penalties that were tried, the largest first."""

    weight_KD: np.ndarray
    bias_K: np.ndarray
    log_scale: float
    penalty: float
    train_loss: float
    held_out_loss: float
    grid: tuple[GridPoint, ...]

    def logits(self, features_ND: Vectors) -> np.ndarray:
        """(N, K)."""
        return np.asarray(features_ND @ self.weight_KD.T + self.bias_K)

    def weights(self, features_ND: Vectors) -> np.ndarray:
        """f(x), (N, K)."""
        return softmax(self.logits(features_ND), 1.0)

    def times(self, factor: float) -> "Head":
        """The head of logits times `factor`: from `regress` at tau to `regress` at tau / factor."""
        return replace(self, weight_KD=self.weight_KD * factor, bias_K=self.bias_K * factor)


def fit_head(
    features_PD: Vectors,
    train: Labelled,
    held_out: Labelled,
    *,
    loss: Loss,
    tau: float,
    entropy_prior: float = 0.0,
    penalties: Sequence[float] | None = None,
) -> Head:
    """Fit one head per penalty and keep the best on `held_out`. Raises ValueError on unusable arrays.

    `penalties`: by default `PENALTIES`, `SPARSE_PENALTIES` for sparse vectors. Beside stored vectors their
    standardised ones are stored.
    """
    check_tau(tau)
    if penalties is None:
        penalties = SPARSE_PENALTIES if issparse(features_PD) else PENALTIES
    if not penalties or min(penalties) <= 0:
        raise ValueError(f"penalties must be one or more positive numbers, got {list(penalties)}")
    _check_rows("training", features_PD, train, loss=loss, least=2)
    _check_rows("held-out", features_PD, held_out, loss=loss, least=1)
    if held_out.labels_NK.shape[1] != train.labels_NK.shape[1]:
        raise ValueError(
            f"labels differ in their columns: training {train.labels_NK.shape}, {held_out.labels_NK.shape}"
        )
    mean_D, deviation_D = _spread(features_PD, np.unique(train.row_N))
    train_rows, held_out_rows = (
        _rows(features_PD, labelled, mean_D, deviation_D, suffix=suffix)
        for suffix, labelled in ((".train", train), (".held_out", held_out))
    )
    count, size = train.labels_NK.shape[1], features_PD.shape[1]
    limits = [None] * (count * (size + 1)) + [LOG_SCALE_LIMIT]
    values, found = np.zeros(count * (size + 1) + 1), []
    for penalty in sorted(set(penalties), reverse=True):

        def penalised(variables: torch.Tensor, penalty: float = penalty) -> Iterator[torch.Tensor]:
            yield from train_rows.losses(variables, loss=loss, entropy_prior=entropy_prior)
            yield penalty * variables[: count * size].pow(2).sum()

        values = minimise(penalised, values, limits=limits)
        variables = torch.from_numpy(values)
        reached = (sum(map(float, rows.losses(variables, loss=loss))) for rows in (train_rows, held_out_rows))
        point = GridPoint(penalty, *reached)
        found.append((point, values))
        losses = [entry.held_out_loss for entry, _ in found]
        if len(losses) > RISES and min(losses[-RISES:]) > min(losses[:-RISES]):
            break
    best, values = min(found, key=lambda entry: entry[0].held_out_loss)
    weight_KD = values[: count * size].reshape(count, size) / deviation_D
    head = Head(
        weight_KD=weight_KD,
        bias_K=values[count * size : -1] - weight_KD @ mean_D,
        log_scale=float(values[-1]) if loss == "bt_gate" else 0.0,
        penalty=best.penalty,
        train_loss=best.train_loss,
        held_out_loss=best.held_out_loss,
        grid=tuple(point for point, _ in found),
    )
    return head.times(1 / tau) if loss == "regress" else head


@dataclass(frozen=True)
class _Rows:
    """Standardised features of prompts, and the labels of rows by block of prompts: which prompts, the place
    among them of each row's, the rows' labels."""

    features_QD: torch.Tensor | StoredVectors
    blocks: list[tuple[slice, torch.Tensor, torch.Tensor]]

    def losses(
        self, variables: torch.Tensor, *, loss: Loss, entropy_prior: float = 0.0
    ) -> Iterator[torch.Tensor]:
        """Mean loss of the head that `variables` are (weights, biases, log scale) in parts that add up to it,
        one a block. tau is folded in afterwards."""
        size = self.features_QD.shape[1]
        rows = sum(len(row_M) for _, row_M, _ in self.blocks)
        for prompts, row_M, labels_MK in self.blocks:
            count = labels_MK.shape[1]
            weight_KD = variables[: count * size].reshape(count, size)
            # Reading the features is what costs, so they are in single precision; everything else is double.
            logits_BK = (self._of(prompts) @ weight_KD.T.float()).double() + variables[count * size : -1]
            mean = head_loss(
                logits_BK[row_M],
                labels_MK,
                loss=loss,
                tau=1.0,
                log_scale=variables[-1],
                entropy_prior=entropy_prior,
            )
            yield mean * (len(row_M) / rows)

    def _of(self, prompts: slice) -> torch.Tensor:
        """Features of a block; what is in memory is one."""
        if isinstance(self.features_QD, StoredVectors):
            return torch.from_numpy(self.features_QD[prompts])
        return self.features_QD


def _spread(features_PD: Vectors, known_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation that vectors are standardised by: 0 and 1 for sparse ones."""
    count, size = len(known_Q), features_PD.shape[1]
    if not isinstance(features_PD, Dense):
        return np.zeros(size), np.ones(size)
    mean_D = sum(part.sum(axis=0, dtype=np.float64) for part in _parts(features_PD, known_Q)) / count
    squares_D = sum(((part - mean_D) ** 2).sum(axis=0) for part in _parts(features_PD, known_Q))
    deviation_D = np.sqrt(squares_D / count)
    # A feature that never varies says nothing, and is the bias's to use.
    return mean_D, np.where(deviation_D > 1e-12, deviation_D, np.inf)


def _rows(
    features_PD: Vectors,
    labelled: Labelled,
    mean_D: np.ndarray,
    deviation_D: np.ndarray,
    *,
    suffix: str,
) -> _Rows:
    """`suffix`: of the file of standardised features, where they are stored."""
    used_Q, row_N = np.unique(labelled.row_N, return_inverse=True)
    features: torch.Tensor | StoredVectors
    blocks = [slice(0, len(used_Q))]
    if not isinstance(features_PD, Dense):
        entries = features_PD[used_Q].tocoo()
        features = torch.sparse_coo_tensor(
            torch.from_numpy(np.stack([entries.row, entries.col])),
            torch.from_numpy(entries.data),
            entries.shape,
            dtype=torch.float32,
            check_invariants=True,
        ).coalesce()
    else:
        standard = (
            ((part - mean_D) / deviation_D).astype(np.float32) for part in _parts(features_PD, used_Q)
        )
        if isinstance(features_PD, StoredVectors):
            features = store_vectors(features_PD.path.with_suffix(suffix), standard)
            blocks = list(blocks_of(*features.shape))
        else:
            features = torch.from_numpy(np.concatenate(list(standard)))
    labels_NK = np.asarray(labelled.labels_NK, dtype=np.float64)
    by_prompt_N = np.argsort(row_N, kind="stable")
    borders = np.searchsorted(row_N[by_prompt_N], [block.start for block in blocks[1:]])
    # Each block's rows in their own order.
    rows = [np.sort(part) for part in np.split(by_prompt_N, borders)]
    return _Rows(
        features,
        [
            (block, torch.from_numpy(row_N[row_M] - block.start), torch.from_numpy(labels_NK[row_M]))
            for block, row_M in zip(blocks, rows, strict=True)
        ],
    )


def _parts(features_PD: Dense, rows_Q: np.ndarray) -> Iterator[np.ndarray]:
    """These rows of dense features, a block of them at a time."""
    return (features_PD[rows_Q[block]] for block in blocks_of(len(rows_Q), features_PD.shape[1]))


def _check_rows(name: str, features_PD: Vectors, labelled: Labelled, *, loss: Loss, least: int) -> None:
    row_N, labels_NK = labelled.row_N, labelled.labels_NK
    shapes = [len(features_PD.shape), labels_NK.ndim]
    if shapes != [2, 2] or len(row_N) != len(labels_NK) or labels_NK.shape[1] < 2:
        raise ValueError(
            f"features must be (P, D), {name} rows (N,) and labels (N, K) with K >= 2, "
            f"got {features_PD.shape}, {row_N.shape} and {labels_NK.shape}"
        )
    if len(row_N) < least:
        raise ValueError(f"a head needs at least {least} {name} rows, got {len(row_N)}")
    dense_PD = features_PD if isinstance(features_PD, Dense) else features_PD.data[:, None]
    for block in blocks_of(*dense_PD.shape):
        _check_finite("features", dense_PD[block], first=block.start)
    _check_finite(f"{name} labels", labels_NK)
    off_N = (labels_NK < 0).any(axis=1) | (np.abs(labels_NK.sum(axis=1) - 1) > 1e-6)
    if loss in ("forward", "reverse") and off_N.any():
        row = int(np.flatnonzero(off_N)[0])
        raise ValueError(
            f"{name} labels of the loss {loss!r} must be weights, row {row} is {labels_NK[row].tolist()}"
        )


def _check_finite(what: str, values: np.ndarray, *, first: int = 0) -> None:
    wrong = np.argwhere(~np.isfinite(values))
    if wrong.size:
        row, column = wrong[0].tolist()
        raise ValueError(
            f"{what}: row {first + row}, column {column} is {values[row, column]}; it must be finite"
        )
