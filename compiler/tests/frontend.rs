//! Sound checkpoints of every kind are read as what they are.

mod frontend_support;

use std::path::Path;

use frontend_support::*;
use models::{Layout, VisionForm};
use serde_json::json;
use tvlmc::frontend::{Checkpoint, Dtype, OpenOptions, describe, tokenizer_section};

const LAYOUTS: [Layout; 2] = [Layout::FastVlm, Layout::LlavaQwen2];

#[test]
fn both_layouts_describe_the_same_model() {
    for layout in LAYOUTS {
        let (described, section) = Folder::new(layout).read().expect("a sound checkpoint");
        assert_eq!(described.description, description(layout));
        assert_eq!(&section[..4], b"TOK1");
    }
    let (described, _) = Folder::new(Layout::LlavaQwen2).read().expect("a sound checkpoint");
    assert_eq!(
        described.ignored,
        [
            "model.vision_tower.vision_tower.model.head.proj",
            "model.vision_tower.vision_tower.model.network.0.0.convffn.conv.bn.num_batches_tracked"
        ]
    );
    assert_eq!(
        described.notes,
        [
            "no preprocessor_config.json: FastVLM's own is used (64 pixels, 1/255, no mean)",
            "the vocabulary has no <image>: prompts are split at images, as LLaVA does"
        ]
    );
}

#[test]
fn shards_and_single_files_are_found() {
    for layout in LAYOUTS {
        let mut folder = Folder::new(layout);
        folder.shards = 3;
        let dir = folder.write();
        let shard = dir.path().join("model-00002-of-00003.safetensors");
        for path in [dir.path(), &shard] {
            let checkpoint = Checkpoint::open(path, &OpenOptions::default()).expect("a sharded checkpoint");
            assert_eq!(checkpoint.files().count(), 3);
            assert_eq!(describe(&checkpoint).expect("a sound checkpoint").description, description(layout));
        }
    }
    let dir = Folder::new(Layout::FastVlm).write();
    let single = dir.path().join("model.safetensors");
    assert_eq!(read(&single).expect("a file").0.description, description(Layout::FastVlm));
    let renamed = dir.path().join("other.safetensors");
    std::fs::rename(single, &renamed).expect("renamed");
    assert!(read(dir.path()).is_ok());
    assert!(read(&renamed).is_ok());
    std::fs::copy(&renamed, dir.path().join("third.safetensors")).expect("copied");
    assert!(refusal(read(dir.path())).contains("several .safetensors files"));
}

#[test]
fn train_form_odd_sizes_and_an_own_head_are_described() {
    let mut wanted = description(Layout::FastVlm);
    wanted.vision.form = VisionForm::Train;
    wanted.vision.depths = [2, 1, 3, 1, 2];
    wanted.vision.side = 96;
    wanted.text.tied = false;
    wanted.text.heads = 6;
    wanted.text.hidden = 36;
    wanted.text.head_dim = 6;
    wanted.text.kv_heads = 3;
    wanted.text.ffn = 23;
    let mut folder = Folder::of(&wanted);
    folder.tensor("lm_head.weight").bytes[7] ^= 1;
    assert_eq!(folder.read().expect("a sound checkpoint").0.description, wanted);
}

#[test]
fn older_and_newer_keys_mean_the_same() {
    let mut folder = Folder::new(Layout::FastVlm);
    folder.unset("config.json", "/text_config/rope_parameters");
    folder.set("config.json", "/text_config/rope_theta", json!(1_000_000));
    folder.set("config.json", "/text_config/rope_scaling", json!(null));
    folder.unset("config.json", "/tie_word_embeddings");
    folder.set("tokenizer.json", "/model/merges", json!([["a", "b"], ["ab", "c"]]));
    let preprocessor = folder.json.remove("preprocessor_config.json").expect("the settings");
    let nested = json!({"image_processor": preprocessor, "patch_size": 64, "num_additional_image_tokens": 0});
    folder.json.insert("processor_config.json", nested);
    let (described, section) = folder.read().expect("a sound checkpoint");
    assert_eq!(described.description, description(Layout::FastVlm));
    assert!(described.notes.is_empty(), "{:?}", described.notes);
    assert_eq!(section, Folder::new(Layout::FastVlm).read().expect("a sound checkpoint").1);
}

