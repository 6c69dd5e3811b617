//! Where a checkpoint keeps the parts of a decoder.

/// One container's names.
#[derive(Debug, Clone, Copy)]
pub struct TensorNames {
    /// Token embedding.
    pub embedding: &'static str,
    /// Final norm.
    pub norm: &'static str,
    /// Output head, where it is not the embedding.
    pub head: &'static str,
    /// What stands before a layer's number.
    pub layers: &'static str,
    /// Names of a layer's parts, after its number.
    pub parts: Parts,
}

/// The parts of a layer.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // the names are the parts' own
pub struct Parts {
    pub attn_norm: &'static str,
    pub q_proj: &'static str,
    pub k_proj: &'static str,
    pub v_proj: &'static str,
    pub o_proj: &'static str,
    pub q_norm: &'static str,
    pub k_norm: &'static str,
    pub mlp_norm: &'static str,
    pub gate_proj: &'static str,
    pub up_proj: &'static str,
    pub down_proj: &'static str,
}

impl TensorNames {
    /// The name of a layer's part.
    pub fn part(&self, layer: usize, part: &str) -> String {
        format!("{}{layer}.{part}", self.layers)
    }
}

/// Names of the Hub's Llama-style checkpoints.
pub const HF: TensorNames = TensorNames {
    embedding: "model.embed_tokens",
    norm: "model.norm",
    head: "lm_head",
    layers: "model.layers.",
    parts: Parts {
        attn_norm: "input_layernorm",
        q_proj: "self_attn.q_proj",
        k_proj: "self_attn.k_proj",
        v_proj: "self_attn.v_proj",
        o_proj: "self_attn.o_proj",
        q_norm: "self_attn.q_norm",
        k_norm: "self_attn.k_norm",
        mlp_norm: "post_attention_layernorm",
        gate_proj: "mlp.gate_proj",
        up_proj: "mlp.up_proj",
        down_proj: "mlp.down_proj",
    },
};

/// Names of GGUF files.
pub const GGUF: TensorNames = TensorNames {
    embedding: "token_embd",
    norm: "output_norm",
    head: "output",
    layers: "blk.",
    parts: Parts {
        attn_norm: "attn_norm",
        q_proj: "attn_q",
        k_proj: "attn_k",
        v_proj: "attn_v",
        o_proj: "attn_output",
        q_norm: "attn_q_norm",
        k_norm: "attn_k_norm",
        mlp_norm: "ffn_norm",
        gate_proj: "ffn_gate",
        up_proj: "ffn_up",
        down_proj: "ffn_down",
    },
};
