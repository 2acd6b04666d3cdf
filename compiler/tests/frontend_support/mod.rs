//! A small valid checkpoint in memory, to be broken in one place and written to a folder.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use models::{Description, Image, Layout, Policy, Text, Tokens, Vision, VisionForm};
use serde_json::{Value, json};
use tempfile::TempDir;
use tvlmc::Error;
use tvlmc::frontend::{Checkpoint, Described, OpenOptions, describe, tokenizer_section};

/// Rows of the embedding: 256 bytes, two merged tokens, the added tokens, and some to spare.
pub const ROWS: usize = 272;
pub const END_OF_TEXT: u32 = 260;
pub const IM_START: u32 = 261;
pub const IM_END: u32 = 262;
pub const IMAGE: u32 = 263;

/// A tensor to be stored.
#[derive(Clone)]
pub struct Tensor {
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// A checkpoint folder in memory.
#[derive(Clone)]
pub struct Folder {
    pub layout: Layout,
    pub tensors: BTreeMap<String, Tensor>,
    pub json: BTreeMap<&'static str, Value>,
    /// Written as they are, after everything else.
    pub raw: BTreeMap<String, Vec<u8>>,
    /// One file, or that many shards and an index.
    pub shards: usize,
}

/// The model in the folder.
pub fn description(layout: Layout) -> Description {
    let apple = layout == Layout::LlavaQwen2;
    Description {
        layout,
        vision: Vision { side: 64, dims: [4, 8, 16, 32, 64], depths: [1, 1, 2, 1, 1], form: VisionForm::Folded },
        text: Text {
            hidden: 8,
            layers: 2,
            heads: 2,
            kv_heads: 1,
            head_dim: 4,
            ffn: 16,
            vocab: ROWS,
            rms_eps: 1e-6,
            rope_theta: 1e6,
            max_positions: 128,
            tied: true,
        },
        image: Image {
            policy: if apple { Policy::Pad { color: [0; 3] } } else { Policy::Crop },
            mean: [0.0; 3],
            std: [1.0; 3],
            rescale: 1.0 / 255.0,
        },
        tokens: Tokens { image: (!apple).then_some(IMAGE), eos: vec![IM_END, END_OF_TEXT] },
    }
}

impl Folder {
    /// Both published layouts, in bf16, folded and tied.
    pub fn new(layout: Layout) -> Folder {
        Folder::of(&description(layout))
    }

    pub fn of(description: &Description) -> Folder {
        let mut tensors = BTreeMap::new();
        for (name, shape) in models::expected_tensors(description).expect("a sound description") {
            let values = shape.iter().product::<usize>();
            // Exact in all three types.
            let bytes = (0..values).flat_map(|i| bf16(value(i)).to_le_bytes()).collect();
            tensors.insert(name, Tensor { dtype: "BF16", shape, bytes });
        }
        let layout = description.layout;
        let json = match layout {
            Layout::FastVlm => BTreeMap::from([
                ("config.json", fast_vlm_config(description)),
                ("generation_config.json", json!({"eos_token_id": [IM_END, END_OF_TEXT]})),
                ("preprocessor_config.json", preprocessor(description.vision.side)),
                ("tokenizer.json", tokenizer()),
            ]),
            Layout::LlavaQwen2 => BTreeMap::from([
                ("config.json", llava_config(description)),
                ("generation_config.json", json!({"do_sample": true, "temperature": null})),
                ("vocab.json", vocab()),
                (
                    "added_tokens.json",
                    json!({"<|endoftext|>": END_OF_TEXT, "<|im_start|>": IM_START, "<|im_end|>": IM_END}),
                ),
            ]),
        };
        let mut folder = Folder { layout, tensors, json, raw: BTreeMap::new(), shards: 1 };
        if layout == Layout::LlavaQwen2 {
            folder.raw.insert("merges.txt".into(), "#version: 0.2\na b\nab c\n".into());
            let counter = "model.vision_tower.vision_tower.model.network.0.0.convffn.conv.bn.num_batches_tracked";
            folder.tensors.insert(counter.into(), Tensor { dtype: "I64", shape: vec![], bytes: vec![1; 8] });
            let clip = Tensor { dtype: "BF16", shape: vec![128, 4], bytes: vec![0; 1024] };
            folder.tensors.insert("model.vision_tower.vision_tower.model.head.proj".into(), clip);
        }
        folder
    }