#[test]
fn the_stored_bits_decide_whether_the_head_is_tied() {
    for layout in LAYOUTS {
        for flag in [false, true] {
            for (changed, tied) in [(false, true), (true, false)] {
                let mut folder = Folder::new(layout);
                let mut head = folder.tensor("model.language_model.embed_tokens.weight").clone();
                if changed {
                    *head.bytes.last_mut().expect("values") ^= 1;
                }
                folder.tensors.insert("lm_head.weight".into(), head);
                folder.set("config.json", "/tie_word_embeddings", json!(flag));
                let (described, _) = folder.read().expect("a sound checkpoint");
                assert_eq!(described.description.text.tied, tied);
                assert_eq!(described.ignored.contains(&"lm_head.weight".to_string()), tied);
                // A note wherever the flag is wrong, or a copy is dropped.
                assert_eq!(described.notes.iter().any(|note| note.contains("lm_head.weight")), tied || flag);
            }
        }
        let mut folder = Folder::new(layout);
        folder.set("config.json", "/tie_word_embeddings", json!(false));
        let (described, _) = folder.read().expect("a sound checkpoint");
        assert!(described.description.text.tied);
        assert!(described.notes.iter().any(|note| note.contains("there is no lm_head.weight")));
    }
    // The same values in another type are the same matrix.
    let mut folder = Folder::new(Layout::FastVlm);
    let head = as_f32(folder.tensor("model.language_model.embed_tokens.weight"));
    folder.tensors.insert("lm_head.weight".into(), head);
    assert!(folder.read().expect("a sound checkpoint").0.description.text.tied);
}

#[test]
fn image_ids_come_from_the_configuration_or_the_tokenizer() {
    let image = |folder: &Folder| folder.read().expect("a sound checkpoint").0.description.tokens.image;
    let mut folder = Folder::new(Layout::LlavaQwen2);
    folder.set("config.json", "/image_token_index", json!(-200));
    assert_eq!(image(&folder), None);
    folder.set("config.json", "/image_token_index", json!(IMAGE));
    assert_eq!(image(&folder), Some(IMAGE));
    folder.unset("config.json", "/image_token_index");
    folder.set("added_tokens.json", "/<image>", json!(IMAGE));
    assert_eq!(image(&folder), Some(IMAGE));
    let mut folder = Folder::new(Layout::FastVlm);
    folder.unset("config.json", "/image_token_index");
    assert_eq!(image(&folder), Some(IMAGE));
}

#[test]
fn ending_ids_are_collected() {
    let eos = |folder: &Folder| folder.read().expect("a sound checkpoint").0.description.tokens.eos;
    let mut folder = Folder::new(Layout::FastVlm);
    folder.set("config.json", "/text_config/eos_token_id", json!([5, 6]));
    folder.set("generation_config.json", "/eos_token_id", json!(7));
    assert_eq!(eos(&folder), [5, 6, 7, IM_END, END_OF_TEXT]);
    folder.json.remove("generation_config.json");
    folder.unset("config.json", "/text_config/eos_token_id");
    assert_eq!(eos(&folder), [IM_END, END_OF_TEXT]);
}

