"""PyTorch + PEFT doing what `halfling sft` does in test/bench/learning.ts: the time to beat.

python pebble_sft.py MODEL_FOLDER TRAIN.jsonl TEST.jsonl   (torch, transformers, peft from PyPI)
"""
import json
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

model_path, train_path, test_path = sys.argv[1:4]
torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(model_path)
model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear"))
rows = [json.loads(line) for line in open(train_path)]
pad = tokenizer.pad_token_id


def prompt_of(row):
    return f"<|im_start|>user\n{row['question']}<|im_end|>\n<|im_start|>assistant\n"


def encode(row):
    prompt = tokenizer(prompt_of(row)).input_ids
    full = prompt + tokenizer(f"<think>\n{row['solution']}\n</think>\n<answer>{row['answer']}</answer><|im_end|>").input_ids
    return full, [-100] * len(prompt) + full[len(prompt):]


examples = [encode(row) for row in rows]
order = torch.randperm(len(examples)).tolist() + torch.randperm(len(examples)).tolist()
steps, batch, warmup = 150, 16, 10
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
start = time.time()
tokens = 0
model.train()
for step in range(steps):
    part = [examples[i] for i in order[step * batch : (step + 1) * batch]]
    width = max(len(ids) for ids, _ in part)
    ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in part])
    labels = torch.tensor([lab + [-100] * (width - len(lab)) for _, lab in part])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in part])
    loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    lr = 1e-3 * (step / warmup if step < warmup else (steps - step) / (steps - warmup))
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad()
    tokens += sum(len(ids) for ids, _ in part)
train_seconds = time.time() - start
model.eval()
tests = [json.loads(line) for line in open(test_path)]
correct = 0
tokenizer.padding_side = "left"
for at in range(0, len(tests), 50):
    part = tests[at : at + 50]
    enc = tokenizer([prompt_of(r) for r in part], return_tensors="pt", padding=True)
    out = model.generate(**enc, max_new_tokens=96, do_sample=False)
    for r, o in zip(part, out):
        text = tokenizer.decode(o[enc.input_ids.shape[1] :], skip_special_tokens=True)
        correct += f"<answer>{r['answer']}</answer>" in text
total = time.time() - start
print(json.dumps({"trainSeconds": round(train_seconds, 1), "totalSeconds": round(total, 1), "tokensPerSecond": round(tokens / train_seconds), "loss": loss.item(), "accuracy": correct / len(tests)}))
