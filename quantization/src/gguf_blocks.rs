//! GGUF's block formats: used in place on the CPU, through candle's kernels elsewhere.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{CpuStorage, DType, Device, Module, Storage, Tensor};
use candle_engine::kernels::{blocks, Isa};
use candle_engine::weights::{Format, Linear, Stored};
use candle_engine::{Context, Error, Result};

/// y = x · Wᵀ + b over mapped blocks, on the CPU.
///
/// Activations are quantized to 8 bits, one scale for every 32; see [`blocks`].
#[derive(Debug)]
pub struct BlockLinear {
    weight: Stored,
    bias: Option<Tensor>,
}

impl BlockLinear {
    /// `weight` is a matrix `[out, in]`; `bias`, if any, is `[out]` in f32.
    ///
    /// Errors: `Tensor` if the weight is no matrix in a block format.
    pub fn new(weight: Stored, bias: Option<Tensor>) -> Result<Self> {
        matrix(&weight)?;
        Ok(Self { weight, bias })
    }
}

impl Linear for BlockLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (n, k) = self.shape();
        let mut shape = x.dims().to_vec();
        if shape.pop() != Some(k) {
            return Err(candle_core::Error::ShapeMismatchBinaryOp {
                lhs: x.shape().clone(),
                rhs: (n, k).into(),
                op: "linear",
            }
            .into());
        }
        shape.push(n);
        let numbers = x.to_dtype(DType::F32)?.contiguous()?;
        let mut y = vec![0.0; shape.iter().product()];
        {
            let (storage, layout) = numbers.storage_and_layout();
            let Storage::Cpu(CpuStorage::F32(all)) = &*storage else {
                return Err(Error::Input(format!(
                    "mapped weights want activations on the CPU, got {:?}",
                    x.device()
                )));
            };
            let x = &all[layout.start_offset()..][..layout.shape().elem_count()];
            blocks::matmul(Isa::best(), self.weight.format, &self.weight.bytes, k, x, &mut y);
        }
        finish(Tensor::from_vec(y, shape, &Device::Cpu)?, self.bias.as_ref(), x.dtype())
    }

    fn shape(&self) -> (usize, usize) {
        (self.weight.shape[0], self.weight.shape[1])
    }

    fn format(&self) -> Format {
        self.weight.format
    }
}

/// y = x · Wᵀ + b over blocks that were uploaded to any candle device, with candle's own kernels.
#[derive(Debug)]
pub struct UploadedBlockLinear {
    weight: QMatMul,
    bias: Option<Tensor>,
    shape: (usize, usize),
    format: Format,
}

impl UploadedBlockLinear {
    /// Uploads a matrix `[out, in]`; `bias`, if any, is `[out]` in f32 on the device.
    ///
    /// Errors: `Tensor` if the weight is no matrix in a block format; candle's, with the tensor's name.
    pub fn new(weight: &Stored, bias: Option<Tensor>, device: &Device) -> Result<Self> {
        let shape = matrix(weight)?;
        let place = || format!("tensor `{}`", weight.name);
        let storage = QStorage::from_data(Cow::Borrowed(&weight.bytes), device, dtype(weight)?).at(place())?;
        let tensor = QTensor::new(storage, shape).at(place())?;
        if !device.is_cpu() {
            weight.bytes.release();
        }
        let matmul = QMatMul::from_arc(Arc::new(tensor)).at(place())?;
        Ok(Self { weight: matmul, bias, shape, format: weight.format })
    }
}

impl Linear for UploadedBlockLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.weight.forward(&x.to_dtype(DType::F32)?.contiguous()?)?;
        finish(y, self.bias.as_ref(), x.dtype())
    }

    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn format(&self) -> Format {
        self.format
    }
}

/// The numbers of a whole tensor in a block format, as f32 on the CPU.
///
/// Errors: `Tensor` if it is in no block format.
pub fn dequantize(stored: &Stored) -> Result<Tensor> {
    dtype(stored)?;
    let mut numbers = vec![0.0; stored.shape.iter().product()];
    blocks::dequantize(stored.format, &stored.bytes, &mut numbers);
    Ok(Tensor::from_vec(numbers, &stored.shape[..], &Device::Cpu)?)
}

/// Rows of a table in a block format by index, as f32 on the CPU.
///
/// Shapes: `table [n, k]`, `ids [t]` → `[t, k]`.
/// Errors: `Input` for an index that the table has not; `Tensor` if it is no matrix in a block format.
pub fn embed(table: &Stored, ids: &[u32]) -> Result<Tensor> {
    let (rows, width) = matrix(table)?;
    let row_bytes = table.bytes.len() / rows.max(1);
    let mut numbers = vec![0.0; ids.len() * width];
    for (&id, numbers) in ids.iter().zip(numbers.chunks_exact_mut(width.max(1))) {
        let id = id as usize;
        if id >= rows {
            return Err(Error::Input(format!("token id {id}: the embedding has {rows} rows")));
        }
        blocks::dequantize(table.format, &table.bytes[id * row_bytes..][..row_bytes], numbers);
    }
    Ok(Tensor::from_vec(numbers, (ids.len(), width), &Device::Cpu)?)
}

