"""What transformers makes of each `models/*/config.json`: the count of parameters, without allocating any."""

import json
import pathlib

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

HERE = pathlib.Path(__file__).parent
MODELS = HERE.parents[1] / "models"


def count(auto, config):
    with torch.device("meta"):
        model = auto.from_config(config)
    # A tied matrix is one parameter and is counted once.
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    record = {}
    for file in sorted(MODELS.glob("**/config.json")):
        # Of a model with an image tower, the text part.
        config = AutoConfig.from_pretrained(file.parent).get_text_config()
        parameters = count(AutoModelForCausalLM, config)
        config.num_labels = 1
        if config.model_type == "granite":
            # transformers has no classifier of this family: the decoder, and a score vector.
            reward = count(AutoModel, config) + config.hidden_size
        else:
            reward = count(AutoModelForSequenceClassification, config)
        record[file.parent.relative_to(MODELS).as_posix()] = dict(parameters=parameters, reward_parameters=reward)
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(counts)}" for name, counts in record.items())
    (HERE / "models.json").write_text("{\n" + rows + "\n}\n")
