"""A pruned transformers model in the library's own Trainer, and back by from_pretrained without prunekit."""

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import prunekit

torch.manual_seed(0)
config = BertConfig(
    vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, num_labels=2
)
model = BertForSequenceClassification(config)
rows = [{"input_ids": torch.randint(3, 50, (8,)), "labels": torch.tensor(n % 2)} for n in range(8)]
batch = {"input_ids": rows[0]["input_ids"][None]}

result = prunekit.prune(model, batch, data=[batch], ratio=0.5, uniform=True)
print(result)

arguments = TrainingArguments("run", max_steps=2, per_device_train_batch_size=4, report_to=[], use_cpu=True)
Trainer(model=model, args=arguments, train_dataset=rows).train()
model.save_pretrained("slim-finetuned")
again = BertForSequenceClassification.from_pretrained("slim-finetuned")
