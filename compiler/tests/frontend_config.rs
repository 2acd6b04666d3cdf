//! Configurations that are absurd, contradictory or unsupported are refused by file, key and value.

mod frontend_support;

use frontend_support::*;
use models::Layout::{self, FastVlm, LlavaQwen2};
use proptest::prelude::*;
use serde_json::{Value, json};

const CONFIG: &str = "config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";

/// Sets one value; the message must have all of `expected`.
fn check(layout: Layout, file: &'static str, pointer: &str, value: Value, expected: &[&str]) {
    let mut folder = Folder::new(layout);
    if file == PREPROCESSOR && layout == LlavaQwen2 {
        folder.json.insert(file, Folder::new(FastVlm).json[file].clone());
    }
    folder.set(file, pointer, value.clone());
    let message = folder.refusal();
    for part in expected.iter().chain([&file]) {
        assert!(message.contains(part), "{pointer} = {value}:\n{message}\n  should have: {part}");
    }
}

#[test]
fn unsupported_settings() {
    for (layout, file, pointer, value, expected) in [
        (
            FastVlm,
            CONFIG,
            "/model_type",
            json!("llava"),
            "model_type: \"llava\" is not supported, only \"fast_vlm\", \"llava_qwen2\"",
        ),
        (FastVlm, CONFIG, "/model_type", json!("fast_vllm"), "(did you mean \"fast_vlm\"?)"),
        (FastVlm, CONFIG, "/model_type", json!(null), "model_type: is missing"),
        (FastVlm, CONFIG, "/model_type", json!(3), "model_type: a string is expected, not 3"),
        (FastVlm, CONFIG, "/text_config", json!(null), "text_config: is missing"),
        (FastVlm, CONFIG, "/text_config", json!([1]), "text_config: an object is expected, not a list of 1"),
        (
            FastVlm,
            CONFIG,
            "/text_config/model_type",
            json!("qwen3"),
            "text_config.model_type: \"qwen3\" is not supported, only \"qwen2\"",
        ),
        (
            FastVlm,
            CONFIG,
            "/text_config/hidden_act",
            json!("sillu"),
            "text_config.hidden_act: \"sillu\" is not supported, only \"silu\" (did you mean \"silu\"?)",
        ),
        (
            FastVlm,
            CONFIG,
            "/text_config/use_sliding_window",
            json!(true),
            "text_config.use_sliding_window: true is not supported, only false",
        ),
        (
            FastVlm,
            CONFIG,
            "/text_config/use_sliding_window",
            json!("no"),
            "true or false is expected, not the string \"no\"",
        ),
        (
            FastVlm,
            CONFIG,
            "/text_config/layer_types",
            json!(["full_attention", "sliding_attention"]),
            "text_config.layer_types: only \"full_attention\"",
        ),
        (
            FastVlm,
            CONFIG,
            "/text_config/rope_parameters/rope_type",
            json!("yarn"),
            "text_config.rope_parameters.rope_type: \"yarn\" is not supported, only \"default\"",
        ),
        (
            FastVlm,
            CONFIG,
            "/text_config/rope_scaling",
            json!({"type": "dynamic", "factor": 2.0}),
            "text_config.rope_scaling.type: \"dynamic\" is not supported",
        ),
        (
            FastVlm,
            CONFIG,
            "/text_config/rope_parameters/partial_rotary_factor",
            json!(0.5),
            "partial_rotary_factor: only 1 is supported",
        ),
        (
            FastVlm,
            CONFIG,
            "/projector_hidden_act",
            json!("gelu_pytorch_tanh"),
            "projector_hidden_act: \"gelu_pytorch_tanh\" is not supported, only \"gelu\"",
        ),
        (
            FastVlm,
            CONFIG,
            "/multimodal_projector_bias",
            json!(false),
            "multimodal_projector_bias: false is not supported, only true",
        ),
        (FastVlm, CONFIG, "/vision_feature_layer", json!(-2), "vision_feature_layer: -2 is not supported, only -1"),
        (
            FastVlm,
            CONFIG,
            "/vision_feature_select_strategy",
            json!("default"),
            "\"default\" is not supported, only \"full\"",
        ),
        (FastVlm, CONFIG, "/vision_config", json!(null), "vision_config: is missing"),
        (
            FastVlm,
            CONFIG,
            "/vision_config/architecture",
            json!("fastvit_mci2"),
            "vision_config.architecture: \"fastvit_mci2\" is not supported, only \"fastvit_mci3\" (did you mean \"fastvit_mci3\"?)",
        ),
        (
            FastVlm,
            CONFIG,
            "/vision_config/model_type",
            json!("clip"),
            "vision_config.model_type: \"clip\" is not supported",
        ),
        (
            FastVlm,
            CONFIG,
            "/vision_config/hidden_size",
            json!(3072),
            "vision_config.hidden_size: is 3,072, but the tower's result is as wide as 128",
        ),
        (
            FastVlm,
            CONFIG,
            "/vision_config/model_args/layers",
            json!([1, 1, 2, 1, 2]),
            "vision_config.model_args.layers: the stages have [1, 1, 2, 1, 2] blocks, but the tensors have [1, 1, 2, 1, 1]",
        ),
        (
            FastVlm,
            CONFIG,
            "/vision_config/model_args/layers",
            json!([1, 1, 2, 1]),
            "layers: a list of five integers from 1 to 1024 is expected, found [1,1,2,1]",
        ),
        (
            FastVlm,
            CONFIG,
            "/vision_config/model_args/embed_dims",
            json!([4, 8, 16, 32, 65]),
            "embed_dims: the stages are [4, 8, 16, 32, 65] wide, but the tensors are [4, 8, 16, 32, 64]",
        ),
        (
            FastVlm,
            CONFIG,
            "/vision_config/model_args",
            json!({"inference_mode": true}),
            "model_args: layers is not given, so the stages have [2, 12, 24, 4, 2] blocks",
        ),
        (
            FastVlm,
            CONFIG,
            "/vision_config/model_args/token_mixers",
            json!("x"),
            "model_args.token_mixers: is not supported: the tower may only be overridden by layers",
        ),
        (
            FastVlm,
            CONFIG,
            "/vision_config/model_args/mlp_ratios",
            json!([3, 3, 3, 3, 3]),
            "mlp_ratios: [3,3,3,3,3] is not supported, only 4",
        ),
        (FastVlm, CONFIG, "/vision_config/model_args/in_chans", json!(4), "in_chans: 4 is not supported, only 3"),
        (
            FastVlm,
            CONFIG,
            "/quantization_config",
            json!({"bits": 4}),
            "quantization_config: quantized checkpoints are not supported",
        ),
        (
            FastVlm,
            CONFIG,
            "/image_token_index",
            json!(ROWS),
            "image_token_index: 272 is outside the vocabulary (272 rows)",
        ),
        (
            FastVlm,
            CONFIG,
            "/image_token_index",
            json!(262),
            "image_token_index: is 262, but the tokenizer's <image> is 263",
        ),
        (
            FastVlm,
            CONFIG,
            "/image_token_index",
            json!(-200),
            "image_token_index: a token id or a list of them is expected, found -200",
        ),
        (
            FastVlm,
            CONFIG,
            "/image_token_index",
            json!([263, 262]),
            "image_token_index: one token id is expected, not a list",
        ),
        (
            FastVlm,
            CONFIG,
            "/text_config/eos_token_id",
            json!(272),
            "eos_token_id: 272 is outside the vocabulary (272 rows)",
        ),
        (
            FastVlm,
            CONFIG,
            "/text_config/eos_token_id",
            json!(-1),
            "eos_token_id: a token id or a list of them is expected, found -1",
        ),
        (
            FastVlm,
            "generation_config.json",
            "/eos_token_id",
            json!([1, 4_294_967_296u64]),
            "eos_token_id: a token id or a list of them is expected",
        ),
        (
            LlavaQwen2,
            CONFIG,
            "/image_token_index",
            json!(272),
            "image_token_index: -200 or an id below 272 is expected, found 272",
        ),
        (
            LlavaQwen2,
            CONFIG,
            "/mm_projector_type",
            json!("linear"),
            "mm_projector_type: \"linear\" is not supported, only \"mlp2x_gelu\"",
        ),
        (LlavaQwen2, CONFIG, "/mm_projector_type", json!(null), "mm_projector_type: is missing"),
        (
            LlavaQwen2,
            CONFIG,
            "/mm_patch_merge_type",
            json!("spatial_unpad"),
            "mm_patch_merge_type: \"spatial_unpad\" is not supported, only \"flat\"",
        ),
        (LlavaQwen2, CONFIG, "/mm_use_im_start_end", json!(true), "mm_use_im_start_end: true is not supported"),
        (
            LlavaQwen2,
            CONFIG,
            "/mm_hidden_size",
            json!(1024),
            "mm_hidden_size: is 1,024, but the tower's result is as wide as 128",
        ),
        (
            LlavaQwen2,
            CONFIG,
            "/mm_vision_tower",
            json!("openai/clip-vit-large-patch14-336"),
            "mm_vision_tower: \"openai/clip-vit-large-patch14-336\" is not supported, only \"mobileclip_l_1024\"",
        ),
        (
            LlavaQwen2,
            CONFIG,
            "/mm_vision_tower",
            json!("mobileclip_l"),
            "mm_vision_tower: \"mobileclip_l\" is not supported",
        ),
        (
            LlavaQwen2,
            CONFIG,
            "/mm_vision_tower",
            json!("mobileclip_l_x"),
            "does not end in an input side from 32 to 8192",
        ),
        (
            LlavaQwen2,
            CONFIG,
            "/mm_vision_tower",
            json!("mobileclip_l_99999999999999999999"),
            "does not end in an input side",
        ),
        (
            LlavaQwen2,
            CONFIG,
            "/image_aspect_ratio",
            json!("anyres"),
            "image_aspect_ratio: \"anyres\" is not supported, only \"pad\", \"square\"",
        ),
        (
            LlavaQwen2,
            CONFIG,
            "/use_sliding_window",
            json!(true),
            "use_sliding_window: true is not supported, only false",
        ),
        (LlavaQwen2, CONFIG, "/rope_theta", json!(null), "rope_theta: is missing"),
        (LlavaQwen2, CONFIG, "/hidden_act", json!("gelu"), "hidden_act: \"gelu\" is not supported, only \"silu\""),
        (FastVlm, PREPROCESSOR, "/image_mean", json!([0.5, 0.5, 0.5]), "image_mean: three numbers equal to 0"),
        (
            FastVlm,
            PREPROCESSOR,
            "/image_std",
            json!([1.0, 0.0, 1.0]),
            "image_std: three numbers above 0 are expected, found [1.0,0.0,1.0]",
        ),
        (FastVlm, PREPROCESSOR, "/image_std", json!([1.0]), "image_std: three numbers"),
        (
            FastVlm,
            PREPROCESSOR,
            "/rescale_factor",
            json!(0),
            "rescale_factor: a number above 0 and up to 1 is expected, not 0",
        ),
        (FastVlm, PREPROCESSOR, "/do_resize", json!(false), "do_resize: false is not supported, only true"),
        (FastVlm, PREPROCESSOR, "/do_rescale", json!(false), "do_rescale: false is not supported"),
        (FastVlm, PREPROCESSOR, "/resample", json!(2), "resample: 2 is not supported, only 3 (bicubic)"),
        (
            FastVlm,
            PREPROCESSOR,
            "/image_processor_type",
            json!("SiglipImageProcessor"),
            "\"SiglipImageProcessor\" is not supported",
        ),
        (
            FastVlm,
            PREPROCESSOR,
            "/size",
            json!({"height": 64, "width": 64}),
            "size: {\"shortest_edge\": n} with n from 32 to 8192 is expected, found {\"height\":64,\"width\":64}",
        ),
        (FastVlm, PREPROCESSOR, "/size", json!({"shortest_edge": 0}), "size: {\"shortest_edge\": n} with n from 32"),
        (FastVlm, PREPROCESSOR, "/crop_size", json!({"height": 64, "width": 65}), "crop_size: a square"),
        (FastVlm, PREPROCESSOR, "/crop_size", json!(128), "crop_size: is 128, but the image is resized to 64"),
        (LlavaQwen2, PREPROCESSOR, "/resample", json!("cubic"), "resample: the string \"cubic\" is not supported"),
    ] {
        check(layout, file, pointer, value, &[expected]);
    }
    let mut folder = Folder::new(FastVlm);
    folder.json.insert("processor_config.json", json!({"patch_size": 14, "num_additional_image_tokens": 1}));
    let message = folder.refusal();
    assert!(message.contains("processor_config.json: patch_size: only 64 is supported"), "{message}");
    assert!(message.contains("num_additional_image_tokens: 1 is not supported, only 0"), "{message}");
}

