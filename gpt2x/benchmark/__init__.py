"""Generation by gpt2x and by other engines, measured side by side on the same weights and prompts."""
