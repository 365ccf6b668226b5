"""A torchvision detector is pruned and fine-tuned. Real use: weights="DEFAULT", your own loader, more steps."""

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator

import prunekit

torch.manual_seed(0)
backbone = nn.Sequential(
    nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU()
)
backbone.out_channels = 32  # what the detector asks of a backbone
anchors = AnchorGenerator(sizes=((16, 32),), aspect_ratios=((1.0,),))
few = {"rpn_post_nms_top_n_test": 20, "rpn_pre_nms_top_n_test": 40, "box_detections_per_img": 5}
model = FasterRCNN(backbone, num_classes=3, rpn_anchor_generator=anchors, min_size=64, max_size=64, **few).eval()
photo = torch.rand(3, 64, 64)
truth = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}

# by weights alone: gradients would have to go through the detector's sorting
result = prunekit.prune(model, ([photo],), ratio=0.5, scorer="magnitude", exclude=["roi_heads.box_predictor.*"])
print(result.report)

optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
model.train()
for _ in range(2):
    losses = model([photo], [truth])
    loss = sum(losses.values())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"loss {loss.item():.3f}")
model.eval()
print(len(model([photo])[0]["boxes"]), "boxes")
