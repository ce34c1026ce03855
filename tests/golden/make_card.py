"""The front matter of model cards, as huggingface_hub writes it. Each text is read again and compared."""

import json
import pathlib

import huggingface_hub
from huggingface_hub import ModelCard, ModelCardData

CASES = [
    dict(library_name="transformers", pipeline_tag="text-generation", tags=["setpoint", "sft"]),
    dict(
        base_model="Qwen/Qwen3-0.6B",
        library_name="peft",
        license="apache-2.0",
        pipeline_tag="text-generation",
        datasets=["someone/pairs", "org/held-out_1.0"],
        tags=["setpoint", "cal_dpo", "lora"],
    ),
    dict(
        base_model="meta-llama/Llama-3.2-1B",
        library_name="transformers",
        license="other",
        license_name="llama3.2: \"community\"",
        license_link="https://huggingface.co/meta-llama/Llama-3.2-1B/blob/main/LICENSE.txt?a=1#b",
        pipeline_tag="text-classification",
        tags=["setpoint", "reward-model"],
    ),
]

if __name__ == "__main__":
    rows = []
    for fields in CASES:
        data = ModelCardData(**fields)
        card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n# A model\n")
        assert card.data.to_dict() == fields, card.data.to_dict()
        rows.append({"fields": fields, "yaml": data.to_yaml()})
    golden = {"huggingface_hub": huggingface_hub.__version__, "rows": rows}
    pathlib.Path(__file__).with_name("card.json").write_text(json.dumps(golden, indent=1) + "\n")
    print(len(rows), "cards")
