//! The baked tokenizer tables, and the files that are refused.

mod frontend_support;

use frontend_support::*;
use models::Layout::{FastVlm, LlavaQwen2};
use serde_json::{Value, json};

const TOKENIZER: &str = "tokenizer.json";

/// The section's tables, read as its format says.
struct Section {
    n_merges: usize,
    slots: Vec<[u32; 4]>,
    byte_ids: Vec<u32>,
    specials: Vec<u32>,
    roles: Vec<u32>,
    eos: Vec<u32>,
    texts: Vec<Vec<u8>>,
    /// Ids and texts of the added tokens.
    added: Vec<(u32, Vec<u8>)>,
}

fn parse(bytes: &[u8]) -> Section {
    assert_eq!(&bytes[..4], b"TOK1");
    let mut at = 4;
    let mut take = |n: usize| -> Vec<u32> {
        let words = bytes[at..at + 4 * n].chunks(4).map(|w| u32::from_le_bytes(w.try_into().expect("four bytes")));
        at += 4 * n;
        words.collect()
    };
    let header = take(5);
    let [n_vocab, n_merges, n_special, bytes_len, hash_slots] = header[..] else { panic!("five numbers") };
    let offsets = take(n_vocab as usize + 1);
    let slots = take(4 * hash_slots as usize).chunks(4).map(|slot| slot.try_into().expect("four")).collect();
    let (byte_ids, specials, roles) = (take(256), take(n_special as usize), take(4));
    let n_eos = take(1)[0];
    let eos = take(n_eos as usize);
    let n_added = take(1)[0];
    let added = take(3 * n_added as usize);
    let texts = &bytes[at..];
    assert_eq!(texts.len(), bytes_len as usize);
    let added = added.chunks(3).map(|a| (a[0], texts[a[1] as usize..a[2] as usize].to_vec())).collect();
    let texts = offsets.windows(2).map(|w| texts[w[0] as usize..w[1] as usize].to_vec()).collect();
    Section { n_merges: n_merges as usize, slots, byte_ids, specials, roles, eos, texts, added }
}

#[test]
fn both_sets_of_files_give_the_same_tables() {
    for (layout, image) in [(FastVlm, IMAGE), (LlavaQwen2, u32::MAX)] {
        let section = parse(&Folder::new(layout).read().expect("a sound checkpoint").1);
        assert_eq!(section.texts.len(), ROWS);
        for byte in 0..=255u8 {
            assert_eq!(section.texts[section.byte_ids[byte as usize] as usize], [byte]);
        }
        assert_eq!(section.texts[256..260], [&b"ab"[..], b"abc", b"", b""]);
        assert_eq!(section.texts[END_OF_TEXT as usize..][..3], [&b"<|endoftext|>"[..], b"<|im_start|>", b"<|im_end|>"]);
        assert_eq!(section.roles, [END_OF_TEXT, IM_START, IM_END, image]);
        assert_eq!(section.specials.len(), if layout == FastVlm { 4 } else { 3 });
        assert_eq!(section.eos, [IM_END, END_OF_TEXT]);
        let (a, b, c) =
            (section.byte_ids[b'a' as usize], section.byte_ids[b'b' as usize], section.byte_ids[b'c' as usize]);
        assert_eq!((section.n_merges, section.slots.len()), (2, 4));
        let mut used: Vec<_> = section.slots.iter().filter(|slot| slot[0] != u32::MAX).collect();
        used.sort_by_key(|slot| slot[2]);
        assert_eq!(used, [&[a, b, 0, 256], &[256, c, 1, 257]]);
        for &&[left, right, rank, _] in &used {
            // As the runtime looks it up.
            let mask = section.slots.len() as u32 - 1;
            let mut slot = (left.wrapping_mul(0x9e37_79b1) ^ right.wrapping_mul(0x85eb_ca6b)) & mask;
            while section.slots[slot as usize][..2] != [left, right] {
                assert_ne!(section.slots[slot as usize][0], u32::MAX);
                slot = (slot + 1) & mask;
            }
            assert_eq!(section.slots[slot as usize][2], rank);
        }
    }
}

