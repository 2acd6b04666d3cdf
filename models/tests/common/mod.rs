//! The nano checkpoints and what PyTorch computes with them. Other crates' tests include this
//! file by path.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};

use ir::{Axis, MemorySource, Shape, Value};
use models::{Description, Image, Layout, Policy, Text, Tokens, Vision, VisionForm};
use safetensors::{Dtype, SafeTensors};

/// Side of the nano models' pictures.
pub const SIDE: usize = 192;

/// `models/nano/{name}`, from whichever crate's tests.
pub fn nano(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/nano").join(name)
}

/// The description of a nano checkpoint.
pub fn description(layout: Layout, form: VisionForm) -> Description {
    let (vocab, policy, image) = match layout {
        Layout::FastVlm => (512, Policy::Crop, Some(403)),
        Layout::LlavaQwen2 => (448, Policy::Pad { color: [0; 3] }, None),
    };
    Description {
        layout,
        vision: Vision { side: SIDE, dims: [8, 16, 32, 64, 128], depths: [1, 1, 2, 1, 1], form },
        text: Text {
            hidden: 96,
            layers: 2,
            heads: 3,
            kv_heads: 1,
            head_dim: 32,
            ffn: 208,
            vocab,
            rms_eps: 1e-6,
            rope_theta: 1e6,
            max_positions: 512,
            tied: false,
        },
        image: Image { policy, mean: [0.0; 3], std: [1.0; 3], rescale: 1.0 / 255.0 },
        tokens: Tokens { image, eos: vec![402] },
    }
}

/// All tensors of a folder's or of one safetensors file, as f32. Integers are converted.
pub fn tensors(path: &Path) -> MemorySource {
    let mut files = vec![path.to_path_buf()];
    if path.is_dir() {
        let entries = std::fs::read_dir(path).expect("a folder").map(|e| e.expect("an entry").path());
        files = entries.filter(|p| p.extension().is_some_and(|e| e == "safetensors")).collect();
    }
    let mut source = MemorySource::default();
    for file in files {
        let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let parsed = SafeTensors::deserialize(&bytes).expect("safetensors");
        for (name, tensor) in parsed.tensors() {
            let data = floats(tensor.dtype(), tensor.data());
            source.insert(name, tensor.shape().to_vec(), data);
        }
    }
    source
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::BF16 => bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::F16 => bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::I64 => {
            let value = |b: &[u8]| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
            bytes.chunks_exact(8).map(|b| value(b) as f32).collect()
        }
        Dtype::U8 => bytes.iter().map(|&b| f32::from(b)).collect(),
        other => panic!("{other:?} in a reference file"),
    }
}

/// One tensor of a reference file.
pub fn get(source: &MemorySource, name: &str) -> Vec<f32> {
    use ir::TensorSource;
    let rows = source.shape(name).unwrap_or_else(|| panic!("no {name}"))[0];
    source.rows(name, 0..rows).expect("all rows")
}

/// `[1, c, h, w]` of a reference file as a map.
pub fn map(source: &MemorySource, name: &str) -> Value {
    use ir::TensorSource;
    let shape = source.shape(name).unwrap_or_else(|| panic!("no {name}"));
    let (c, h, w) = (shape[1], shape[2], shape[3]);
    let planes = get(source, name);
    let data = (0..h * w * c).map(|i| planes[(i % c) * h * w + i / c]).collect();
    Value::map(h, w, c, data)
}

/// `[1, n, c]` of a reference file as rows.
pub fn rows(source: &MemorySource, name: &str) -> Value {
    use ir::TensorSource;
    let shape = source.shape(name).unwrap_or_else(|| panic!("no {name}"));
    Value { shape: Shape::Rows { n: Axis::Fixed(shape[1]), c: shape[2] }, data: get(source, name) }
}

/// The reference's pixel values as the u8 values that they were made from.
pub fn image(source: &MemorySource) -> Value {
    let mut image = map(source, "pixel_values");
    image.data.iter_mut().for_each(|x| *x = (*x * 255.0).round());
    image
}

/// Largest difference, and that relative to the largest expected value.
pub fn errors(found: &[f32], expected: &[f32]) -> (f32, f32) {
    assert_eq!(found.len(), expected.len(), "elements");
    assert!(found.iter().all(|x| x.is_finite()), "not finite");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let size = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    (worst, worst / size)
}
