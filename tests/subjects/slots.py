"""Where a mistake is put into correct models of three styles of code.

A slot is a step of the model. Each style has a piece of text for it, and what takes its place: {} stands for an
expression of the table in mistakes.py, in the variables that are the arguments of the function around it.
"""

TARGETS = {
    "nanoGPT": "nanogpt.py:GPT",
    "formulas": "plain.py:GPT2",
    "einsum": "styles.py:WithEinsum",
    "projections": "styles.py:Model",  # for mistakes with c_attn, which the style einsum does not have
}
_NORM = """\
class Norm(nn.LayerNorm):
    def forward(self, x):
        return (lambda x, w, b, eps: {})(x, self.weight, self.bias, 1e-5)


class MLP("""

_SPLIT = {
    "nanoGPT": (
        (
            "(part.view(B, T, self.n_head, -1).transpose(1, 2) for part in self.c_attn(x).split(C, dim=2))",
            "(lambda qkv, H: {})(self.c_attn(x), self.n_head)",
        ),
    ),
    "formulas": (
        (
            "return qkv.unflatten(-1, (3, self.n_head, -1)).permute(2, 0, 3, 1, 4)",
            "return (lambda qkv, H: {})(qkv, self.n_head)",
        ),
    ),
    "projections": (
        (
            "        q, k, v = (\n            f(x).unflatten(-1, (self.n_head, -1)).transpose(1, 2) for f in "
            "(self.W_query, self.W_key, self.W_value)\n        )\n",
            "        qkv = torch.cat([f(x) for f in (self.W_query, self.W_key, self.W_value)], -1)\n"
            "        q, k, v = (lambda qkv, H: {})(qkv, self.n_head)\n",
        ),
    ),
}