/// The runtime accepts what we bake.
#[test]
fn the_runtime_reads_the_tables() {
    for layout in [FastVlm, LlavaQwen2] {
        let section = Folder::new(layout).read().expect("a sound checkpoint").1;
        let tokenizer = runtime_min::tokenizer::Tokenizer::from_section(&section).expect("a sound section");
        let mut ids = Vec::new();
        tokenizer.encode("xabcab", &mut ids).expect("room");
        assert_eq!(ids, [u32::from(b'x' - b'!'), 257, 256]);
        assert_eq!(tokenizer.eos(), [IM_END, END_OF_TEXT]);
    }
}

#[test]
fn added_tokens_may_stand_in_either_file() {
    let flags = |content: &str| json!({"content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": true});
    let decoder = json!({
        "tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": false,
        "added_tokens_decoder": {"260": flags("<|endoftext|>"), "261": flags("<|im_start|>"), "262": flags("<|im_end|>")},
    });
    let expected = Folder::new(LlavaQwen2).read().expect("a sound checkpoint").1;
    let mut folder = Folder::new(LlavaQwen2);
    folder.json.insert("tokenizer_config.json", decoder);
    assert_eq!(folder.read().expect("both files agree").1, expected);
    folder.json.remove("added_tokens.json");
    assert_eq!(folder.read().expect("one file is enough").1, expected);
    folder.json.insert("added_tokens.json", json!({"<|im_end|>": 263}));
    assert!(folder.refusal().contains("tokenizer_config.json: token \"<|im_end|>\": has the ids 263 and 262"));
    // A vocabulary that holds the added tokens as well, with Windows line ends in the merges.
    let mut folder = Folder::new(LlavaQwen2);
    folder.set("vocab.json", "/<|im_end|>", json!(IM_END));
    folder.raw.insert("merges.txt".into(), "#version: 0.2\r\na b\r\n\r\nab c\r\n".into());
    assert_eq!(folder.read().expect("a sound checkpoint").1, expected);
    for name in ["vocab.json", "merges.txt"] {
        let mut folder = Folder::new(LlavaQwen2);
        folder.json.remove(name);
        folder.raw.remove(name);
        assert!(folder.refusal().contains("has no tokenizer.json, nor vocab.json and merges.txt"));
    }
}

