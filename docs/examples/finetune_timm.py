"""A timm model is pruned, fine-tuned and kept. Real use: pretrained=True, your own loader, more epochs."""

import torch
from torch import nn

print(f"torch {torch.__version__}; importing timm", flush=True)  # several seconds each on a slow machine
import timm

import prunekit

torch.manual_seed(0)
model = timm.create_model(
    "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=48, num_heads=3, num_classes=4
)
loader = [(torch.randn(4, 3, 32, 32), torch.randint(0, 4, (4,))) for _ in range(4)]

photos = [images for images, _ in loader]
result = prunekit.prune(model, loader[0][0], data=photos, target="params<=60%", progress=print)
print(result)

optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
model.train()
for images, labels in loader:
    loss = nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"loss {loss.item():.3f}", flush=True)

prunekit.save(result, "slim-finetuned")  # with spec="timm:...", prunekit.load builds the model itself