# slot -> style -> pairs of the old text and the new one, in which {} is the expression
SLOTS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "activation": {
        "nanoGPT": (("self.gelu(self.c_fc(x))", "(lambda x: {})(self.c_fc(x))"),),
        "formulas": (
            ("return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))", "return {}"),
        ),
        "einsum": (("self.gelu(x @ self.W_in + self.b_in)", "(lambda x: {})(x @ self.W_in + self.b_in)"),),
    },
    "norm": {
        "nanoGPT": (("nn.LayerNorm(", "Norm("), ("class MLP(", _NORM)),
        "formulas": (
            (
                "return x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt() * self.weight + self.bias",
                "return {}",
            ),
            ("        x = x - x.mean(-1, keepdim=True)\n", "        w, b, eps = self.weight, self.bias, self.eps\n"),
        ),
        "einsum": (
            (
                "nn.functional.layer_norm(x, self.gamma.shape, self.gamma, self.beta)",
                "(lambda x, w, b, eps: {})(x, self.gamma, self.beta, 1e-5)",
            ),
        ),
    },
    "scale": {
        "nanoGPT": (
            (
                "(q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))",
                "(lambda s, H, D: {})(q @ k.transpose(-2, -1), self.n_head, k.size(-1))",
            ),
        ),
        "formulas": (
            (
                "return scores / math.sqrt(self.c_attn.in_features / self.n_head)",
                "return (lambda s, H, D: {})(scores, self.n_head, self.c_attn.in_features // self.n_head)",
            ),
        ),
        "einsum": (
            (
                "q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])",
                "(lambda s, H, D: {})(q @ k.transpose(-1, -2), q.shape[1], q.shape[-1])",
            ),
        ),
    },
    "mask": {
        "nanoGPT": (
            (
                'att.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), float("-inf"))',
                "(lambda s, seen: {})(att, lambda n=0: torch.ones(T, T, dtype=torch.bool).tril(n))",
            ),
        ),
        "formulas": (
            (
                "return scores.masked_fill(~causal(scores), -torch.inf)",
                "return (lambda s, seen: {})(scores, lambda n=0: causal(scores, n))",
            ),
        ),
        "einsum": (
            ("scores.masked_fill(later, -torch.inf)", "(lambda s, seen: {})(scores, lambda n=0: ~later.triu(n + 1))"),
            ("dtype=torch.bool).triu(1)", "dtype=torch.bool).triu(-9)"),
        ),
    },
    "weights": {
        "nanoGPT": (
            ("F.softmax(att, dim=-1)", "(lambda s, seen: {})(att, lambda: torch.ones(T, T, dtype=torch.bool).tril())"),
        ),
        "formulas": (("return scores.softmax(-1)", "return (lambda s, seen: {})(scores, lambda: causal(scores))"),),
        "einsum": (
            (
                "scores.masked_fill(later, -torch.inf).softmax(-1)",
                "(lambda s, seen: {})(scores.masked_fill(later, -torch.inf), lambda: ~later)",
            ),
        ),
    },
    "order": {
        "nanoGPT": (("q, k, v = (", "{} = ("),),
        "formulas": (("q, k, v = self.split", "{} = self.split"),),
        "einsum": (("q, k, v = (torch", "{} = (torch"),),
    },
    "turn": {
        "nanoGPT": (("(q @ k.transpose(-2, -1))", "((lambda z: {})(q) @ (lambda z: {})(k).transpose(-2, -1))"),),
        "formulas": (("q @ k.transpose(-1, -2)", "(lambda z: {})(q) @ (lambda z: {})(k).transpose(-1, -2)"),),
        "einsum": (("q @ k.transpose(-1, -2)", "(lambda z: {})(q) @ (lambda z: {})(k).transpose(-1, -2)"),),
    },
    "merge": {
        "nanoGPT": (("y.transpose(1, 2).reshape(B, T, C)", "(lambda y: {})(y)"),),
        "formulas": (("return heads.transpose(1, 2).flatten(2)", "return (lambda y: {})(heads)"),),
        "einsum": (
            (
                'torch.einsum("bhtd,hdc->btc", attend(q, k, v), self.W_O)',
                "(lambda y: {})(attend(q, k, v)) @ self.W_O.flatten(0, 1)",
            ),
        ),
    },
    "masked weights": {
        "nanoGPT": (
            ('att.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), float("-inf"))', "att"),
            ("F.softmax(att, dim=-1)", "(lambda s, seen: {})(att, lambda: torch.ones(T, T, dtype=torch.bool).tril())"),
        ),
        "formulas": (
            ("return scores.masked_fill(~causal(scores), -torch.inf)", "return scores"),
            ("return scores.softmax(-1)", "return (lambda s, seen: {})(scores, lambda: causal(scores))"),
        ),
        "einsum": (
            ("scores.masked_fill(later, -torch.inf).softmax(-1)", "(lambda s, seen: {})(scores, lambda: ~later)"),
        ),
    },
    "split": _SPLIT,
    "split and merged": {
        "nanoGPT": (*_SPLIT["nanoGPT"], ("y.transpose(1, 2).reshape(B, T, C)", "y.reshape(B, T, C)")),
        "formulas": (
            *_SPLIT["formulas"],
            ("return heads.transpose(1, 2).flatten(2)", "return heads.reshape(len(heads), heads.shape[2], -1)"),
        ),
        "projections": (
            *_SPLIT["projections"],
            ("attend(q, k, v).transpose(1, 2).flatten(2)", "attend(q, k, v).reshape(x.shape)"),
        ),
    },
    "projection": {
        "nanoGPT": (
            ("self.c_proj(y.transpose(1, 2).reshape(B, T, C))", "(lambda y: {})(y.transpose(1, 2).reshape(B, T, C))"),
        ),
        "formulas": (("self.c_proj(self.merge(weights @ v))", "(lambda y: {})(self.merge(weights @ v))"),),
        "einsum": (
            (
                'torch.einsum("bhtd,hdc->btc", attend(q, k, v), self.W_O) + self.b_O',
                "(lambda y: {})(attend(q, k, v).transpose(1, 2).flatten(2))",
            ),
        ),
    },
    "branch": {
        "nanoGPT": (("self.c_proj(self.gelu(self.c_fc(x)))", "(lambda y: {})(self.c_proj(self.gelu(self.c_fc(x))))"),),
        "formulas": (("self.c_proj(self.act(self.c_fc(x)))", "(lambda y: {})(self.c_proj(self.act(self.c_fc(x))))"),),
        "einsum": (
            (
                "self.gelu(x @ self.W_in + self.b_in) @ self.W_out + self.b_out",
                "(lambda y: {})(self.gelu(x @ self.W_in + self.b_in) @ self.W_out + self.b_out)",
            ),
        ),
    },
    "biases": {
        "nanoGPT": (
            ("nn.Linear(config.n_embd, 4 * config.n_embd)", "nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)"),
        ),
        "formulas": (("nn.Linear(a.n_embd, 4 * a.n_embd)", "nn.Linear(a.n_embd, 4 * a.n_embd, bias=False)"),),
        "einsum": (
            (
                "self.W_in, self.b_in = nn.Parameter(torch.randn(width, 4 * width)), nn.Parameter(",
                "self.W_in, _ = nn.Parameter(torch.randn(width, 4 * width)), (",
            ),
            ("x @ self.W_in + self.b_in", "x @ self.W_in"),
        ),
    },
    "biased head": {
        "nanoGPT": (
            ("nn.Linear(config.n_embd, config.vocab_size, bias=False)", "nn.Linear(config.n_embd, config.vocab_size)"),
        ),
        "formulas": (("nn.Linear(a.n_embd, a.vocab_size, bias=False)", "nn.Linear(a.n_embd, a.vocab_size)"),),
        "einsum": (("nn.Linear(a.n_embd, a.vocab_size, bias=False)", "nn.Linear(a.n_embd, a.vocab_size)"),),
    },
    "block": {
        "nanoGPT": (
            (
                "        x = x + self.attn(self.ln_1(x))\n        x = x + self.mlp(self.ln_2(x))\n        return x",
                "        ln_1, attn, ln_2, mlp = self.ln_1, self.attn, self.ln_2, self.mlp\n        return {}",
            ),
        ),
        "formulas": (
            (
                "        x = x + self.attn(self.ln_1(x))\n        return x + self.mlp(self.ln_2(x))",
                "        ln_1, attn, ln_2, mlp = self.ln_1, self.attn, self.ln_2, self.mlp\n        return {}",
            ),
        ),
        "einsum": (
            (
                "        x = x + self.sa(self.norm_a(x))\n        return x + self.ffwd(self.norm_b(x))",
                "        ln_1, attn, ln_2, mlp = self.norm_a, self.sa, self.norm_b, self.ffwd\n        return {}",
            ),
        ),
    },
    "embedding": {
        "nanoGPT": (
            (
                "self.transformer.wte(idx) + self.transformer.wpe(pos)",
                "(lambda t, wpe, p, C, norm: {})(self.transformer.wte(idx), self.transformer.wpe, pos,"
                " self.lm_head.in_features, self.transformer.ln_f)",
            ),
        ),
        "formulas": (
            (
                "return self.wte(ids) + self.wpe(positions)",
                "return (lambda t, wpe, p, C, norm: {})(self.wte(ids), self.wpe, positions,"
                " self.wte.embedding_dim, self.ln_f)",
            ),
        ),
        "einsum": (
            (
                "x = self.token_table(ids) + self.position_table[:, : ids.shape[1]]\n"
                "        return self.unembed(self.last(self.blocks(x)))",
                "x = (lambda t, wpe, p, C, norm: {})(self.token_table(ids), lambda p: self.position_table[0, p],"
                " torch.arange(ids.shape[1]), self.token_table.embedding_dim, self.last)\n"
                "        return self.unembed(self.last(self.blocks(x)))",
            ),
        ),
    },
    "layers": {
        "nanoGPT": (
            (
                "        for block in self.transformer.h:\n            x = block(x)\n",
                "        for block in (lambda h: {})(list(self.transformer.h)):\n            x = block(x)\n",
            ),
        ),
        "formulas": (("return list(self.h)", "return (lambda h: {})(list(self.h))"),),
        "einsum": (
            (
                "self.last(self.blocks(x))",
                "self.last((lambda x, h: [x := f(x) for f in h][-1])(x, (lambda h: {})(list(self.blocks))))",
            ),
        ),
    },
    "end": {
        "nanoGPT": (
            (
                "self.lm_head(self.transformer.ln_f(x))",
                "(lambda x, ln_f, head: {})(x, self.transformer.ln_f, self.lm_head)",
            ),
        ),
        "formulas": (("self.head(self.norm(x))", "(lambda x, ln_f, head: {})(x, self.ln_f, self.lm_head)"),),
        "einsum": (
            (
                "self.unembed(self.last(self.blocks(x)))",
                "(lambda x, ln_f, head: {})(self.blocks(x), self.last, self.unembed)",
            ),
        ),
    },
}