#[test]
fn values_are_converted_from_every_type() {
    let mut folder = Folder::new(Layout::FastVlm);
    let name = "model.language_model.embed_tokens.weight";
    let original = folder.tensor(name).clone();
    for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32] {
        *folder.tensor(name) = match dtype {
            Dtype::F16 => as_f16(&original),
            Dtype::F32 => as_f32(&original),
            _ => original.clone(),
        };
        let dir = folder.write();
        let checkpoint = Checkpoint::open(dir.path(), &OpenOptions::default()).expect("a sound checkpoint");
        assert_eq!(checkpoint.tensor(name).expect("the embedding").dtype, dtype);
        let all = checkpoint.rows(name, 0..ROWS).expect("values");
        assert!(all.iter().enumerate().all(|(i, v)| *v == value(i)));
        assert_eq!(checkpoint.rows(name, 3..5).expect("two rows"), all[24..40]);
        assert!(checkpoint.rows(name, 4..4).expect("no rows").is_empty());
        assert!(refusal(checkpoint.rows(name, 3..ROWS + 1)).contains("rows 3..273 are wanted of 272"));
        assert!(refusal(checkpoint.rows("embed_token", 0..1)).contains("is missing"));
        let bias = "model.language_model.layers.0.self_attn.q_proj.bias";
        assert_eq!(checkpoint.rows(bias, 2..4).expect("two values"), [value(2), value(3)]);
    }
}

#[test]
fn the_digest_depends_on_content_only() {
    let digest = |folder: &Folder| {
        let dir = folder.write();
        let checkpoint = Checkpoint::open(dir.path(), &OpenOptions::default()).expect("a sound checkpoint");
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
        let digest = checkpoint.digest().expect("a digest");
        assert_eq!(one.install(|| checkpoint.digest()).expect("a digest"), digest);
        checkpoint.check_unchanged().expect("untouched");
        digest
    };
    let folder = Folder::new(Layout::FastVlm);
    let first = digest(&folder);
    assert_eq!(digest(&folder), first);
    let mut other = folder.clone();
    *other.tensor("model.language_model.norm.weight").bytes.last_mut().expect("values") ^= 1;
    assert_ne!(digest(&other), first);
    let mut other = folder.clone();
    other.set("generation_config.json", "/eos_token_id", json!(3));
    assert_ne!(digest(&other), first);
    let mut other = folder;
    other.raw.insert("README.md".into(), b"not read".to_vec());
    assert_eq!(digest(&other), first);
}

/// The oracle's checkpoints and the demo model, where this machine has them.
#[test]
fn reference_checkpoints_are_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (place, layout, tokens) in [
        ("../shared/oracle/nano-hf", Layout::FastVlm, 9),
        ("../shared/oracle/nano-llava", Layout::LlavaQwen2, 9),
        ("../shared/demo/model", Layout::FastVlm, 16),
        ("models/demo", Layout::FastVlm, 16),
    ] {
        let path = root.join(place);
        if !path.join("config.json").exists() {
            println!("skipped: there is no {place}");
            continue;
        }
        let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).expect("a checkpoint");
        let described = describe(&checkpoint).expect("a sound checkpoint");
        assert_eq!(described.description.layout, layout);
        assert_eq!(described.description.vision.tokens(), tokens);
        let section = tokenizer_section(&checkpoint, &described.description).expect("a tokenizer");
        runtime_min::tokenizer::Tokenizer::from_section(&section).expect("tables that the runtime reads");
        for (name, info) in checkpoint.tensors().filter(|(_, info)| info.dtype != Dtype::I64) {
            let rows = info.shape.first().copied().unwrap_or(1);
            assert_eq!(checkpoint.rows(name, 0..rows).expect("values").len() as u64, info.values());
        }
    }
}

fn as_f32(tensor: &Tensor) -> Tensor {
    let values = tensor.bytes.chunks(2).flat_map(|b| [0, 0, b[0], b[1]]);
    Tensor { dtype: "F32", shape: tensor.shape.clone(), bytes: values.collect() }
}

fn as_f16(tensor: &Tensor) -> Tensor {
    let value = |b: &[u8]| f32::from_le_bytes([0, 0, b[0], b[1]]);
    let bytes = tensor.bytes.chunks(2).flat_map(|b| half::f16::from_f32(value(b)).to_le_bytes());
    Tensor { dtype: "F16", shape: tensor.shape.clone(), bytes: bytes.collect() }
}
