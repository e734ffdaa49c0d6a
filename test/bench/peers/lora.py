"""LoRA steps by PyTorch and PEFT, float32: lora.py FOLDER ADAPTER IDS.json STEPS; prints the losses. AdamW, learning rate 1e-4, clipped at 1."""
import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

folder, adapter, ids_file, steps = sys.argv[1:]
torch.set_num_threads(2)
model = PeftModel.from_pretrained(
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager"), adapter, is_trainable=True
)
rows = json.load(open(ids_file))
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)
out = []
for _ in range(int(steps)):
    scores = []
    for ids in rows:
        row = torch.tensor([ids])
        log_probs = torch.log_softmax(model(row).logits[0, :-1], -1)
        scores.append(log_probs.gather(1, row[0, 1:, None])[:, 0])
    loss = -torch.cat(scores).mean()
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    out.append({"loss": loss.item(), "norm": norm.item()})
print(json.dumps(out))
