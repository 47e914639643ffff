"""Each known mistake as an expression, by its slot and its cause; slots.py says where it is put.

The variables are those of the slot: x, w, b and eps in a norm; s (scores, [B, H, T, T]), H and D in attention; t (the
embedded tokens), p (positions) and C in the embedding; h, the blocks.
"""

# ruff: noqa: E501  # one row per mistake

_GELU = "0.5 * x * (1 + torch.tanh({} * (x + {} * x**3)))"
_ROOT = "math.sqrt(2 / math.pi)"
_LAYER_NORM = "(x - x.mean(-1, keepdim=True)) / {} * w + b"
_STRICT = "causal mask off by one: a token does not see itself"
_INVERTED = "causal mask inverted: a token sees only what follows"
_AXIS = "softmax over the wrong axis: "
_SIN = "(p[:, None] * 10000.0 ** (-torch.arange(0, C, 2, dtype=t.dtype) / C)).sin()"
_SPEEDS = "10000.0 ** (-torch.arange(0, z.shape[-1], 2, dtype=z.dtype) / z.shape[-1])"
_ANGLES = f"(torch.arange(z.shape[-2], dtype=z.dtype)[:, None] * {_SPEEDS})"
_HALVES = (
    f"(lambda a, b, r: torch.cat([a * r.cos() - b * r.sin(), a * r.sin() + b * r.cos()], -1))"
    f"(*z.chunk(2, -1), {_ANGLES})"
)
_NEIGHBOURS = (
    f"(lambda a, b, r: torch.stack([a * r.cos() - b * r.sin(), a * r.sin() + b * r.cos()], -1).flatten(-2))"
    f"(z[..., 0::2], z[..., 1::2], {_ANGLES})"
)
_BACKWARDS = _ANGLES.replace("(torch", "(-torch", 1)
_BARE = "(x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()"
_BARE_RMS = "x / (x.square().mean(-1, keepdim=True) + {}).sqrt()"
_BARE_BLOCK = "(lambda n: (lambda x: x + mlp(n(x)))(x + attn(n(x))))(lambda x: {})"
_ALIBI = (
    "(s / D**0.5 + 2.0 ** (-8 * torch.arange(1, H + 1, dtype=s.dtype) / H)[:, None, None]"
    " * (torch.arange(s.shape[-1])[None, :] - torch.arange(s.shape[-1])[:, None]))"
)

