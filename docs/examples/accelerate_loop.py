"""A pruned model in an Accelerate loop: prune first, prepare then. On several ranks each prunes by the same seed."""

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import prunekit

torch.manual_seed(0)
accelerator = Accelerator()
model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
data = TensorDataset(torch.randn(32, 8), torch.randint(0, 2, (32,)))

result = prunekit.prune(model, torch.randn(1, 8), data=[data[0][0][None]], ratio=0.5)

optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(data, batch_size=8))
for inputs, labels in loader:
    loss = nn.functional.cross_entropy(model(inputs), labels)
    optimizer.zero_grad()
    accelerator.backward(loss)
    optimizer.step()
accelerator.print(f"loss {loss.item():.3f}")
