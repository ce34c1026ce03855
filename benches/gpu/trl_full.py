"""Full fine-tuning by trl's DPOTrainer in mixed precision: prints one JSON line with the seconds of each optimizer step.

usage: trl_full.py MODEL ROWS STEPS {cuda,cpu}
"""

import json
import pathlib
import sys
import tempfile

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "peer"))
from trl_dpo import Clock  # noqa: E402


def main(model, rows, steps, device):
    torch.manual_seed(0)
    with open(rows) as file:
        data = Dataset.from_list([json.loads(line) for line in file])
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.eos_token
    clock = Clock()
    with tempfile.TemporaryDirectory() as output:
        config = DPOConfig(
            output_dir=output,
            per_device_train_batch_size=2,
            max_steps=int(steps),
            max_length=None,
            learning_rate=1e-6,
            gradient_checkpointing=True,
            bf16=True,
            precompute_ref_log_probs=True,
            save_strategy="no",
            report_to=[],
            use_cpu=device == "cpu",
            disable_tqdm=True,
            dataloader_num_workers=0,
        )
        trainer = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            args=config,
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.train()
    print(json.dumps({"seconds": clock.seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