fn finish(y: Tensor, bias: Option<&Tensor>, dtype: DType) -> Result<Tensor> {
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    Ok(y.to_dtype(dtype)?)
}

/// Rows and columns; the bytes are then whole blocks, as many as these say.
fn matrix(stored: &Stored) -> Result<(usize, usize)> {
    dtype(stored)?;
    let err = |what: String| Error::Tensor { name: stored.name.clone(), what };
    let [rows, cols] = stored.shape[..] else {
        return Err(err(format!("expected a matrix, got shape {:?}", stored.shape)));
    };
    match stored.format.bytes(&stored.shape) {
        Some(bytes) if bytes == stored.bytes.len() => Ok((rows, cols)),
        _ => Err(err(format!(
            "{} bytes do not hold {rows} rows of {cols} in {}",
            stored.bytes.len(),
            stored.format
        ))),
    }
}

/// candle's name of a block format.
fn dtype(stored: &Stored) -> Result<GgmlDType> {
    Ok(match stored.format {
        Format::Q4_0 => GgmlDType::Q4_0,
        Format::Q4_1 => GgmlDType::Q4_1,
        Format::Q5_0 => GgmlDType::Q5_0,
        Format::Q5_1 => GgmlDType::Q5_1,
        Format::Q8_0 => GgmlDType::Q8_0,
        Format::Q2_K => GgmlDType::Q2K,
        Format::Q3_K => GgmlDType::Q3K,
        Format::Q4_K => GgmlDType::Q4K,
        Format::Q5_K => GgmlDType::Q5K,
        Format::Q6_K => GgmlDType::Q6K,
        other => {
            let what = format!("expected a block format, got {other}");
            return Err(Error::Tensor { name: stored.name.clone(), what });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(format: GgmlDType, ours: Format) -> (Stored, Tensor) {
        let numbers: Vec<f32> = (0..24 * 512).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        let weights = Tensor::from_vec(numbers, (24, 512), &Device::Cpu).unwrap();
        let quantized = QTensor::quantize(&weights, format).unwrap();
        let bytes = quantized.data().unwrap().into_owned();
        let stored = Stored { name: "w".into(), bytes: bytes.into(), shape: vec![24, 512], format: ours };
        (stored, quantized.dequantize(&Device::Cpu).unwrap())
    }

    fn distance(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn mapped_and_uploaded_agree_with_the_dequantized_product() {
        let x: Vec<f32> = (0..2 * 3 * 512).map(|i| ((i * 53 % 89) as f32 - 44.0) / 44.0).collect();
        let x = Tensor::from_vec(x, (2, 3, 512), &Device::Cpu).unwrap();
        let bias = Tensor::arange(0f32, 24.0, &Device::Cpu).unwrap();
        for (theirs, ours) in
            [(GgmlDType::Q8_0, Format::Q8_0), (GgmlDType::Q4K, Format::Q4_K), (GgmlDType::Q5_1, Format::Q5_1)]
        {
            let (stored, dense) = stored(theirs, ours);
            let expected = x.broadcast_matmul(&dense.t().unwrap()).unwrap().broadcast_add(&bias).unwrap();
            let mapped = BlockLinear::new(stored.clone(), Some(bias.clone())).unwrap();
            let uploaded = UploadedBlockLinear::new(&stored, Some(bias.clone()), &Device::Cpu).unwrap();
            for linear in [&mapped as &dyn Linear, &uploaded] {
                assert_eq!((linear.shape(), linear.format()), ((24, 512), ours));
                let y = linear.forward(&x).unwrap();
                assert_eq!(y.dims(), [2, 3, 24]);
                assert!(distance(&y, &expected) < 0.15, "{ours}");
                let half = linear.forward(&x.to_dtype(DType::BF16).unwrap()).unwrap();
                assert_eq!(half.dtype(), DType::BF16);
            }
            assert!(mapped.forward(&x.narrow(2, 0, 256).unwrap()).is_err());
            assert_eq!(distance(&super::dequantize(&stored).unwrap(), &dense), 0.0);
            let rows = embed(&stored, &[23, 0, 5]).unwrap();
            let ids = Tensor::new(&[23u32, 0, 5], &Device::Cpu).unwrap();
            assert_eq!(distance(&rows, &dense.index_select(&ids, 0).unwrap()), 0.0);
            assert!(embed(&stored, &[24]).unwrap_err().to_string().contains("token id 24"));
        }
    }

    #[test]
    fn what_is_no_block_matrix_is_refused() {
        let (mut stored, _) = stored(GgmlDType::Q8_0, Format::Q8_0);
        stored.format = Format::F32;
        let error = BlockLinear::new(stored.clone(), None).unwrap_err().to_string();
        assert_eq!(error, "tensor `w`: expected a block format, got F32");
        stored.format = Format::Q4_0;
        assert!(BlockLinear::new(stored.clone(), None)
            .unwrap_err()
            .to_string()
            .contains("do not hold 24 rows"));
        stored.shape = vec![24 * 512];
        assert!(BlockLinear::new(stored, None).unwrap_err().to_string().contains("expected a matrix"));
    }
}
