"""Small models: what DP-SGD must step, and what it must refuse."""

import torch
from torch import Tensor, nn


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.GroupNorm(2, 4),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3, padding="same", groups=2, dilation=2),
        nn.Flatten(),
        nn.Linear(4 * 3 * 3, 3),
    )


class Words(nn.Module):
    """Embedding, sequences, a layer used twice, RMSNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.mix = nn.Linear(6, 6)
        self.norm = nn.RMSNorm(6)
        self.conv = nn.Conv1d(6, 4, 2)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.norm(
            torch.tanh(self.mix(torch.tanh(self.mix(self.table(tokens)))))
        )
        features: Tensor = self.conv(hidden.transpose(1, 2)).mean(-1)
        out: Tensor = self.head(features)
        return out


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.head = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.second(torch.tanh(self.first(inputs)))))
        return out


class Remembers(nn.Module):
    """Keeps the data's mean in a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, inputs: Tensor) -> Tensor:
        self.mean += inputs.detach().mean(0)
        out: Tensor = self.head(inputs)
        return out


class Unused(nn.Module):
    """Has a layer that forward never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.spare = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.head(inputs)
        return out


class Folds(nn.Module):
    """Merges examples and positions in the first dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.head(inputs.reshape(-1, 3)).reshape(len(inputs), -1)
        return out
