"""Opens with transformers what aigc saved, and prints for each how far transformers' logits are from those made here.

    pip install torch transformers safetensors
    python gpt2_saved.py FOLDER

FOLDER/NAME    a model's folder, and in it `case.safetensors` with `tokens`, `logits`, and `greedy`: the tokens with those that follow, each
               the likeliest; transformers has to find the same
"""
import pathlib, sys
import torch, transformers
from safetensors.torch import load_file

for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    case = load_file(path / "case.safetensors")
    model, told = transformers.GPT2LMHeadModel.from_pretrained(path, output_loading_info=True)
    wrong = {kind: names for kind, names in told.items() if names}
    assert not wrong, f"{path.name}: {wrong}"
    tokens, greedy = case["tokens"], case["greedy"]
    # Texts go on behind what ends others: all are of one length.
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        apart = (model.eval()(tokens).logits - case["logits"]).abs().max()
        found = model.generate(tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_length=greedy.shape[1], pad_token_id=0)
    assert torch.equal(found, greedy), f"{path.name}: {found} {greedy}"
    print(path.name, float(apart))
