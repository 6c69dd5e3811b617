"""Random matrices in the k-quant formats, which `gguf` reads but cannot write."""

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

# Where each k-quant block keeps its scales: (bytes per block, offset of d, offset of dmin, dmin / d).
# That quotient puts the mean weight near 0, for which scales and minimums are uniform.
BLOCK_LAYOUTS = {
    Type.Q2_K: (84, 80, 82, 1.5),
    Type.Q3_K: (110, 108, None, 0.0),
    Type.Q4_K: (144, 0, 2, 7.5),
    Type.Q5_K: (176, 0, 2, 15.5),
    Type.Q6_K: (210, 208, None, 0.0),
}


def random_blocks(shape: tuple[int, int], kind: Type, std: float, rng: np.random.Generator) -> np.ndarray:
    """Blocks of random scales, minimums and quants, so that each value of each field occurs; the f16
    factors are chosen for weights of deviation `std`."""
    size, d_at, dmin_at, quotient = BLOCK_LAYOUTS[kind]
    rows, blocks = shape[0], shape[1] // gguf.QK_K
    data = rng.integers(0, 256, (rows, blocks, size), dtype=np.uint8)

    def set_scales(d: np.ndarray) -> None:
        data[..., d_at : d_at + 2] = d.astype(np.float16)[..., None].view(np.uint8)
        if dmin_at is not None:
            data[..., dmin_at : dmin_at + 2] = (quotient * d).astype(np.float16)[..., None].view(np.uint8)

    # A first pass with d = 1 tells how wide the quants spread.
    set_scales(np.ones((rows, blocks)))
    spread = gguf.quants.dequantize(data.reshape(rows, -1), kind).std()
    set_scales(std / spread * rng.uniform(0.7, 1.3, (rows, blocks)))
    return data.reshape(rows, -1)
