"""Which modules PEFT adapts, with which rank and alpha, and which it copies: the table that test/adapters/targets.test.ts holds
our matching against. Usage: python targets.py > ../adapters/peft-targets.json"""

import json

import peft
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import LlamaConfig, Qwen2Config, Qwen3Config, AutoModelForCausalLM

SIZES = dict(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-6)
MODELS = {
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=False),
    "qwen3": Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=True),
}
CASES = [
    dict(target_modules="all-linear"),
    dict(target_modules="ALL-LINEAR", exclude_modules=["k_proj"]),
    dict(target_modules=["q_proj", "v_proj"]),
    dict(target_modules=["self_attn.q_proj", "model.layers.1.mlp.down_proj"]),
    dict(target_modules=["layers.1.self_attn.o_proj", "gate_proj"]),
    dict(target_modules=r".*\.(q|k)_proj"),
    dict(target_modules=r"model\.layers\.[02]\..*_proj"),
    dict(target_modules=r".*layers\.(?P<n>\d)\.mlp\.(up|down)_proj", exclude_modules=r".*\.2\..*"),
    dict(target_modules=["q_proj", "up_proj"], exclude_modules=["layers.0.self_attn.q_proj"]),
    dict(target_modules=["q_proj", "v_proj"], layers_to_transform=[0, 2]),
    dict(target_modules=["q_proj", "v_proj"], layers_to_transform=1),
    dict(target_modules=["q_proj", "model.layers.0.mlp.up_proj"], layers_to_transform=[2], layers_pattern="layers"),
    dict(target_modules=["q_proj"], layers_to_transform=[2], layers_pattern=["h", "layers"]),
    dict(target_modules="all-linear", r=4, lora_alpha=6,
         rank_pattern={"q_proj": 2, r"layers\.1\..*": 3, "model.layers.0.mlp.up_proj": 7},
         alpha_pattern={"proj": 99, "self_attn.v_proj": 5, r".*\.(gate|up)_proj": 1.5}),
    dict(target_modules=["q_proj", "down_proj"], rank_pattern={"layers.0.self_attn.q_proj": 1, "q_proj": 2, "proj": 3}),
    dict(target_modules=["q_proj", "down_proj"], modules_to_save=["lm_head"]),
    dict(target_modules=["q_proj", "down_proj"], modules_to_save=["embed_tokens", "lm_head"]),
    dict(target_modules="all-linear", modules_to_save=["norm"]),
    dict(target_modules="all-linear", modules_to_save=["input_layernorm", "model.norm"]),
    dict(target_modules="all-linear", modules_to_save=["layers.1.mlp", "v_proj"]),
]

rows = []
for family, config in MODELS.items():
    for case in CASES:
        model = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(task_type="CAUSAL_LM", **case))
        at = len("base_model.model.")
        modules = {name[at:]: [m.r["default"], m.lora_alpha["default"]] for name, m in model.named_modules()
                   if isinstance(m, LoraLayer)}
        keys = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
        saved = {key[at:]: list(value.shape) for key, value in keys.items() if "lora_" not in key}
        rows.append(dict(model=family, config=case, modules=modules, saved=saved))
configs = {family: config.to_dict() for family, config in MODELS.items()}
print("{\n" + f'"made": "PEFT {peft.__version__}, test/interop/targets.py",\n"models": {json.dumps(configs)},\n"cases": [')
print(",\n".join(json.dumps(row) for row in rows) + "\n]}")