/// Each size key against values that are no size; all name the key.
#[test]
fn absurd_numbers() {
    let edges = [
        json!(0),
        json!(-1),
        json!(1.5),
        json!(i64::MIN),
        json!(1u64 << 31),
        json!(1u64 << 32),
        json!(u64::MAX),
        json!(1e308),
        json!(-1e308),
        json!(1e-308),
        json!("8"),
        json!(""),
        json!(true),
        json!([]),
        json!([8]),
        json!({}),
    ];
    let sizes = [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
        "max_position_embeddings",
    ];
    for (layout, prefix) in [(FastVlm, "/text_config"), (LlavaQwen2, "")] {
        let path = prefix.trim_start_matches('/');
        for key in sizes {
            let shown = if path.is_empty() { format!("{key}: ") } else { format!("{path}.{key}: ") };
            for edge in &edges {
                check(layout, CONFIG, &format!("{prefix}/{key}"), edge.clone(), &[&shown]);
            }
            let mut folder = Folder::new(layout);
            folder.unset(CONFIG, &format!("{prefix}/{key}"));
            assert!(folder.refusal().contains(&format!("{shown}is missing")));
        }
        for key in ["rms_norm_eps", "rope_theta"] {
            let place = if key == "rope_theta" && layout == FastVlm { "/text_config/rope_parameters" } else { prefix };
            for edge in edges.iter().filter(|edge| !matches!(edge.as_f64(), Some(n) if n > 0.0 && n < 1e12)) {
                check(layout, CONFIG, &format!("{place}/{key}"), edge.clone(), &[&format!("{key}: a number above 0")]);
            }
        }
    }
    for (key, text) in [
        ("1e999", "number out of range"),
        ("-1e999", "number out of range"),
        ("NaN", "expected value"),
        ("01", "invalid number"),
    ] {
        let mut folder = Folder::new(LlavaQwen2);
        let config = folder.json[CONFIG].to_string().replace("\"vocab_size\":272", &format!("\"vocab_size\":{key}"));
        folder.raw.insert(CONFIG.into(), config.into());
        assert!(folder.refusal().contains(text), "{}", folder.refusal());
    }
}

