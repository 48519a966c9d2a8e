"""Opens in transformers the models that aigc saved; prints for each the difference of the logits.

    pip install torch transformers safetensors
    python gpt2_saved.py DIR

DIR/NAME    a model's directory, and in it `case.safetensors` with `tokens`, aigc's `logits`, and
            `greedy`: the tokens with their greedy continuation, which transformers has to equal
"""
import pathlib, sys
import torch, transformers
from safetensors.torch import load_file

for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    case = load_file(path / "case.safetensors")
    model, info = transformers.GPT2LMHeadModel.from_pretrained(path, output_loading_info=True)
    wrong = {kind: names for kind, names in info.items() if names}
    assert not wrong, f"{path.name}: {wrong}"
    tokens, greedy = case["tokens"], case["greedy"]
    # No end-of-sequence token, so that all sequences have the same length.
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        difference = (model.eval()(tokens).logits - case["logits"]).abs().max()
        found = model.generate(tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_length=greedy.shape[1], pad_token_id=0)
    assert torch.equal(found, greedy), f"{path.name}: {found} {greedy}"
    print(path.name, float(difference))