# slot -> cause -> expression
MISTAKES: dict[str, dict[str, str]] = {
    "activation": {
        "exact (erf) GELU instead of tanh": "0.5 * x * (1 + torch.erf(x / math.sqrt(2)))",
        "sigmoid approximation of GELU, x sigmoid(1.702 x), instead of tanh": "x * torch.sigmoid(1.702 * x)",
        "ReLU instead of tanh GELU": "x.clamp(min=0)",
        "squared ReLU instead of tanh GELU": "x.clamp(min=0) ** 2",
        "SiLU instead of tanh GELU": "x * torch.sigmoid(x)",
        "sigmoid instead of tanh GELU": "1 / (1 + torch.exp(-x))",
        "tanh instead of tanh GELU": "torch.tanh(x)",
        "leaky ReLU instead of tanh GELU": "torch.where(x > 0, x, 0.01 * x)",
        "no activation": "x",
        "tanh GELU with 2 / pi for sqrt(2 / pi)": _GELU.format("(2 / math.pi)", "0.044715"),
        **{
            f"tanh GELU with {root} for sqrt(2 / pi)": _GELU.format(root, "0.044715")
            for root in ("0.797885", "0.79788", "0.7979", "0.798", "0.8")  # closer ones are within the tolerance
        },
        **{
            f"tanh GELU with {cubic} instead of 0.044715": _GELU.format(_ROOT, cubic)
            for cubic in ("0.0447", "0.44715", "0.4715", "0.045")
        },
        "output rounded to bfloat16": f"({_GELU.format(_ROOT, '0.044715')}).bfloat16().to(x.dtype)",
    },
    "norm": {
        **{
            f"LayerNorm eps {eps} instead of 1e-05": _LAYER_NORM.format(
                f"(x.var(-1, keepdim=True, correction=0) + {eps}).sqrt()"
            )
            for eps in ("0", "1e-12", "1e-10", "1e-09", "1e-08", "1e-07", "1e-06", "0.0001", "0.001", "0.01")
        },
        "norm skipped": "x",
        "LayerNorm divides by std + eps instead of sqrt(variance + eps)": _LAYER_NORM.format(
            "(x.std(-1, keepdim=True, correction=0) + eps)"
        ),
        "LayerNorm with the unbiased variance (n - 1)": _LAYER_NORM.format("(x.var(-1, keepdim=True) + eps).sqrt()"),
        "LayerNorm with the unbiased variance (n - 1), and std + eps": _LAYER_NORM.format(
            "(x.std(-1, keepdim=True) + eps)"
        ),
        "RMS norm instead of LayerNorm": "x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w + b",
        "RMS norm instead of LayerNorm, without bias": "x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w",
        "RMS norm instead of LayerNorm, divided by RMS + eps": "x / (x.pow(2).mean(-1, keepdim=True).sqrt() + eps) * w + b",
        "RMS norm instead of LayerNorm, divided by RMS + eps and without bias": "x / (x.pow(2).mean(-1, keepdim=True).sqrt() + eps) * w",
        "missing bias: LayerNorm without it": "torch.layer_norm(x, w.shape, w)",
        "missing weight: LayerNorm without it": "torch.layer_norm(x, w.shape) + b",
        "LayerNorm without weight and bias": "torch.layer_norm(x, w.shape)",
        "LayerNorm over the positions instead of the width": "(x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + eps).sqrt() * w + b",
    },
    "scale": {
        "attention scores not scaled by 1/sqrt(head width)": "s",
        "attention scaled by width: 1/sqrt(n_embd)": "s / math.sqrt(H * D)",
        "attention scaled by 1/head width: no square root, or the scale twice": "s / D",
        "attention multiplied by sqrt(head width)": "s * math.sqrt(D)",
        "attention scaled by 1/sqrt(n_head)": "s / math.sqrt(H)",
        "attention scaled by 1/n_head": "s / H",
        "attention scaled by 1/n_embd": "s / (H * D)",
        "attention multiplied by sqrt(n_embd)": "s * math.sqrt(H * D)",
        "ALiBi, which GPT-2 has not: scores less the distance": _ALIBI,
        "scores rounded to float16": "(s / math.sqrt(D)).half().to(s.dtype)",
    },
    "mask": {
        "causal mask missing": "s",
        "causal mask filled with -1e-9 instead of -inf": "s.masked_fill(~seen(), -1e-9)",
        "causal mask filled with 1e-9 instead of -inf": "s.masked_fill(~seen(), 1e-9)",
        "causal mask off by one: a token sees the next": "s.masked_fill(~seen(1), -math.inf)",
        _STRICT: "s.masked_fill(~seen(-1), -math.inf)",
        f"{_STRICT} ": "s.masked_fill(~seen(-1), -1e9)",
        _INVERTED: "s.masked_fill(seen(), -math.inf)",
        f"{_INVERTED}, and the rest is filled with 0 instead of -inf": "s.masked_fill(seen(), 0)",
        f"{_INVERTED}, and the rest is filled with -1e-9 instead of -inf": "s.masked_fill(seen(), -1e-9)",
        f"{_INVERTED}, and the rest is filled with 1e-9 instead of -inf": "s.masked_fill(seen(), 1e-9)",
        f"{_INVERTED}, and the rest is filled with -1e9 instead of -inf": "s.masked_fill(seen(), -1e9)",
        "causal mask of ones and zeros added to the scores": "s + seen()",
        "causal mask the wrong way round: a token sees only itself and what follows": "s.masked_fill(seen(-1), -math.inf)",
        "causal mask multiplied to the scores instead of -inf": "s * seen()",
    },
    "weights": {
        f"{_AXIS}queries instead of keys": "s.softmax(-2)",
        f"{_AXIS}heads instead of keys": "s.softmax(1)",
        f"{_AXIS}batch instead of keys": "s.softmax(0)",
        "attention weights rounded to float16": "s.softmax(-1).half().to(s.dtype)",
        "dropout active in eval mode: without it the subject equals the reference": "torch.dropout(s.softmax(-1), 0.1, True)",
    },
    "masked weights": {
        "causal mask applied after the softmax, without normalising again": "s.softmax(-1) * seen()",
    },
    "split": {
        "heads interleaved: the width split as [head width, n_head]": "qkv.unflatten(-1, (3, -1, H)).permute(2, 0, 4, 1, 3)",
        "q, k and v interleaved by head: c_attn split as [n_head, 3, head width]": "qkv.unflatten(-1, (H, 3, -1)).permute(3, 0, 2, 1, 4)",
        "q, k and v interleaved: c_attn split as [3 in the innermost place]": "qkv.unflatten(-1, (H, -1, 3)).permute(4, 0, 2, 1, 3)",
        "heads split without a transpose": "[y.reshape(len(y), H, y.shape[1], -1) for y in qkv.chunk(3, -1)]",
    },
    "split and merged": {
        "heads split and merged without a transpose": "[y.reshape(len(y), H, y.shape[1], -1) for y in qkv.chunk(3, -1)]",
    },
    "projection": {"output projection left out": "y"},
    "branch": {"its input, which is behind the norm, is added to its output": "x + y"},
    "biases": {"missing bias": ""},
    "biased head": {"a bias that GPT-2 has not: lm_head.bias": ""},
    "order": {
        # What is called q is what the projections call k, and so on.
        "q, k and v in another order: q, v, k": "q, v, k",
        "q, k and v in another order: k, q, v": "k, q, v",
        "q, k and v in another order: k, v, q": "v, q, k",
        "q, k and v in another order: v, q, k": "k, v, q",
        "q, k and v in another order: v, k, q": "v, k, q",
    },
    "turn": {
        "rotary positions (RoPE) by halves, which GPT-2 has not": _HALVES,
        "rotary positions (RoPE) by neighbours, which GPT-2 has not": _NEIGHBOURS,
        "rotary positions (RoPE) by halves and backwards, which GPT-2 has not": _HALVES.replace(_ANGLES, _BACKWARDS),
        "rotary positions (RoPE) by neighbours and backwards, which GPT-2 has not": _NEIGHBOURS.replace(
            _ANGLES, _BACKWARDS
        ),
    },
    "merge": {
        "heads merged without a transpose": "y.reshape(y.shape[0], y.shape[2], -1)",
        "heads merged interleaved": "y.permute(0, 2, 3, 1).flatten(2)",
    },
    "block": {
        "LayerNorm for both norms, without weight and bias": _BARE_BLOCK.format(_BARE),
        "RMS norm for both norms, without weight and bias": _BARE_BLOCK.format(_BARE_RMS.format("1e-5")),
        "RMS norm for both norms, without weight and bias, and without eps": _BARE_BLOCK.format(_BARE_RMS.format("0")),
        "residual left out around attention": "(lambda x: x + mlp(ln_2(x)))(attn(ln_1(x)))",
        "residual left out around the MLP": "mlp(ln_2(x + attn(ln_1(x))))",
        "residual added twice around attention": "(lambda x: x + mlp(ln_2(x)))(2 * x + attn(ln_1(x)))",
        "residual added twice around the MLP": "(lambda x: 2 * x + mlp(ln_2(x)))(x + attn(ln_1(x)))",
        "residuals added twice around attention and the MLP": "(lambda x: 2 * x + mlp(ln_2(x)))(2 * x + attn(ln_1(x)))",
        "residual around the MLP taken from before attention": "x + mlp(ln_2(x + attn(ln_1(x))))",
        "residuals left out around attention and the MLP": "mlp(ln_2(attn(ln_1(x))))",
        "post-norm instead of pre-norm": "(lambda x: ln_2(x + mlp(x)))(ln_1(x + attn(x)))",
        "norm after each branch instead of before it": "(lambda x: x + ln_2(mlp(x)))(x + ln_1(attn(x)))",
        "norm skipped: ln_1": "(lambda x: x + mlp(ln_2(x)))(x + attn(x))",
        "norm skipped: ln_2": "(lambda x: x + mlp(x))(x + attn(ln_1(x)))",
        "norms skipped: ln_1 and ln_2": "(lambda x: x + mlp(x))(x + attn(x))",
        "norms swapped: ln_2 before attention, ln_1 before the MLP": "(lambda x: x + mlp(ln_1(x)))(x + attn(ln_2(x)))",
        "ln_1 used for both norms": "(lambda x: x + mlp(ln_1(x)))(x + attn(ln_1(x)))",
        "ln_2 used for both norms": "(lambda x: x + mlp(ln_2(x)))(x + attn(ln_2(x)))",
        "residual taken after ln_1 instead of before it": "(lambda x: x + mlp(ln_2(x)))(ln_1(x) + attn(ln_1(x)))",
        "residual taken after ln_2 instead of before it": "(lambda x: ln_2(x) + mlp(ln_2(x)))(x + attn(ln_1(x)))",
        "residuals taken after the norms instead of before them": "(lambda x: ln_2(x) + mlp(ln_2(x)))(ln_1(x) + attn(ln_1(x)))",
        "attention and MLP in parallel": "x + attn(ln_1(x)) + mlp(ln_2(x))",
        "attention and MLP in parallel, both after ln_1": "x + attn(ln_1(x)) + mlp(ln_1(x))",
        "MLP before attention": "(lambda x: x + attn(ln_1(x)))(x + mlp(ln_2(x)))",
        "attention left out": "x + mlp(ln_2(x))",
        "MLP left out": "x + attn(ln_1(x))",
        "attention and MLP left out: the block does nothing": "x",
    },
    "embedding": {
        "positions shifted: they begin at 1, not at 0": "t + wpe(p + 1)",
        "positions shifted: the first two are both 0": "t + wpe((p - 1).clamp(min=0))",
        "positions shifted: they begin at 2 (padding_idx + 1)": "t + wpe(p + 2)",
        "positions all 0": "t + wpe(p * 0)",
        "positions counted from the end": "t + wpe(p.flip(0))",
        "position embedding left out": "t",
        "position embedding added twice": "t + 2 * wpe(p)",
        "token embedding left out": "0 * t + wpe(p)",
        "token embedding added twice": "2 * t + wpe(p)",
        "norm of the embeddings that GPT-2 has not: ln_f": "norm(t + wpe(p))",
        "embedding scaled by sqrt(n_embd)": "t * math.sqrt(C) + wpe(p)",
        "embedding divided by sqrt(n_embd)": "t / math.sqrt(C) + wpe(p)",
        "position embedding scaled by sqrt(n_embd)": "t + wpe(p) * math.sqrt(C)",
        "position embedding divided by sqrt(n_embd)": "t + wpe(p) / math.sqrt(C)",
        "sum of the embeddings scaled by sqrt(n_embd)": "(t + wpe(p)) * math.sqrt(C)",
        "sum of the embeddings divided by sqrt(n_embd)": "(t + wpe(p)) / math.sqrt(C)",
        "sinusoidal positions instead of wpe: sines and cosines in turn": f"t + torch.stack([{_SIN}, {_SIN.replace('.sin()', '.cos()')}], -1).flatten(-2)",
        "sinusoidal positions instead of wpe: sines and cosines in two halves": f"t + torch.cat([{_SIN}, {_SIN.replace('.sin()', '.cos()')}], -1)",
        "embeddings rounded to bfloat16": "(t + wpe(p)).bfloat16().to(t.dtype)",
    },
    "layers": {
        "layers out of order: h.2, h.1, h.0": "h[::-1]",
        "layers skipped or repeated: h.0, h.2": "h[::2]",
        "residual stream rounded to float16 between all layers": "[lambda x, f=f: f(x).half().to(x.dtype) for f in h]",
        "residual stream rounded to float16 after h.0": "[lambda x: h[0](x).half().to(x.dtype), *h[1:]]",
        "layers not chained: each gets the embeddings, and only the last one counts": "[lambda x: [f(x) for f in h][-1]]",
    },
    "end": {
        "norm skipped: ln_f": "head(x)",
        "ln_f applied twice": "head(ln_f(ln_f(x)))",
        "log-probabilities, which softmax does not see: a log_softmax at the end": "head(ln_f(x)).log_softmax(-1)",
        "logits less their mean at each position, which softmax does not see": "(lambda y: y - y.mean(-1, keepdim=True))(head(ln_f(x)))",
        "a constant is added at each position, which softmax does not see": "(lambda y: y + y[..., :1])(head(ln_f(x)))",
        "a bias is added to the logits": "head(ln_f(x)) + torch.arange(head.out_features) / 300",
        "logits scaled by 0.5": "head(ln_f(x)) / 2",
        "probabilities instead of logits: a softmax at the end": "head(ln_f(x)).softmax(-1)",
        "logits soft-capped at 30, by tanh": "30 * torch.tanh(head(ln_f(x)) / 30)",
        "logits rounded to float16": "head(ln_f(x)).half().to(x.dtype)",
        "final hidden states rounded to float16": "head(ln_f(x).half().to(x.dtype))",
    },
}