    /// The checkpoint's name of a tensor.
    pub fn name(&self, canonical: &str) -> String {
        self.layout.tensor_name(canonical)
    }

    pub fn tensor(&mut self, canonical: &str) -> &mut Tensor {
        let name = self.name(canonical);
        self.tensors.get_mut(&name).expect("a known tensor")
    }

    /// Sets one value of a JSON file, by pointer; `Null` at the end of a path that is not there makes it.
    pub fn set(&mut self, file: &'static str, pointer: &str, value: Value) {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let root = self.json.get_mut(file).expect("a known file");
        let parent = root.pointer_mut(parent).expect("a known object");
        match parent {
            Value::Array(list) => list[key.parse::<usize>().expect("an index")] = value,
            _ => parent[key] = value,
        }
    }

    /// Removes one key.
    pub fn unset(&mut self, file: &'static str, pointer: &str) {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent = self.json.get_mut(file).and_then(|root| root.pointer_mut(parent)).expect("a known object");
        parent.as_object_mut().expect("an object").remove(key);
    }

    /// Writes everything into a fresh folder.
    pub fn write(&self) -> TempDir {
        let dir = TempDir::new().expect("a temporary folder");
        self.write_to(dir.path());
        dir
    }

    pub fn write_to(&self, dir: &Path) {
        let put = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).expect("a written file");
        let entries: Vec<(&String, &Tensor)> = self.tensors.iter().collect();
        if self.shards == 1 {
            put("model.safetensors", &safetensors(&entries));
        } else {
            let mut map = serde_json::Map::new();
            for (i, part) in entries.chunks(entries.len().div_ceil(self.shards)).enumerate() {
                let file = format!("model-{:05}-of-{:05}.safetensors", i + 1, self.shards);
                put(&file, &safetensors(part));
                map.extend(part.iter().map(|(name, _)| (name.to_string(), file.clone().into())));
            }
            let index = json!({"metadata": {"total_size": 0}, "weight_map": map});
            put("model.safetensors.index.json", index.to_string().as_bytes());
        }
        for (name, value) in &self.json {
            put(name, value.to_string().as_bytes());
        }
        for (name, bytes) in &self.raw {
            put(name, bytes);
        }
    }

    /// Writes, opens, describes and bakes the tokenizer.
    pub fn read(&self) -> Result<(Described, Vec<u8>), Error> {
        read(self.write().path())
    }

    /// The message of [`Folder::read`], which must fail as bad input and name the folder; it is left out here.
    pub fn refusal(&self) -> String {
        let dir = self.write();
        let (message, folder) = (refusal(read(dir.path())), dir.path().display().to_string());
        assert!(message.contains(&folder), "{message}: where is that?");
        message.replace(&format!("{folder}/"), "")
    }
}

pub fn read(dir: &Path) -> Result<(Described, Vec<u8>), Error> {
    let checkpoint = Checkpoint::open(dir, &OpenOptions::default())?;
    let described = describe(&checkpoint)?;
    let section = tokenizer_section(&checkpoint, &described.description)?;
    Ok((described, section))
}

/// The message of an error, which must be bad input.
pub fn refusal<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => panic!("this should have been refused"),
        Err(e) => {
            assert_eq!(e.exit_code(), 3, "{e}");
            e.to_string()
        }
    }
}

/// What this thread has computed so far.
pub fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the structure, which outlives it.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The value at flat index `i` of every tensor.
pub fn value(i: usize) -> f32 {
    (i % 61) as f32 / 8.0 - 3.0
}

pub fn bf16(value: f32) -> u16 {
    (value.to_bits() >> 16) as u16
}

/// The bytes of a safetensors file with these tensors, one after the other.
pub fn safetensors(tensors: &[(&String, &Tensor)]) -> Vec<u8> {
    let mut header = serde_json::Map::from_iter([("__metadata__".to_string(), json!({"format": "pt"}))]);
    let mut data = Vec::new();
    for (name, tensor) in tensors {
        let begin = data.len();
        data.extend_from_slice(&tensor.bytes);
        let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, data.len()]});
        header.insert(name.to_string(), entry);
    }
    file(Value::Object(header).to_string().as_bytes(), &data)
}

