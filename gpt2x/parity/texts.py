"""What byte-level BPEs get wrong: joiners, scripts, white space, contractions, digits, control characters."""

TEXTS = {
    "prose": "The quick brown fox jumps over the lazy dog.",
    "contractions": "I'm you're he'll we've they'd it's CAN'T don't 'tis",
    "numbers": "3.14159, 1,000,000; 0x7f 2026-11-23 007",
    "spaces": "  two,   three,    four \t tab\t\ttabs   ",
    "newlines": "a\nb\n\nc\r\nd\r\n\r\n e \n",
    "accents": "naïve café Ångström, decomposed: e\u0301 n\u0303",
    "emoji": "😀 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
    "scripts": "漢字かな交じり文 한국어 العربية עברית हिन्दी ไทย Русский",
    "controls": "NUL \x00 bell \x07 escape \x1b zero-width \u200b BOM \ufeff",
    "special": "before<|endoftext|>after <|endoftext|> <|endoftext",
}
