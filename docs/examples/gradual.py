"""Gradual pruning in a training loop of one's own: cut a little, take the optimizer along, go on."""

import torch
from torch import nn

import prunekit

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
batches = [(torch.randn(16, 8), torch.randint(0, 2, (16,))) for _ in range(6)]
most = sum(p.numel() for p in model.parameters())

for step, (inputs, labels) in enumerate(batches):
    loss = nn.functional.cross_entropy(model(inputs), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 2 == 1:
        result = prunekit.prune(model, inputs, data=[inputs], ratio=0.25)
        prunekit.migrate_optimizer(optimizer, result)  # moments go along with the units that stay
        left = sum(p.numel() for p in model.parameters())
        print(f"step {step}: loss {loss.item():.3f}, {left / most:.0%} of the parameters")
