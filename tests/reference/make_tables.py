"""Files of data as NumPy and gzip write them.

Usage: python make_tables.py

Writes tables/: the same 40 rows of 6 bytes with labels 0 to 2 as an array in both orders, as archives, and as IDX.
"""

import gzip
import struct
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent / "tables"
ROWS, WIDTH, LABELS = 40, (2, 3), 3


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


HERE.mkdir(exist_ok=True)
rng = np.random.default_rng(5)
labels = (np.arange(ROWS) % LABELS).astype(np.uint8)
images = (80 * labels[:, None, None] + rng.integers(0, 60, (ROWS, *WIDTH))).astype(np.uint8)
flat = images.reshape(ROWS, -1)
both = np.concatenate([flat, labels[:, None]], axis=1)
np.save(HERE / "rows.npy", both.astype(np.float64))
np.save(HERE / "columns.npy", np.asfortranarray(both.astype(np.int16)))
np.savez(HERE / "stored.npz", x=flat, y=labels.astype(np.int64))
np.savez_compressed(HERE / "deflated.npz", x_train=images, y_train=labels, x_test=images[:5], y_test=labels[:5])
(HERE / "digits-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images), mtime=0))
(HERE / "digits-labels-idx1-ubyte").write_bytes(idx(labels))
