"""trl's DPOTrainer on given rows: prints one JSON line with the seconds of each optimizer step and the peak memory.

usage: trl_dpo.py MODEL ROWS STEPS {loop,precomputed} {fp32,bf16} [{cpu,cuda} {keep,checkpoint} RANK {plain,liger}]

bf16 is mixed precision: the weights are f32. `checkpoint` computes blocks again in the backward pass. With a RANK above 0, peft trains a
low-rank adapter of all linear maps, and the reference is the model with the adapter off. `liger` patches the model with Liger's kernels.
Each step has a line of its own before, so that a run that is cut off leaves those that it has made.
"""

import json
import resource
import sys
import tempfile
import time

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer


class Clock(TrainerCallback):
    """The wall-clock seconds of each step, its optimizer update included."""

    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *args, **kwargs):
        self.start = time.perf_counter()

    def on_step_end(self, *args, **kwargs):
        self.seconds.append(time.perf_counter() - self.start)
        print(json.dumps({"step_seconds": self.seconds[-1]}), flush=True)


def main(model, rows, steps, reference, precision, device="cpu", activations="keep", rank="0", kernels="plain"):
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
            gradient_checkpointing=activations == "checkpoint",
            bf16=precision == "bf16",
            use_liger_kernel=kernels == "liger",
            precompute_ref_log_probs=reference == "precomputed",
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
            peft_config=LoraConfig(r=int(rank), lora_alpha=2 * int(rank), target_modules="all-linear", task_type="CAUSAL_LM")
            if int(rank)
            else None,
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": clock.seconds, "peak_bytes": peak, "losses": losses[:3]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