/// Sizes that are sane alone but do not fit the others or the tensors.
#[test]
fn contradictions() {
    for (key, value, expected) in [
        ("vocab_size", json!(271), "vocab_size: is 271, but the embedding's rows are 272"),
        ("hidden_size", json!(16), "hidden_size: is 16, but the embedding's columns are 8"),
        ("num_hidden_layers", json!(3), "num_hidden_layers: is 3, but the layers in the weight files are 2"),
        (
            "num_hidden_layers",
            json!(1_000_000_000),
            "num_hidden_layers: an integer from 1 to 1024 is expected, not 1000000000",
        ),
        ("intermediate_size", json!(17), "intermediate_size: is 17, but the MLP's rows are 16"),
        ("num_attention_heads", json!(3), "num_attention_heads: 3 heads do not divide hidden_size 8"),
        ("num_attention_heads", json!(8), "num_attention_heads: a head is 1 wide, rotary positions need an even width"),
        ("num_attention_heads", json!(4), "num_key_value_heads: is 2, but (times the head's width) the key rows are 4"),
        ("num_key_value_heads", json!(4), "num_key_value_heads: 4 key heads do not divide 2 query heads"),
        ("head_dim", json!(8), "num_attention_heads: is 16, but (times the head's width) the query rows are 8"),
    ] {
        check(LlavaQwen2, CONFIG, &format!("/{key}"), value, &[expected]);
    }
}