/// A length, a header, and data.
pub fn file(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

fn qwen2(d: &Description) -> Value {
    json!({
        "bos_token_id": END_OF_TEXT, "eos_token_id": IM_END, "hidden_act": "silu", "hidden_size": d.text.hidden,
        "intermediate_size": d.text.ffn, "max_position_embeddings": d.text.max_positions,
        "num_attention_heads": d.text.heads, "num_hidden_layers": d.text.layers,
        "num_key_value_heads": d.text.kv_heads, "rms_norm_eps": 1e-6, "use_sliding_window": false,
        "sliding_window": 128, "tie_word_embeddings": d.text.tied, "vocab_size": d.text.vocab,
    })
}

fn fast_vlm_config(d: &Description) -> Value {
    let mut text = qwen2(d);
    text["model_type"] = json!("qwen2");
    text["layer_types"] = json!(vec!["full_attention"; d.text.layers]);
    text["rope_parameters"] = json!({"rope_theta": 1e6, "rope_type": "default"});
    json!({
        "architectures": ["FastVlmForConditionalGeneration"], "dtype": "bfloat16", "image_token_index": IMAGE,
        "model_type": "fast_vlm", "multimodal_projector_bias": true, "projector_hidden_act": "gelu",
        "text_config": text, "tie_word_embeddings": d.text.tied,
        "vision_config": {
            "architecture": "fastvit_mci3", "hidden_size": 2 * d.vision.dims[4], "model_type": "timm_wrapper",
            "model_args": {
                "inference_mode": d.vision.form == VisionForm::Folded,
                "layers": d.vision.depths, "embed_dims": d.vision.dims,
            },
        },
        "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
    })
}

fn llava_config(d: &Description) -> Value {
    let mut config = qwen2(d);
    let apple = json!({
        "model_type": "llava_qwen2", "image_aspect_ratio": "pad", "mm_hidden_size": 2 * d.vision.dims[4],
        "mm_patch_merge_type": "flat", "mm_projector_type": "mlp2x_gelu", "mm_use_im_patch_token": false,
        "mm_use_im_start_end": false, "mm_vision_select_layer": -2, "rope_theta": 1e6, "torch_dtype": "bfloat16",
        "mm_vision_tower": format!("mobileclip_l_{}", d.vision.side), "use_mm_proj": true,
    });
    for (key, value) in apple.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config
}

fn preprocessor(side: usize) -> Value {
    json!({
        "crop_size": {"height": side, "width": side}, "do_center_crop": true, "do_convert_rgb": true,
        "do_normalize": true, "do_rescale": true, "do_resize": true, "image_mean": [0.0, 0.0, 0.0],
        "image_processor_type": "CLIPImageProcessor", "image_std": [1.0, 1.0, 1.0], "resample": 3,
        "rescale_factor": 1.0 / 255.0, "size": {"shortest_edge": side},
    })
}

/// All single bytes in the order of GPT-2's alphabet, then "ab" and "abc".
pub fn vocab() -> Value {
    let itself = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut chars: Vec<char> = (0..=255).filter(itself).map(char::from).collect();
    chars.extend((0..68).map(|i| char::from_u32(256 + i).expect("a letter")));
    let mut map: serde_json::Map<String, Value> =
        chars.iter().enumerate().map(|(id, c)| (c.to_string(), id.into())).collect();
    map.insert("ab".into(), 256.into());
    map.insert("abc".into(), 257.into());
    Value::Object(map)
}

pub const PATTERN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn tokenizer() -> Value {
    let added = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    json!({
        "version": "1.0",
        "added_tokens": [
            added(END_OF_TEXT, "<|endoftext|>"), added(IM_START, "<|im_start|>"), added(IM_END, "<|im_end|>"),
            added(IMAGE, "<image>"),
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        ]},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab(), "merges": ["a b", "ab c"],
        },
    })
}
