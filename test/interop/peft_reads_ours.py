"""python peft_reads_ours.py FOLDER MODEL: loads the adapters that ours.ts made into PEFT, and the merged models into transformers,
and compares their logits with ours."""

import pathlib
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

folder, base = pathlib.Path(sys.argv[1]), sys.argv[2]
torch.set_num_threads(2)
worst = 0.0


def largest_difference(model, ours):
    model.eval()
    largest = 0.0
    for i in range(sum(name.startswith("ids") for name in ours)):
        with torch.no_grad():
            logits = model(ours[f"ids{i}"][None].long()).logits[0]
        largest = max(largest, (logits - ours[f"logits{i}"]).abs().max().item())
    return largest


for at in sorted(path.parent for path in folder.glob("*/logits.safetensors")):
    ours = load_file(at / "logits.safetensors")
    plain = largest_difference(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), ours)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), at)
    adapted = largest_difference(model, ours)
    merged = largest_difference(AutoModelForCausalLM.from_pretrained(at / "merged", dtype=torch.float32), ours)
    print(f"{at.name:14} PEFT {adapted:.1e}   merged {merged:.1e}   (without the adapter {plain:.1e})")
    assert plain > 0.1, "the adapter does nothing: nothing is proven"
    worst = max(worst, adapted, merged)
print(f"largest difference of any logit: {worst:.1e}")
sys.exit(worst > 1e-4)
