"""Gradual pruning as a Lightning callback: a little is cut at the end of each epoch, and the optimizer goes along."""

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import prunekit

torch.manual_seed(0)


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))

    def training_step(self, batch, number):
        inputs, labels = batch
        return nn.functional.cross_entropy(self.net(inputs), labels)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class Gradual(lightning.Callback):
    """Cuts ``part`` of the module by ``ratio`` of what is left, once an epoch, up to and without the last."""

    def __init__(self, part, inputs, ratio):
        self.part, self.inputs, self.ratio, self.results = part, inputs, ratio, []

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch + 1 < trainer.max_epochs:  # the last epoch is for recovering
            part = module.get_submodule(self.part)
            result = prunekit.prune(part, self.inputs, data=[self.inputs], ratio=self.ratio)
            for optimizer in trainer.optimizers:
                prunekit.migrate_optimizer(optimizer, result)
            self.results.append(result)


data = TensorDataset(torch.randn(32, 8), torch.randint(0, 2, (32,)))
gradual = Gradual("net", data[:4][0], ratio=0.25)
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", devices=1, callbacks=[gradual], **quiet)
trainer.fit(Classifier(), DataLoader(data, batch_size=8))
result = gradual.results[-1]
print([str(each.report.params) for each in gradual.results])