/// One line for each wrong key, in one run.
#[test]
fn all_findings_at_once() {
    let mut folder = Folder::new(LlavaQwen2);
    for key in ["hidden_act", "mm_projector_type", "mm_patch_merge_type"] {
        folder.set(CONFIG, &format!("/{key}"), json!("what"));
    }
    folder.set(CONFIG, "/hidden_size", json!(0));
    folder.unset(CONFIG, "/rms_norm_eps");
    folder.set(CONFIG, "/rms_norm_esp", json!(1e-6));
    folder.raw.insert("vocab.json".into(), b"{\xff".to_vec());
    let message = folder.refusal();
    assert!(message.starts_with("5 problems:"), "{message}");
    assert!(message.contains("rms_norm_eps: is missing (did you mean \"rms_norm_esp\"?)"), "{message}");
    // The tokenizer is read as soon as the embedding's rows are known.
    folder.set(CONFIG, "/hidden_size", json!(8));
    folder.set(CONFIG, "/rms_norm_eps", json!(1e-6));
    let message = folder.refusal();
    assert!(message.contains("vocab.json: is not UTF-8: byte 1 (line 1)"), "{message}");
}

#[test]
fn files_that_are_not_json() {
    for (bytes, expected) in [
        (&b""[..], "is not the JSON it should be: EOF"),
        (b"[]", "an object is expected, not a list of 0"),
        (b"{\"a\": 1, \"a\": 2}", "key \"a\" stands twice in one object at line 1"),
        (b"{\"a\": {\"b\": 1, \"b\": 1}}", "key \"b\" stands twice"),
        (b"{} x", "trailing characters"),
        (b"{\"a\": \"\xff\"}", "is not UTF-8: byte 7 (line 1)"),
        (b"\xef\xbb\xbf{}", "expected value"),
        (b"{\"a\": \"\\ud800\"}", "is not the JSON it should be"),
    ] {
        for file in [CONFIG, "generation_config.json", PREPROCESSOR, "tokenizer.json"] {
            let mut folder = Folder::new(FastVlm);
            folder.raw.insert(file.into(), bytes.to_vec());
            let message = folder.refusal();
            assert!(message.contains(&format!("{file}: ")) && message.contains(expected), "{message}");
        }
    }
    let mut folder = Folder::new(FastVlm);
    folder.raw.insert(CONFIG.into(), vec![b' '; (4 << 20) + 1]);
    assert!(folder.refusal().contains("config.json: has 4,194,305 bytes, the limit is 4,194,304"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// One byte of a text file changed: described or refused, without a panic.
    #[test]
    fn one_changed_byte_is_survived(
        apple in any::<bool>(), which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut folder = Folder::new(if apple { LlavaQwen2 } else { FastVlm });
        let mut texts: Vec<(String, Vec<u8>)> =
            folder.json.iter().map(|(name, value)| (name.to_string(), value.to_string().into_bytes())).collect();
        texts.extend(folder.raw.clone());
        let (name, mut bytes) = texts.swap_remove(which.index(texts.len()));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        folder.raw.insert(name, bytes);
        if let Err(e) = folder.read() {
            prop_assert_eq!(e.exit_code(), 3, "{}", e);
        }
    }
}