/// Added tokens that are no marks, such as `<tool_call>` of Qwen2.5, are text: answers show them, and put them together by
/// the rule of other tokens.
#[test]
fn added_tokens_that_are_no_marks_are_text() {
    let tokens = [
        ("<tool_call>", false, "<tool_call>"),
        ("<|mark|>", true, ""),
        ("日本", false, "日本"),
        ("Ġx", false, " x"),
        ("éé", false, "\u{fffd}\u{fffd}"),
        ("Ġ日", false, "Ġ日"),
    ];
    let mut folder = Folder::new(FastVlm);
    // The `tokenizers` package counts ids without gaps.
    folder.set(TOKENIZER, "/model/vocab/bc", json!(258));
    folder.set(TOKENIZER, "/model/vocab/ca", json!(259));
    let flags = |text: &str, special: bool| {
        json!({"content": text, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": special})
    };
    for (i, (text, special, _)) in tokens.iter().enumerate() {
        let mut token = flags(text, *special);
        token["id"] = json!(264 + i);
        folder.json.get_mut(TOKENIZER).expect("a tokenizer")["added_tokens"]
            .as_array_mut()
            .expect("a list")
            .push(token);
    }
    let dir = folder.write();
    let baked = read(dir.path()).expect("a sound checkpoint").1;
    assert_eq!(parse(&baked).specials, [260, 261, 262, 263, 265]);
    let tokenizer = runtime_min::tokenizer::Tokenizer::from_section(&baked).expect("a sound section");
    let decode = |ids: &[u32]| {
        let mut stream = runtime_min::tokenizer::DecodeStream::new(&tokenizer).expect("room");
        let mut text: String = ids.iter().map(|id| stream.push(*id).to_owned()).collect();
        text.push_str(stream.finish());
        text
    };
    let mut lists: Vec<Vec<u32>> = (0..tokens.len()).map(|i| vec![264 + i as u32]).collect();
    for (ids, (_, _, expected)) in lists.iter().zip(tokens) {
        assert_eq!(decode(ids), expected);
    }
    // Half a character before and after, and all at once.
    let half = |byte: u32| byte - 0xa1 + 94;
    lists.extend([vec![half(0xc3), 264, half(0xa9)], vec![half(0xc3), 268, 0], (255..270).collect()]);
    let script = "[t.decode(ids, skip_special_tokens=True) for ids in given]";
    match reference::<String>(&dir.path().join(TOKENIZER), script, &json!(lists)) {
        Some(expected) => assert_eq!(lists.iter().map(|ids| decode(ids)).collect::<Vec<_>>(), expected),
        None => println!("skipped: the `tokenizers` package, which is not installed"),
    }

    // The older files have the flags in one place only.
    let mut folder = Folder::new(LlavaQwen2);
    folder.json.insert(
        "added_tokens.json",
        json!({"<|endoftext|>": END_OF_TEXT, "<|im_start|>": IM_START, "<|im_end|>": IM_END, "<tool_call>": 263}),
    );
    let specials = |folder: &Folder| parse(&folder.read().expect("a sound checkpoint").1).specials;
    assert_eq!(specials(&folder), [260, 261, 262, 263]);
    let decoder = json!({"263": flags("<tool_call>", false), "264": flags("<|mark|>", true)});
    folder.json.insert("tokenizer_config.json", json!({"added_tokens_decoder": decoder}));
    assert_eq!(specials(&folder), [260, 261, 262, 264]);
}

/// In text, too: the leftmost and longest of them is one id, before the text is normalized and split. Marks are spelled out.
#[test]
fn added_tokens_are_found_in_text() {
    let mut folder = Folder::new(FastVlm);
    folder.set(TOKENIZER, "/model/vocab/bc", json!(258));
    folder.set(TOKENIZER, "/model/vocab/ca", json!(259));
    let added = ["<tool_call>", "<tool", "</tool_call>", "éé", "xy", "<|"];
    for (i, text) in added.iter().enumerate() {
        let list = folder.json.get_mut(TOKENIZER).expect("a tokenizer")["added_tokens"].as_array_mut().expect("a list");
        list.push(json!({"id": 264 + i, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                         "normalized": false, "special": false}));
    }
    let dir = folder.write();
    let baked = read(dir.path()).expect("a sound checkpoint").1;
    let mut listed = parse(&baked).added;
    assert!(listed.is_sorted_by_key(|(_, text)| text.clone()) && listed.len() == 10);
    listed.retain(|(id, _)| *id >= 264);
    listed.sort();
    assert_eq!(listed, (264..).zip(added.map(|text| text.as_bytes().to_vec())).collect::<Vec<_>>());
    let tokenizer = runtime_min::tokenizer::Tokenizer::from_section(&baked).expect("a sound section");
    let encode = |text: &str| {
        let mut ids = Vec::new();
        tokenizer.encode(text, &mut ids).expect("room");
        ids
    };
    assert_eq!(encode("<tool_call></tool_call>"), [264, 266]);
    assert_eq!(encode("<tool<tool_callxy<|"), [vec![265, 265], encode("_call"), vec![268, 269]].concat());
    let texts = [
        "<tool_call>{\"a\": 1}</tool_call>",
        "a <tool_call>  <tool_cal <tool_call",
        "e\u{301}e\u{301} éé é\u{e9}\u{301} xééé",
        "xyzxy zxy xyab 'xy's",
        "<|im_start|>ab<|im_end|>\n<|im_start|<tool><image><|im_end|",
        "<<<tool_call>><\u{338}tool",
        "",
    ];
    match reference::<Vec<u32>>(&dir.path().join(TOKENIZER), "[t.encode(text).ids for text in given]", &json!(texts)) {
        Some(expected) => assert_eq!(texts.map(encode), expected[..]),
        None => println!("skipped: the `tokenizers` package, which is not installed"),
    }
    folder.set(TOKENIZER, "/added_tokens/0/content", json!("x".repeat(1025)));
    assert!(folder.refusal().contains("has 1,025 bytes, the limit is 1024"));
}

/// What the `tokenizers` package makes of something, if it is installed; special tokens are text to it.
fn reference<T: serde::de::DeserializeOwned>(
    tokenizer: &std::path::Path,
    script: &str,
    given: &Value,
) -> Option<Vec<T>> {
    let cache = match std::env::var_os("TVLMC_CACHE") {
        Some(cache) => std::path::PathBuf::from(cache),
        None => std::path::Path::new(&std::env::var_os("HOME")?).join(".cache/tvlmc"),
    };
    let script = format!(
        "import json, sys, tokenizers
t = tokenizers.Tokenizer.from_file(sys.argv[1])
t.encode_special_tokens = True
given = json.loads(sys.argv[2])
print(json.dumps({script}))"
    );
    let done = std::process::Command::new(cache.join("oracle-venv/bin/python"))
        .args(["-c", &script])
        .arg(tokenizer)
        .arg(given.to_string())
        .output()
        .ok()?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).ok()
}

#[test]
fn rules_that_are_not_qwen2s() {
    for (pointer, value, expected) in [
        ("/model/type", json!("Unigram"), "model.type: \"Unigram\" is not supported, only \"BPE\""),
        ("/model/type", json!(null), "model.type: is missing, \"BPE\" is expected"),
        ("/model", json!(null), "model: is missing"),
        ("/model/unk_token", json!("<unk>"), "model.unk_token: the string \"<unk>\" is not supported, only null"),
        (
            "/model/continuing_subword_prefix",
            json!("##"),
            "continuing_subword_prefix: the string \"##\" is not supported",
        ),
        ("/model/byte_fallback", json!(true), "model.byte_fallback: true is not supported, only false"),
        ("/model/ignore_merges", json!(true), "model.ignore_merges: true is not supported"),
        ("/model/dropout", json!(0.1), "model.dropout: is not supported"),
        ("/normalizer", json!(null), "normalizer: is missing, \"NFC\" is expected"),
        ("/normalizer/type", json!("NFKC"), "normalizer.type: \"NFKC\" is not supported, only \"NFC\""),
        ("/pre_tokenizer", json!(null), "pre_tokenizer: is missing"),
        (
            "/pre_tokenizer/type",
            json!("Whitespace"),
            "pre_tokenizer.type: \"Whitespace\" is not supported, only \"Sequence\"",
        ),
        (
            "/pre_tokenizer/pretokenizers/0/pattern/Regex",
            json!(r"(a+)+$"),
            "pretokenizers.0.pattern: is not Qwen2's, which is (?i:",
        ),
        ("/pre_tokenizer/pretokenizers/0/pattern", json!({"String": " "}), "pretokenizers.0.pattern: is not Qwen2's"),
        (
            "/pre_tokenizer/pretokenizers/0/behavior",
            json!("Removed"),
            "\"Removed\" is not supported, only \"Isolated\"",
        ),
        ("/pre_tokenizer/pretokenizers/1/use_regex", json!(true), "use_regex: has to be false"),
        ("/pre_tokenizer/pretokenizers/1/add_prefix_space", json!(true), "add_prefix_space: true is not supported"),
        ("/pre_tokenizer/pretokenizers", json!([]), "\"Split\" by Qwen2's pattern, then \"ByteLevel\" is expected"),
        ("/decoder/type", json!("Metaspace"), "decoder.type: \"Metaspace\" is not supported, only \"ByteLevel\""),
        (
            "/post_processor/type",
            json!("TemplateProcessing"),
            "post_processor.type: \"TemplateProcessing\" is not supported",
        ),
        ("/added_tokens/0/lstrip", json!(true), "added_tokens.0.lstrip: true is not supported, only false"),
        ("/added_tokens/0/normalized", json!(true), "added_tokens.0.normalized: true is not supported"),
        ("/added_tokens/1", json!(5), "added_tokens.1: an object is expected, not 5"),
        ("/added_tokens/1/id", json!(-1), "added_tokens.1.id: a token id is expected"),
        ("/added_tokens/1/content", json!(7), "added_tokens.1.content: a string is expected"),
    ] {
        refuse(pointer, value, expected);
    }
    let mut folder = Folder::new(LlavaQwen2);
    folder.json.insert(
        "tokenizer_config.json",
        json!({"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": {"x": {}, "3": {}}}),
    );
    let message = folder.refusal();
    for part in [
        "tokenizer_class: \"LlamaTokenizer\" is not supported",
        "added_tokens_decoder.\"x\": the key has to be a token id",
        "3.content: a string is expected",
    ] {
        assert!(message.contains(part), "{message}\n  should have: {part}");
    }
}

#[test]
fn tokens_and_merges_that_make_no_sense() {
    for (pointer, value, expected) in [
        ("/model/vocab/ab", json!(272), "token \"ab\": id 272 is outside the embedding, which has 272 rows"),
        ("/model/vocab/ab", json!(u64::MAX), "id 18446744073709551615 is outside the embedding"),
        ("/model/vocab/ab", json!(-1), "token \"ab\": a token id is expected, not -1"),
        ("/model/vocab/ab", json!("5"), "token \"ab\": a token id is expected, not the string \"5\""),
        ("/model/vocab/ab", json!(257), "token \"abc\": id 257 is also the id of \"ab\""),
        ("/model/vocab/ab", json!(IM_END), "token \"ab\": id 262 is also the id of \"<|im_end|>\""),
        ("/model/vocab/<|im_end|>", json!(259), "token \"<|im_end|>\": has id 259 here and 262 as an added token"),
        ("/model/vocab/a b", json!(258), "token \"a b\": id 258 has \" \", which is not in the byte-level alphabet"),
        ("/model/vocab/日本", json!(258), "id 258 has \"日\", which is not in the byte-level alphabet"),
        ("/model/vocab/<0xZZ>", json!(300), "token \"<0xZZ>\": id 300 is outside"),
        ("/model/vocab/", json!(258), "token \"\": id 258 has an empty text"),
        ("/model/vocab", json!([]), "model.vocab: an object of token: id is expected, not a list of 0"),
        ("/model/vocab", json!(null), "model.vocab: an object of token: id is expected, not null"),
        ("/model/merges", json!({"a": "b"}), "model.merges: a list is expected, not an object"),
        ("/model/merges/1", json!("ab"), "model.merges: merge 1: two tokens are expected, found the string \"ab\""),
        ("/model/merges/1", json!("a b c"), "merge 1: two tokens are expected"),
        ("/model/merges/1", json!(" b"), "merge 1: two tokens are expected"),
        ("/model/merges/1", json!(["a"]), "merge 1: two tokens are expected, found a list of 1"),
        ("/model/merges/1", json!(["a", 5]), "merge 1: two tokens are expected"),
        ("/model/merges/1", json!(["a", "zz"]), "merge 1: \"zz\" is not in the vocabulary"),
        ("/model/merges/1", json!(["a", "c"]), "merge 1: \"ac\" is not in the vocabulary"),
        ("/model/merges/1", json!(["", "ab"]), "merge 1: \"\" is not in the vocabulary"),
        ("/model/merges/1", json!("a b"), "merge 1: \"a\" and \"b\" are merged by 0 already"),
        ("/added_tokens/2/id", json!(261), "token \"<|im_end|>\": id 261 is also the id of \"<|im_start|>\""),
        ("/added_tokens/2/id", json!(272), "token \"<|im_end|>\": id 272 is outside the embedding"),
        ("/added_tokens/2/content", json!("<|im_start|>"), "token \"<|im_start|>\": has the ids 261 and 262"),
        (
            "/added_tokens/2/content",
            json!("<|im_ende|>"),
            "there is no added token \"<|im_end|>\" (did you mean \"<|im_ende|>\"?)",
        ),
        ("/added_tokens/2/content", json!(""), "token \"\": id 262 has an empty text"),
        ("/added_tokens", json!([]), "there is no added token \"<|im_start|>\""),
    ] {
        refuse(pointer, value, expected);
    }
    let mut folder = Folder::new(FastVlm);
    folder.unset(TOKENIZER, "/model/vocab/Ġ");
    assert!(folder.refusal().contains("token \"Ġ\": is missing: byte 32 has no token"));
    let mut folder = Folder::new(FastVlm);
    folder.json.get_mut(TOKENIZER).expect("a tokenizer")["model"]["vocab"] = json!({"a": 0});
    assert!(folder.refusal().lines().count() < 40, "a wrong file is not listed in full");
    for (merges, expected) in [
        (
            &b"#version: 0.2\na b\nabc\n"[..],
            "merges.txt: line 3: two tokens with a blank between are expected, found \"abc\"",
        ),
        (b"a b\n#version: 0.2\n", "merges.txt: merge 2: \"#version:\" is not in the vocabulary"),
        (b"a  b\n", "line 1: two tokens with a blank between"),
        (b"a b\nab c\na b\n", "merges.txt: merge 3: \"a\" and \"b\" are merged by 1 already"),
        (b"a b\n\xff \xfe\n", "merges.txt: is not UTF-8: byte 4 (line 2)"),
    ] {
        let mut folder = Folder::new(LlavaQwen2);
        folder.raw.insert("merges.txt".into(), merges.to_vec());
        let message = folder.refusal();
        assert!(message.contains(expected), "{message}\n  should have: {expected}");
    }
}

/// Counts that would make large tables are refused before these are made.
#[test]
fn huge_counts() {
    let mut folder = Folder::new(FastVlm);
    let many: Vec<Value> = (0..2000).map(|i| json!({"id": 5, "content": format!("<{i}>")})).collect();
    folder.set(TOKENIZER, "/added_tokens", json!(many));
    assert!(folder.refusal().contains("has 2,000 added tokens, the limit is 1,024"));
    let mut folder = Folder::new(LlavaQwen2);
    folder.raw.insert("merges.txt".into(), "a b\n".repeat((1 << 20) + 1).into());
    assert!(folder.refusal().contains("merges.txt: has 1,048,577 merges, the limit is 1,048,576"));
    folder.raw.insert("merges.txt".into(), vec![b'\n'; (32 << 20) + 1]);
    assert!(folder.refusal().contains("merges.txt: has 33,554,433 bytes, the limit is 33,554,432"));
}

/// Ids that were chosen so that the hash table becomes a list.
#[test]
fn merges_that_collide() {
    let mut wanted = description(FastVlm);
    wanted.text.vocab = 4096;
    let mut folder = Folder::of(&wanted);
    folder.json.insert(TOKENIZER, Folder::new(FastVlm).json[TOKENIZER].clone());
    // The table will have 4096 slots; all pairs of bytes whose first slot is one of 200 neighbors.
    let vocab = vocab();
    let bytes: Vec<(&String, u32)> = vocab
        .as_object()
        .expect("an object")
        .iter()
        .filter_map(|(text, id)| Some((text, id.as_u64()? as u32)))
        .filter(|(_, id)| *id < 256)
        .collect();
    let mut merges = Vec::new();
    for (left, left_id) in &bytes {
        for (right, right_id) in &bytes {
            let slot = (left_id.wrapping_mul(0x9e37_79b1) ^ right_id.wrapping_mul(0x85eb_ca6b)) & 4095;
            if slot < 200 && *left != *right && merges.len() < 2048 {
                let id = 300 + merges.len();
                folder.json.get_mut(TOKENIZER).expect("a tokenizer")["model"]["vocab"][format!("{left}{right}")] =
                    json!(id);
                merges.push(json!([left, right]));
            }
        }
    }
    folder.set(TOKENIZER, "/model/merges", json!(merges));
    let message = folder.refusal();
    assert!(message.contains("tokenizer.json: the merge of rank "), "{message}");
    assert!(message.contains("collides with too many others"), "{message}");
}

#[test]
fn chat_templates_are_not_run() {
    let notes = |folder: &Folder| folder.read().expect("a sound checkpoint").0.notes;
    let mut folder = Folder::new(FastVlm);
    folder.raw.insert("chat_template.jinja".into(), "{{ '<|im_start|>' }} {{ '<|im_end|>' }}".into());
    assert!(notes(&folder).is_empty());
    folder.raw.insert("chat_template.jinja".into(), "[INST] {{ messages }} [/INST]".into());
    assert_eq!(notes(&folder), ["the chat template is not ChatML: it is not used, prompts are built as ChatML"]);
    let mut folder = Folder::new(FastVlm);
    folder.json.insert("tokenizer_config.json", json!({"chat_template": "{% for x in range(10**9) %}{% endfor %}"}));
    assert_eq!(notes(&folder).len(), 1);
}

fn refuse(pointer: &str, value: Value, expected: &str) {
    let mut folder = Folder::new(FastVlm);
    folder.set(TOKENIZER, pointer, value.clone());
    let message = folder.refusal();
    let names_both = message.contains(TOKENIZER) && message.contains(expected);
    assert!(names_both, "{pointer} = {value}:\n{message}\n  should have: {expected}");
}
