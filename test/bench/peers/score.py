"""Log-probabilities of each next token by PyTorch, float32: score.py FOLDER IDS.json OUT.json; a list of ids a row, one row at a time."""
import json
import sys

import torch
from transformers import AutoModelForCausalLM

folder, ids_file, out_file = sys.argv[1:]
torch.set_num_threads(2)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
out = []
with torch.inference_mode():
    for ids in json.load(open(ids_file)):
        row = torch.tensor([ids])
        log_probs = torch.log_softmax(model(row).logits[0, :-1], dim=-1)
        out.append(log_probs.gather(1, row[0, 1:, None])[:, 0].tolist())
json.dump(out, open(out_file, "w"))
