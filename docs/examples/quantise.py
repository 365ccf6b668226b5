"""Pruned first, then quantised by torchao: int8 weights of a model that is smaller already."""

import torch
from torch import nn
from torchao.quantization import Int8WeightOnlyConfig, quantize_

import prunekit

torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True, dropout=0.0)
model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
inputs = torch.randn(2, 16, 64)

result = prunekit.prune(model, inputs, data=[inputs], ratio={"mlp.hidden": 0.5})
print(result.report)

with torch.no_grad():
    wanted = model(inputs)
    # what prunekit cannot see through any more comes last: quantised weights are no plain tensors
    quantize_(model, Int8WeightOnlyConfig(), filter_fn=lambda module, name: type(module) is nn.Linear)
    found = model(inputs)
print(f"relative error of int8 {float((found - wanted).norm() / wanted.norm()):.4f}")
