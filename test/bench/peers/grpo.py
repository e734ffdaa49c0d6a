"""TRL doing what test/bench/grpo-learning.ts does on Pebble from a warm adapter: the time to beat.

python grpo.py MODEL_FOLDER TRAIN.jsonl STEPS   (torch, transformers, peft, trl from PyPI)
"""
import json
import sys
import tempfile
import time

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

folder, train_path, steps = sys.argv[1:4]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
model = PeftModel.from_pretrained(model, f"{folder}/warm-adapter", is_trainable=True)
rows = [json.loads(line) for line in open(train_path)]
dataset = Dataset.from_list(
    [{"prompt": [{"role": "user", "content": row["question"]}], "answer": row["answer"]} for row in rows]
)


def exact_match(completions, answer, **_):
    texts = [completion[0]["content"] for completion in completions]
    return [1.0 if f"<answer>{right}</answer>" in text else 0.0 for text, right in zip(texts, answer)]


trainer = GRPOTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=dataset,
    reward_funcs=exact_match,
    args=GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        learning_rate=2e-4,
        per_device_train_batch_size=64,
        num_generations=8,
        max_completion_length=96,
        temperature=1.0,
        beta=0.0,
        max_steps=int(steps),
        warmup_steps=5,
        lr_scheduler_type="constant_with_warmup",
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        logging_steps=5,
        seed=0,
    ),
)
start = time.time()
trainer.train()
print(json.dumps({"seconds": round(time.time() - start, 1)}))
