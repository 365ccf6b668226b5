"""The model whose pruned form is kept in tests/data/folder-0.1.0, as prunekit 0.1.0 wrote it."""

from __future__ import annotations

from torch import nn


class Kept(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.hidden, self.head = nn.Linear(12, 24), nn.Linear(24, 5)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu().flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.hidden(x.mean(1)).relu())
