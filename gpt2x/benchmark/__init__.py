"""Generation by gpt2x and its peers, measured side by side on the same weights and prompts."""
