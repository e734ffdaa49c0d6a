"""What transformers and PEFT compute with tiny random models of the families: python make_families.py > families.json

Weights and adapters are made of their names (`numbers`), here and in families.test.ts alike. Needs torch, transformers, peft.
"""
import json
import sys

import numpy as np
import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
SIZES = dict(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=2,
    head_dim=8, rms_norm_eps=1e-6, max_position_embeddings=128, pad_token_id=None, bos_token_id=None, eos_token_id=None,
)
GRANITE = dict(embedding_multiplier=6.0, residual_multiplier=0.22, attention_multiplier=0.2, logits_scaling=4.0)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
# MiniCPM is not in transformers: its numbers are those of a Granite with these multipliers (OpenBMB's modeling_minicpm.py).
MINICPM = dict(scale_emb=12, scale_depth=1.4, dim_model_base=8)
AS_GRANITE = dict(embedding_multiplier=12.0, residual_multiplier=1.4 / 5**0.5, attention_multiplier=8**-0.5, logits_scaling=32 / 8)
FAMILIES = [
    ("Llama 3.2", dict(model_type="llama", rope_theta=500000.0, tie_word_embeddings=True, rope_scaling=LLAMA3), None),
    ("SmolLM3", dict(model_type="smollm3", rope_theta=2000000.0, tie_word_embeddings=True), None),
    ("Granite", dict(model_type="granite", rope_theta=10000.0, tie_word_embeddings=True, **GRANITE), None),
    ("MiniCPM", dict(model_type="minicpm", rope_theta=10000.0, tie_word_embeddings=False, **MINICPM), AS_GRANITE),
    ("Gemma 3", dict(model_type="gemma3_text", sliding_window=5, query_pre_attn_scalar=8, tie_word_embeddings=True, num_hidden_layers=7), None),
]
IDS = [[(7 * i * i + 3 * i + 11) % 96 for i in range(24)], [(5 * i * i + i + 2) % 96 for i in range(20)]]
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def numbers(name, shape, scale):
    """Uniform in [-scale, scale): murmur3's finalizer of the element's number and the name's characters."""
    seed = 0
    for c in name:
        seed = (seed * 31 + ord(c)) % 2**32
    with np.errstate(over="ignore"):
        h = np.arange(int(np.prod(shape)), dtype=np.uint32) * np.uint32(2654435761) + np.uint32(seed)
        h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
        h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
        h = h ^ (h >> 16)
    return torch.from_numpy(((h / 2**31 - 1) * scale).astype(np.float32).reshape(shape))


def scale_of(name, is_gemma):
    return (0.3 if is_gemma else 0.0) if "norm" in name else 0.3


families = []
for title, config, stand_in in FAMILIES:
    ours = {**SIZES, **config}
    theirs = dict(ours)
    if stand_in:
        theirs = {k: v for k, v in theirs.items() if k not in MINICPM} | {"model_type": "granite"} | stand_in
    model_type = theirs.pop("model_type")
    parsed = transformers.AutoConfig.for_model(model_type, **theirs)
    parsed._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(parsed, dtype=torch.float32)
    is_gemma = model_type.startswith("gemma")
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(numbers(name, tuple(p.shape), scale_of(name, is_gemma)) + (1 if "norm" in name and not is_gemma else 0))
    model.eval()

    def log_probs(m):
        out = []
        for ids in IDS:
            row = torch.tensor([ids])
            out.append(torch.log_softmax(m(row).logits[0, :-1], -1).gather(1, row[0, 1:, None])[:, 0])
        return out

    with torch.no_grad():
        plain = [x.tolist() for x in log_probs(model)]
    lora = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=MODULES, lora_dropout=0.0))
    trained = []
    with torch.no_grad():
        for name, p in lora.named_parameters():
            if not p.requires_grad:
                continue
            key = name.removeprefix("base_model.model.").replace(".default", "")
            p.copy_(numbers(key, tuple(p.shape), 0.2 if "lora_A" in key else 0.1))
            trained.append(p)
    optimizer = torch.optim.AdamW(trained, lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    curve = []
    for _ in range(4):
        loss = -torch.cat(log_probs(lora)).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        curve.append({"loss": loss.item(), "norm": norm.item()})
    families.append({"title": title, "config": {k: v for k, v in ours.items() if v is not None}, "logProbs": plain, "curve": curve})

made = f"torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}, peft {peft.__version__}, CPU"
json.dump({"made": made, "ids": IDS, "families": families}, sys.stdout, indent=1)
