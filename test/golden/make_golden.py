"""A tiny random model of a family, and what transformers computes with it: python make_golden.py FAMILY FOLDER

FAMILY is llama, qwen2 or qwen3. Tests find FOLDER when HALFLING_GOLDEN is the folder that holds it.
"""

import json
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

family, folder = sys.argv[1:]
torch.manual_seed(0)

config = AutoConfig.for_model(
    family, vocab_size=512, hidden_size=64, intermediate_size=160, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=256,
)
model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
for name, p in model.named_parameters():
    # Norms start as ones and biases as zeros: random ones show whether they are used.
    if p.dim() == 1:
        p.data = torch.randn_like(p) * 0.2 + (1 if "norm" in name else 0)
model.save_pretrained(folder)

# Two rows, the second padded on the left. Neither the padding is scored, nor the first token of a row.
ids = torch.randint(0, 512, (2, 24))
mask = torch.ones_like(ids)
mask[1, :5] = 0
positions = (mask.cumsum(1) - 1).clamp(min=0)
labels = ids.masked_fill(positions == 0, -100)

out = model(input_ids=ids, attention_mask=mask, position_ids=positions, labels=labels)
out.loss.backward()
tensors = {"logits": out.logits.detach()}
for name, p in model.named_parameters():
    tensors[f"grad.{name}"] = p.grad.clone()
save_file(tensors, f"{folder}/expected.safetensors")

greedy = model.generate(ids[:1], attention_mask=mask[:1], do_sample=False, max_new_tokens=12, pad_token_id=0)
with open(f"{folder}/expected.json", "w") as f:
    json.dump(
        {
            "input_ids": ids.tolist(), "attention_mask": mask.tolist(), "labels": labels.tolist(),
            "loss": out.loss.item(), "greedy_from_row0": greedy[0].tolist(),
        },
        f,
    )
