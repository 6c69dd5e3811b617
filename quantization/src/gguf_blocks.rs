//! GGUF's block formats on another device than the CPU, still as blocks, through candle's own kernels.
//! On the CPU [`ops::linear`](candle_engine::ops::linear) reads them where they lie.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{DType, Device, Module, Tensor};
use candle_engine::weights::{Format, Linear, Stored};
use candle_engine::{Context, Error, Result};

/// y = x · Wᵀ + b over blocks that were uploaded.
#[derive(Debug)]
pub struct BlockLinear {
    weight: QMatMul,
    bias: Option<Tensor>,
    shape: (usize, usize),
    format: Format,
}

impl BlockLinear {
    /// Uploads a matrix `[out, in]` and releases its pages; `bias`, if any, is `[out]` of the activations' dtype.
    ///
    /// Errors: `Tensor` if the weight is no matrix in a block format; candle's, with the tensor's name.
    pub fn new(weight: &Stored, bias: Option<Tensor>, device: &Device) -> Result<Self> {
        let err = |what: String| Error::Tensor { name: weight.name.clone(), what };
        let dtype = ggml(weight.format)
            .ok_or_else(|| err(format!("expected a block format, got {}", weight.format)))?;
        let [out, inner] = weight.shape[..] else {
            return Err(err(format!("expected a matrix, got shape {:?}", weight.shape)));
        };
        let (held, needed) = (weight.bytes.len(), weight.format.bytes(&weight.shape));
        if needed != Some(held) {
            return Err(err(format!("{held} bytes do not hold {out} rows of {inner} in {}", weight.format)));
        }
        let place = || format!("tensor `{}`", weight.name);
        let storage = QStorage::from_data(Cow::Borrowed(&weight.bytes), device, dtype).at(place())?;
        let tensor = QTensor::new(storage, (out, inner)).at(place())?;
        if !device.is_cpu() {
            weight.bytes.release();
        }
        let matmul = QMatMul::from_arc(Arc::new(tensor)).at(place())?;
        Ok(Self { weight: matmul, bias, shape: (out, inner), format: weight.format })
    }
}

impl Linear for BlockLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // f32 is what candle's block kernels take on every device.
        let y = self.weight.forward(&x.to_dtype(DType::F32)?.contiguous()?)?.to_dtype(x.dtype())?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }

    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn format(&self) -> Format {
        self.format
    }
}

/// candle's name of a block format.
fn ggml(format: Format) -> Option<GgmlDType> {
    Some(match format {
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
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use candle_engine::ops;

    use super::*;

    fn stored(format: Format) -> (Stored, Tensor) {
        let numbers: Vec<f32> = (0..24 * 512).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        let weights = Tensor::from_vec(numbers, (24, 512), &Device::Cpu).unwrap();
        let quantized = QTensor::quantize(&weights, ggml(format).unwrap()).unwrap();
        let bytes = quantized.data().unwrap().into_owned();
        let stored = Stored { name: "w".into(), bytes: bytes.into(), shape: vec![24, 512], format };
        (stored, quantized.dequantize(&Device::Cpu).unwrap())
    }

    fn distance(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn uploaded_and_mapped_blocks_agree_with_the_dequantized_product() {
        let x: Vec<f32> = (0..2 * 3 * 512).map(|i| ((i * 53 % 89) as f32 - 44.0) / 44.0).collect();
        let x = Tensor::from_vec(x, (2, 3, 512), &Device::Cpu).unwrap();
        let bias = Tensor::arange(0f32, 24.0, &Device::Cpu).unwrap();
        for format in [Format::Q8_0, Format::Q4_K, Format::Q5_1] {
            let (stored, dense) = stored(format);
            let expected = x.broadcast_matmul(&dense.t().unwrap()).unwrap().broadcast_add(&bias).unwrap();
            let uploaded = BlockLinear::new(&stored, Some(bias.clone()), &Device::Cpu).unwrap();
            assert_eq!((uploaded.shape(), uploaded.format()), ((24, 512), format));
            assert!(distance(&uploaded.forward(&x).unwrap(), &expected) < 0.15, "{format}");
            assert!(distance(&ops::linear(&x, &stored, Some(&bias)).unwrap(), &expected) < 0.15, "{format}");
        }
    }

    #[test]
    fn what_is_no_block_matrix_is_refused() {
        let error = |stored: &Stored| BlockLinear::new(stored, None, &Device::Cpu).unwrap_err().to_string();
        let (mut stored, _) = stored(Format::Q8_0);
        stored.format = Format::F32;
        assert_eq!(error(&stored), "tensor `w`: expected a block format, got F32");
        stored.format = Format::Q4_0;
        assert!(error(&stored).contains("do not hold 24 rows"));
        stored.shape = vec![24 * 512];
        assert!(error(&stored).contains("expected a matrix"));
    }
}
