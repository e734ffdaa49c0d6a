"""python theirs.py FOLDER MODEL OURS: trains adapters of every kind with PEFT for a few steps and saves them with the logits that
they give there. we-read-theirs.ts compares. The texts are those that ours.ts left in OURS (any of its logits.safetensors)."""

import pathlib
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

folder, base = pathlib.Path(sys.argv[1]), sys.argv[2]
torch.set_num_threads(2)
KINDS = {
    "lora": dict(r=8, target_modules="all-linear"),
    "rslora": dict(r=8, use_rslora=True, target_modules=["q_proj", "v_proj"]),
    "dora": dict(r=4, use_dora=True, target_modules="all-linear"),
    "rank_pattern": dict(r=8, target_modules="all-linear", rank_pattern={"q_proj": 5, "layers.0.mlp.up_proj": 12},
                         alpha_pattern={"v_proj": 7}),
    "regex": dict(r=8, target_modules=r"model\.layers\.[0-3]\..*(q|down)_proj",
                  exclude_modules=["layers.1.mlp.down_proj"]),
    "layers": dict(r=8, target_modules=["q_proj", "o_proj"], layers_to_transform=[0, 5]),
    "gaussian": dict(r=8, target_modules="all-linear", init_lora_weights="gaussian", lora_dropout=0.1),
    "norms": dict(r=8, target_modules="all-linear", modules_to_save=["norm"]),
    "embedding": dict(r=8, target_modules="all-linear", modules_to_save=["embed_tokens"]),
    "output_layer": dict(r=8, use_dora=True, target_modules="all-linear", modules_to_save=["lm_head"]),
}
probes = {name: ids for name, ids in load_file(sys.argv[3]).items() if name.startswith("ids")}

for kind, config in KINDS.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", lora_alpha=16, **config))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    for step in range(5):
        # Any text will do: the probes, shuffled.
        loss = 0
        for ids in probes.values():
            mixed = ids[torch.randperm(len(ids))][None].long()
            loss = loss + model(mixed, labels=mixed).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    model.save_pretrained(folder / kind)
    out = {}
    for name, ids in probes.items():
        with torch.no_grad():
            out[name.replace("ids", "logits")] = model(ids[None].long()).logits[0].contiguous()
    save_file(out, folder / kind / "logits.safetensors")
    print(kind, f"loss after 5 steps {loss.item() / len(probes):.4f}")
