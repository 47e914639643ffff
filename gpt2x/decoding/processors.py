"""stub until merged"""


def process_logits(logits, texts, n_prompts, decode, eos_id):
    return logits
