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


class Attention(nn.Module):
    """Multi-head attention of four Linear layers, as a private model must have it."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self._split(m(x)) for m in (self.query, self.key, self.value))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Transformer(nn.Module):
    """Tokens, positions for every example, attention with residuals, two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8, padding_idx=0)
        self.places = nn.Embedding(7, 8)
        self.first, self.second = nn.LayerNorm(8), nn.RMSNorm(8)
        self.attend = Attention()
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.words(tokens) + self.places(places.expand_as(tokens))
        x = x + self.attend(self.first(x))
        x = x + self.narrow(nn.functional.gelu(self.wide(self.second(x))))
        out: Tensor = self.head(x.mean(1))
        return out


class LowRank(nn.Module):
    """LoRA: a frozen layer and two trainable ones of low rank beside it."""

    def __init__(self, into: int, out: int, rank: int = 2) -> None:
        super().__init__()
        self.frozen = nn.Linear(into, out).requires_grad_(requires_grad=False)
        self.down = nn.Linear(into, rank, bias=False)
        self.up = nn.Linear(rank, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.frozen(x) + 0.5 * self.up(self.down(x))
        return out


def low_rank() -> nn.Module:
    return nn.Sequential(LowRank(6, 8), nn.ReLU(inplace=True), LowRank(8, 3))


class Adds(nn.Module):
    """Changes a layer's input in place after the layer has read it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(inputs)) * 1.0
        added = self.second(hidden)
        hidden += 1.0
        out: Tensor = hidden * added
        return out


class Borrows(nn.Module):
    """Uses a layer's weight past the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = nn.functional.linear(self.head(inputs), self.head.weight)
        return out


class Centres(nn.Module):
    """Takes the mean over the batch by hand, as no layer would admit."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        out: Tensor = self.head(inputs - inputs.mean(0))
        return out


class Places(nn.Module):
    """Looks positions up once for all examples."""

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.places, self.head = nn.Embedding(positions, 4), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        places = self.places(torch.arange(inputs.shape[1], device=inputs.device))
        out: Tensor = self.head((inputs[..., None] * places).sum(1))
        return out
