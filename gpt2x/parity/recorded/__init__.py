"""A subject that is no code but a file: what any other program has answered to token ids (subject=recorded)."""
