//! Hostile and damaged weight files and indexes are refused, each with a message that names the place.

mod frontend_support;

use std::os::unix::fs::{FileExt, symlink};
use std::time::Duration;

use frontend_support::*;
use models::Layout;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use tvlmc::Error;
use tvlmc::frontend::safetensors::parse_header;
use tvlmc::frontend::{Checkpoint, OpenOptions, TensorInfo, describe};

/// Opens a folder whose only weight file has these bytes.
fn open_bytes(bytes: &[u8]) -> Result<Checkpoint, Error> {
    let dir = TempDir::new().expect("a temporary folder");
    std::fs::write(dir.path().join("model.safetensors"), bytes).expect("a written file");
    Checkpoint::open(dir.path(), &OpenOptions::default())
}

#[test]
fn header_lengths() {
    let with_length = |n: u64, rest: usize| [&n.to_le_bytes()[..], &vec![b'{'; rest]].concat();
    for (bytes, expected) in [
        (vec![], "model.safetensors: has 0 bytes, a header length takes 8: truncated or not safetensors"),
        (vec![1; 7], "model.safetensors: has 7 bytes, a header length takes 8: truncated or not safetensors"),
        (
            with_length(u64::MAX, 1016),
            "model.safetensors: header length 18446744073709551615 exceeds the file (1,024 bytes): \
             truncated or not safetensors",
        ),
        (with_length(9, 8), "header length 9 exceeds the file (16 bytes)"),
        (with_length(0, 8), "header: does not start with \"{\""),
        (file(b" {}", b""), "header: does not start with \"{\""),
        (file(b"{", b""), "header: EOF"),
        (file(b"{}{}", b""), "header: trailing characters"),
        (file(b"{\"a\xff\": 1}", b""), "header: is not UTF-8 from byte 3 on"),
        (file(b"{}", b"xyz"), "model.safetensors: 3 bytes follow the last tensor"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "truncated or not safetensors"),
    ] {
        let message = refusal(open_bytes(&bytes));
        assert!(message.contains(expected), "{message}\n  should have: {expected}");
    }
    // Longer than the limit, in a file that is long enough but takes no room on the disk.
    let dir = TempDir::new().expect("a temporary folder");
    let sparse = std::fs::File::create(dir.path().join("model.safetensors")).expect("a file");
    sparse.set_len(1 << 30).expect("a long file");
    sparse.write_at(&200_000_000u64.to_le_bytes(), 0).expect("written");
    let message = refusal(Checkpoint::open(dir.path(), &OpenOptions::default()));
    assert!(message.contains("header length 200000000 exceeds the limit of 100,000,000 bytes"), "{message}");
}

/// Headers over 64 bytes of data.
#[test]
fn header_entries() {
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let two = |a: &str, b: &str| {
        let part = |range: &str| format!(r#"{{"dtype":"F32","shape":[8],"data_offsets":{range}}}"#);
        format!(r#"{{"a":{},"b":{}}}"#, part(a), part(b))
    };
    let huge = u64::MAX;
    for (header, expected) in [
        (entry("F32", "[16]", "[64, 0]"), "tensor \"t\": its bytes [64, 0] are outside the data (64 bytes)"),
        (entry("F32", "[17]", "[0, 68]"), "model.safetensors: truncated: 129 bytes, the header promises 133"),
        (entry("F32", "[16]", "[0, 65]"), "its bytes [0, 65] are outside the data (64 bytes)"),
        (entry("F32", "[16]", &format!("[{}, {huge}]", huge - 64)), "are outside the data (64 bytes)"),
        (entry("F32", "[15]", "[0, 64]"), "its bytes [0, 64] are 64, but F32 of shape [15] takes 60"),
        (entry("F16", "[16]", "[0, 64]"), "but F16 of shape [16] takes 32"),
        (entry("F32", "[0]", "[0, 0]"), "shape [0] has a zero"),
        (entry("F32", "[0, 18446744073709551615]", "[0, 0]"), "has a zero"),
        (entry("F32", "[4611686018427387904, 4]", "[0, 64]"), "has more bytes than 2^64"),
        (entry("F32", "[4294967296, 4294967296]", "[0, 64]"), "has more bytes than 2^64"),
        (entry("F32", "[18446744073709551616]", "[0, 64]"), "shape of tensor \"t\""),
        (entry("F32", "[1,1,1,1,1,1,1,1,16]", "[0, 64]"), "shape of tensor \"t\" has more than 8 numbers"),
        (entry("F32", "[-16]", "[0, 64]"), "invalid value: integer `-16`"),
        (entry("F32", "[16.0]", "[0, 64]"), "invalid type: floating point"),
        (entry("F32", "16", "[0, 64]"), "shape of tensor \"t\" as a list of at most 8 unsigned numbers"),
        (entry("F32", "[16]", "[0]"), "data_offsets needs two numbers"),
        (entry("F32", "[16]", "[0, 64, 64]"), "data_offsets of tensor \"t\" has more than 2 numbers"),
        (entry("I4", "[128]", "[0, 64]"), "dtype \"I4\" is not supported (F32, F16, BF16 are)"),
        (entry("F64", "[8]", "[0, 64]"), "dtype \"F64\" is not supported"),
        (entry("I64", "[8]", "[0, 64]"), "dtype I64 is only known for \"num_batches_tracked\""),
        (entry("\\u001b[2J", "[8]", "[0, 64]"), r#"dtype "\u{1b}[2J" is not supported"#),
        (two("[0, 32]", "[0, 32]"), "overlap"),
        (two("[0, 32]", "[16, 48]"), "tensor \"b\": its bytes [16, 48] overlap [0, 32] of tensor \"a\""),
        (two("[32, 64]", "[32, 64]"), "leave a hole of 32 bytes before them"),
        (two("[0, 32]", "[0, 32]").replace("\"b\"", "\"a\""), "tensor \"a\" is defined twice"),
        (two("[32, 64]", "[0, 32]").replace("[32, 64]", "[31, 63]"), "overlap"),
        (entry("F32", "[8]", "[0, 32]"), "32 bytes follow the last tensor and belong to none"),
        (entry("F32", "[8]", "[32, 64]"), "leave a hole of 32 bytes before them"),
        (
            r#"{"t":{"dtype":"F32","dtype":"F32","shape":[16],"data_offsets":[0,64]}}"#.into(),
            "tensor \"t\" has \"dtype\" twice",
        ),
        (r#"{"t":{"dtype":"F32","shape":[16],"shape":[16],"data_offsets":[0,64]}}"#.into(), "has \"shape\" twice"),
        (r#"{"t":{"dtype":"F32","shape":[16]}}"#.into(), "tensor \"t\" has no data_offsets"),
        (r#"{"t":{"shape":[16],"data_offsets":[0,64]}}"#.into(), "tensor \"t\" has no dtype"),
        (r#"{"t":{"dtype":"F32","shape":[16],"data_offsets":[0,64],"x":1}}"#.into(), "has an unknown field \"x\""),
        (r#"{"t":[1]}"#.into(), "tensor \"t\" as an object of dtype, shape and data_offsets"),
        (r#"{"__metadata__":{"a":"1","a":"2"}}"#.into(), "\"__metadata__\" has \"a\" twice"),
        (r#"{"__metadata__":{"a":1}}"#.into(), "expected a string"),
        (format!("{{\"{}\": 1}}", "n".repeat(10_000_000)), "is longer than 512 bytes"),
        (format!("{{\"a\":{}", "[".repeat(1_000_000)), "tensor \"a\" as an object"),
        ("{\"a\":".repeat(1_000_000), "tensor \"a\" has an unknown field"),
    ] {
        let message = refusal(open_bytes(&file(header.as_bytes(), &[0; 64])));
        assert!(
            message.contains(expected),
            "{}\n  {message}\n  should have: {expected}",
            &header[..header.len().min(200)]
        );
    }
}

#[test]
fn hostile_names_are_shown_escaped() {
    let header = json!({"a\0\n\u{202e}\u{1b}[31m\"": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}});
    let message = refusal(open_bytes(&file(header.to_string().as_bytes(), b"")));
    let (_, message) = message.split_once("/model").expect("a path");
    assert_eq!(message, r#".safetensors: tensor "a\0\n\u{202e}\u{1b}[31m\"": shape [0] has a zero"#);
}

#[test]
fn many_tensors_are_fast_and_too_many_are_refused() {
    for (n, fits) in [(100_000, true), (100_001, false)] {
        let entries: Vec<String> = (0..n)
            .map(|i| format!(r#""t{i}":{{"dtype":"BF16","shape":[1],"data_offsets":[{},{}]}}"#, 2 * i, 2 * i + 2))
            .collect();
        let bytes = file(format!("{{{}}}", entries.join(",")).as_bytes(), &vec![0; 2 * n]);
        let dir = Folder::new(Layout::FastVlm).write();
        std::fs::write(dir.path().join("model.safetensors"), bytes).expect("written");
        // On the clock of this thread: what else the machine does is no matter.
        let start = cpu_time();
        let opened = Checkpoint::open(dir.path(), &OpenOptions::default());
        match opened {
            Ok(checkpoint) => {
                assert!(fits && checkpoint.tensors().count() == n);
                // No tensor of the model is there.
                refusal(describe(&checkpoint));
            }
            Err(e) => assert!(!fits && e.to_string().contains("more than 100,000 tensors"), "{e}"),
        }
        let took = cpu_time() - start;
        println!("{n} tensors: {took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

/// As many, all of which are to be compared with what the model has: in one file, and by an index.
#[test]
fn many_foreign_tensors_are_refused_fast() {
    for shards in [1, 2] {
        let mut folder = Folder::new(Layout::FastVlm);
        folder.shards = shards;
        for i in folder.tensors.len()..100_000 {
            let name = format!("model.language_model.layers.{i}.mlp.up_proj.weighty");
            folder.tensors.insert(name, Tensor { dtype: "BF16", shape: vec![1], bytes: vec![0; 2] });
        }
        let dir = folder.write();
        let start = cpu_time();
        let message = refusal(read(dir.path()));
        let took = cpu_time() - start;
        println!("{shards} files: {took:?}");
        assert!(message.contains("is not part of a FastVLM model") && message.contains(" more"), "{message}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

#[test]
fn small_stacks_are_enough() {
    let deep = |open: &str| open.repeat(1_000_000);
    let headers = [deep("["), deep("{\"a\":"), format!("{{\"__metadata__\":{}", deep("{\"a\":"))];
    let work = move || {
        for header in headers {
            refusal(open_bytes(&file(header.as_bytes(), b"")));
        }
        for text in [deep("["), deep("{\"a\":"), format!("{}{}", "[".repeat(127), "]".repeat(127))] {
            let mut folder = Folder::new(Layout::FastVlm);
            folder.raw.insert("config.json".into(), text.clone().into());
            assert!(folder.refusal().starts_with("config.json: "));
            let mut folder = Folder::new(Layout::FastVlm);
            folder.raw.insert("tokenizer.json".into(), text.into());
            assert!(folder.refusal().starts_with("tokenizer.json: "));
        }
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(work).expect("a thread").join().expect("no overflow");
}

/// What an index may not do: what is changed in a sound one, and the message.
#[test]
fn indexes() {
    const INDEX: &str = "model.safetensors.index.json";
    const FIRST: &str = "model-00001-of-00003.safetensors";
    const SECOND: &str = "model-00002-of-00003.safetensors";
    let change = |change: &dyn Fn(&std::path::Path, &mut Value)| {
        let mut folder = Folder::new(Layout::FastVlm);
        folder.shards = 3;
        let dir = folder.write();
        let path = dir.path().join(INDEX);
        let mut index: Value = serde_json::from_slice(&std::fs::read(&path).expect("an index")).expect("JSON");
        change(dir.path(), &mut index);
        if !index.is_null() {
            std::fs::write(&path, index.to_string()).expect("an index");
        }
        refusal(Checkpoint::open(dir.path(), &OpenOptions::default()).map(drop))
    };
    let rename = |to: &'static str| {
        change(&move |_, index| {
            for shard in index["weight_map"].as_object_mut().expect("a map").values_mut().filter(|s| *s == FIRST) {
                *shard = to.into();
            }
        })
    };
    for spelling in [
        "../../etc/passwd",
        "/etc/passwd",
        "../model.safetensors",
        "./model-00001-of-00003.safetensors",
        "sub/model.safetensors",
        "sub/../model-00001-of-00003.safetensors",
        "..\\model.safetensors",
        "C:\\model.safetensors",
        "c:model.safetensors",
        "//host/model.safetensors",
        "/model.safetensors",
        "nul\0.safetensors",
    ] {
        let message = rename(spelling);
        let quoted = tvlmc::error::Quoted(spelling).to_string();
        assert!(message.contains(&format!("shard {quoted}: leaves the model folder")), "{message}");
    }
    for (name, expected) in [
        ("..", "shard \"..\": is not a .safetensors file"),
        ("", "shard \"\": is not a .safetensors file"),
        ("config.json", "shard \"config.json\": is not a .safetensors file"),
        ("gone.safetensors", "shard \"gone.safetensors\": is missing in"),
    ] {
        let message = rename(name);
        assert!(message.contains(expected), "{message}\n  should have: {expected}");
    }
    let first_tensor =
        |index: &Value| index["weight_map"].as_object().expect("a map").keys().next().cloned().expect("one");
    type Change = Box<dyn Fn(&std::path::Path, &mut Value)>;
    let cases: Vec<(Change, &str)> = vec![
        (
            Box::new(|dir, _| std::fs::remove_file(dir.join(SECOND)).expect("removed")),
            "shard \"model-00002-of-00003.safetensors\": is missing in",
        ),
        (
            Box::new(|dir, _| {
                std::fs::remove_file(dir.join(SECOND)).expect("removed");
                std::fs::hard_link(dir.join(FIRST), dir.join(SECOND)).expect("linked");
            }),
            "shard \"model-00002-of-00003.safetensors\": is the same file as \"model-00001-of-00003.safetensors\"",
        ),
        (
            Box::new(|dir, _| {
                std::fs::remove_file(dir.join(SECOND)).expect("removed");
                symlink(FIRST, dir.join(SECOND)).expect("linked");
            }),
            "is the same file as",
        ),
        (
            Box::new(|dir, _| {
                std::fs::remove_file(dir.join(SECOND)).expect("removed");
                symlink("/etc/passwd", dir.join(SECOND)).expect("linked");
            }),
            "is a link that leaves the model folder",
        ),
        (
            Box::new(|dir, _| {
                std::fs::remove_file(dir.join(SECOND)).expect("removed");
                symlink("/dev/zero", dir.join(SECOND)).expect("linked");
            }),
            "is a link that leaves the model folder",
        ),
        (
            Box::new(|dir, _| {
                std::fs::remove_file(dir.join(SECOND)).expect("removed");
                symlink("nowhere", dir.join(SECOND)).expect("linked");
            }),
            "is a link to a file that does not exist",
        ),
        (
            Box::new(|dir, _| {
                std::fs::remove_file(dir.join(SECOND)).expect("removed");
                fifo(&dir.join(SECOND));
            }),
            "is a FIFO, not a regular file",
        ),
        (
            Box::new(|dir, _| {
                std::fs::remove_file(dir.join(SECOND)).expect("removed");
                std::fs::create_dir(dir.join(SECOND)).expect("a folder");
            }),
            "is a folder, not a regular file",
        ),
        (
            Box::new(move |_, index| {
                let tensor = first_tensor(index);
                index["weight_map"][tensor] = SECOND.into();
            }),
            "the index lists it in \"model-00002-of-00003.safetensors\"",
        ),
        (
            Box::new(move |_, index| {
                let tensor = first_tensor(index);
                index["weight_map"].as_object_mut().expect("a map").remove(&tensor);
            }),
            "is not in model.safetensors.index.json",
        ),
        (
            Box::new(|_, index| index["weight_map"]["more"] = FIRST.into()),
            "tensor \"more\": the index lists it here, but the file does not hold it",
        ),
        (
            Box::new(|_, index| index["weight_map"]["more"] = json!(5)),
            "weight_map: \"more\": a file name is expected, not 5",
        ),
        (
            Box::new(|_, index| *index = json!({"weightmap": {}})),
            "weight_map: is missing (did you mean \"weightmap\"?)",
        ),
        (Box::new(|_, index| *index = json!({"weight_map": {}})), "weight_map: has 0 tensors"),
        (Box::new(|_, index| *index = json!({"weight_map": []})), "weight_map: an object of tensor: file is expected"),
        (Box::new(|_, index| *index = json!([])), "an object is expected, not a list of 0"),
        (
            Box::new(|dir, index| {
                *index = Value::Null;
                let text = format!(r#"{{"weight_map": {{"a": "{FIRST}", "a": "{SECOND}"}}}}"#);
                std::fs::write(dir.join(INDEX), text).expect("an index");
            }),
            "key \"a\" stands twice in one object",
        ),
        (
            Box::new(|_, index| {
                let many: serde_json::Map<_, _> =
                    (0..600).map(|i| (format!("t{i}"), format!("s{i}.safetensors").into())).collect();
                *index = json!({"weight_map": many});
            }),
            "names 600 files, the limit is 512",
        ),
    ];
    for (case, expected) in cases {
        let message = change(&*case);
        assert!(message.contains(expected), "{message}\n  should have: {expected}");
    }
}

fn fifo(path: &std::path::Path) {
    let path = std::ffi::CString::new(path.to_str().expect("UTF-8")).expect("no zero");
    // SAFETY: the path ends in a zero and outlives the call.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

#[test]
fn hub_caches_and_owners_may_link() {
    // A hub cache: snapshots/<revision>/<file> -> ../../blobs/<hash>.
    let mut folder = Folder::new(Layout::LlavaQwen2);
    folder.shards = 3;
    let hub = TempDir::new().expect("a temporary folder");
    let (blobs, snapshot) = (hub.path().join("blobs"), hub.path().join("snapshots/0123abcd"));
    std::fs::create_dir_all(&blobs).expect("a folder");
    std::fs::create_dir_all(&snapshot).expect("a folder");
    folder.write_to(&blobs);
    for entry in std::fs::read_dir(&blobs).expect("a folder") {
        let name = entry.expect("an entry").file_name();
        symlink(std::path::Path::new("../../blobs").join(&name), snapshot.join(&name)).expect("linked");
    }
    assert_eq!(read(&snapshot).expect("a hub checkpoint").0.description, description(Layout::LlavaQwen2));
    // Outside of a hub's own shape the same links leave the folder.
    let elsewhere = hub.path().join("other");
    std::fs::rename(hub.path().join("snapshots"), &elsewhere).expect("renamed");
    assert!(refusal(read(&elsewhere.join("0123abcd"))).contains("is a link that leaves the model folder"));
    // An owner's link for the name that we look for by ourselves.
    let owned = Folder::new(Layout::FastVlm).write();
    let disk = TempDir::new().expect("a temporary folder");
    std::fs::copy(owned.path().join("model.safetensors"), disk.path().join("big")).expect("copied");
    std::fs::remove_file(owned.path().join("model.safetensors")).expect("removed");
    symlink(disk.path().join("big"), owned.path().join("model.safetensors")).expect("linked");
    assert!(read(owned.path()).is_ok());
    std::fs::remove_file(owned.path().join("model.safetensors")).expect("removed");
    symlink("/dev/zero", owned.path().join("model.safetensors")).expect("linked");
    assert!(refusal(read(owned.path())).contains("is a device, not a regular file"));
}

#[test]
fn paths_that_are_no_checkpoint() {
    let dir = TempDir::new().expect("a temporary folder");
    std::fs::write(dir.path().join("notes.txt"), "x").expect("written");
    let open = |path: &std::path::Path| refusal(Checkpoint::open(path, &OpenOptions::default()));
    assert!(open(dir.path()).contains("holds no model.safetensors"));
    assert!(open(&dir.path().join("gone")).contains("no such file or folder"));
    assert!(open(&dir.path().join("notes.txt/x")).contains("no such file or folder"));
    assert!(open(&dir.path().join("notes.txt")).contains("is neither a folder nor a .safetensors file"));
    std::fs::write(dir.path().join("pytorch_model.bin"), "x").expect("written");
    assert!(open(dir.path()).contains("holds no model.safetensors"), "any folder may hold such files");
    std::fs::write(dir.path().join("config.json"), "{}").expect("written");
    assert!(open(dir.path()).contains("holds .bin weights only, which can run code when read"));
    let folder = Folder::new(Layout::FastVlm).write();
    std::fs::remove_file(folder.path().join("config.json")).expect("removed");
    assert!(refusal(read(folder.path())).contains("config.json: is missing"));
}

#[test]
fn values_that_are_not_finite() {
    let name = "model.language_model.norm.weight";
    let values: [(&str, f32); 3] = [("NaN", f32::NAN), ("inf", f32::INFINITY), ("-inf", f32::NEG_INFINITY)];
    for dtype in ["F32", "F16", "BF16"] {
        for (shown, value) in values {
            let encode = |v: f32| match dtype {
                "F32" => v.to_le_bytes().to_vec(),
                "F16" => half::f16::from_f32(v).to_le_bytes().to_vec(),
                _ => half::bf16::from_f32(v).to_le_bytes().to_vec(),
            };
            let mut folder = Folder::new(Layout::FastVlm);
            // The smallest and the largest finite values are fine.
            let edge = if dtype == "F16" { 65504.0 } else { 3.3e38 };
            let stored = [1.0, -0.0, 6e-8, edge, -edge, value, 2.0, value].map(encode).concat();
            *folder.tensor(name) = Tensor { dtype, shape: vec![8], bytes: stored };
            let dir = folder.write();
            let strict = Checkpoint::open(dir.path(), &OpenOptions::default()).expect("a checkpoint");
            assert_eq!(strict.rows(name, 0..5).expect("finite values").len(), 5);
            let message = refusal(strict.rows(name, 2..8));
            let expected =
                format!("model.safetensors: tensor \"{name}\": the value at [5] (number 6 of 8) is {shown}: ");
            assert!(message.starts_with(&format!("{}/{expected}", dir.path().display())), "{message}");
            let options = OpenOptions { allow_non_finite: true };
            let lenient = Checkpoint::open(dir.path(), &options).expect("a checkpoint");
            assert_eq!(lenient.rows(name, 5..6).expect("allowed")[0].to_bits(), value.to_bits());
        }
    }
    // The same behind the interface of the evaluator, which only carries text.
    let mut folder = Folder::new(Layout::FastVlm);
    folder.tensor(name).bytes[2..4].copy_from_slice(&0x7f80u16.to_le_bytes());
    let dir = folder.write();
    let checkpoint = Checkpoint::open(dir.path(), &OpenOptions::default()).expect("a checkpoint");
    let text = ir::TensorSource::rows(&checkpoint, name, 0..8).expect_err("infinity").to_string();
    assert!(text.contains("the value at [1] (number 2 of 8) is inf"), "{text}");
    assert!(matches!(checkpoint.failure(), Some(Error::Input(_))));
    assert!(checkpoint.failure().is_none());

    let mut folder = Folder::new(Layout::FastVlm);
    let stem = "model.vision_tower.timm_model.stem.0.reparam_conv.weight";
    folder.tensor(stem).bytes[2 * 77..2 * 78].copy_from_slice(&0x7fc0u16.to_le_bytes());
    let dir = folder.write();
    let checkpoint = Checkpoint::open(dir.path(), &OpenOptions::default()).expect("a checkpoint");
    // 77 = ((2 * 3 + 2) * 3 + 1) * 3 + 2
    assert!(refusal(checkpoint.rows(stem, 1..4)).contains("the value at [2, 2, 1, 2] (number 78 of 108) is NaN"));
}

#[test]
fn files_that_change_while_open() {
    let tensor = "model.language_model.embed_tokens.weight";
    let dir = Folder::new(Layout::FastVlm).write();
    let path = dir.path().join("model.safetensors");
    let open = || Checkpoint::open(dir.path(), &OpenOptions::default()).expect("a checkpoint");
    let checkpoint = open();
    checkpoint.check_unchanged().expect("untouched");
    std::thread::sleep(Duration::from_millis(20));
    let file = std::fs::File::options().write(true).open(&path).expect("a file");
    file.write_at(&[0x42], file.metadata().expect("metadata").len() - 1).expect("written");
    assert!(refusal(checkpoint.check_unchanged()).contains("model.safetensors: changed while it was being read"));
    // Setting the time back does not hide it.
    let checkpoint = open();
    let modified = file.metadata().expect("metadata").modified().expect("a time");
    std::thread::sleep(Duration::from_millis(20));
    file.write_at(&[0x43], file.metadata().expect("metadata").len() - 1).expect("written");
    file.set_modified(modified).expect("set");
    refusal(checkpoint.check_unchanged());
    let checkpoint = open();
    file.set_len(1000).expect("truncated");
    assert!(refusal(checkpoint.rows(tensor, 0..ROWS)).contains("changed while it was being read"));
    assert!(refusal(checkpoint.digest()).contains("changed while it was being read"));
    // A file that is replaced by renaming stays what it was for whoever has it open.
    Folder::new(Layout::FastVlm).write_to(dir.path());
    let checkpoint = open();
    let other = dir.path().join("other");
    std::fs::write(&other, b"something else").expect("written");
    std::fs::rename(&other, &path).expect("renamed");
    assert_eq!(checkpoint.rows(tensor, 0..1).expect("values")[1], value(1));
}

/// Every difference is listed at once, near names are suggested.
#[test]
fn tensors_that_do_not_fit() {
    for layout in [Layout::FastVlm, Layout::LlavaQwen2] {
        let mut folder = Folder::new(layout);
        let gone = folder.name("model.language_model.layers.1.mlp.down_proj.weight");
        let misspelled = gone.replace("down_proj", "down_prj");
        let tensor = folder.tensors.remove(&gone).expect("a tensor");
        folder.tensors.insert(misspelled.clone(), tensor);
        folder.tensor("model.language_model.layers.1.mlp.up_proj.weight").shape = vec![8, 16];
        folder.tensor("model.language_model.norm.weight").shape = vec![2, 4];
        folder.tensors.insert("zzz".into(), Tensor { dtype: "F32", shape: vec![1], bytes: vec![0; 4] });
        let up = folder.name("model.language_model.layers.1.mlp.up_proj.weight");
        let norm = folder.name("model.language_model.norm.weight");
        let message = folder.refusal();
        let mut lines: Vec<&str> = message.lines().map(str::trim).collect();
        assert_eq!(lines.remove(0), "5 problems:");
        lines[0] = lines[0].split_once(": ").expect("a file").1;
        assert_eq!(
            lines,
            [
                format!("tensor \"{gone}\": is missing (did you mean \"{misspelled}\"?); [8, 16] is expected"),
                format!("model.safetensors: tensor \"{up}\": is [8, 16], [16, 8] is expected: is it transposed?"),
                format!("model.safetensors: tensor \"{norm}\": is [2, 4], [8] is expected"),
                format!("model.safetensors: tensor \"{misspelled}\": is not part of a FastVLM model"),
                "model.safetensors: tensor \"zzz\": is not part of a FastVLM model".into(),
            ]
        );
    }
}

/// One layout's tensors under the other's configuration.
#[test]
fn layouts_are_not_mixed() {
    let mut folder = Folder::new(Layout::FastVlm);
    folder.tensors = Folder::new(Layout::LlavaQwen2).tensors;
    let message = folder.refusal();
    assert!(message.contains("the checkpoint has no FastViTHD tower of this layout"), "{message}");
    let mut folder = Folder::new(Layout::FastVlm);
    folder.tensors.retain(|name, _| !name.contains("stages.3.blocks"));
    assert!(folder.refusal().contains("stage 3 of the five has no block"));
    let folder = Folder { tensors: Default::default(), ..Folder::new(Layout::FastVlm) };
    let dir = folder.write();
    let empty = Checkpoint::open(dir.path(), &OpenOptions::default()).expect("no tensors is sound as a file");
    refusal(describe(&empty));
}

/// A sound header over data without holes, as parts that can be changed one by one.
fn sound_header() -> impl Strategy<Value = Vec<(String, &'static str, Vec<u64>)>> {
    let tensor =
        ("[a-z]{1,8}", prop_oneof![Just("F32"), Just("F16"), Just("BF16")], prop::collection::vec(1..5u64, 0..4));
    prop::collection::btree_map("[a-z.]{1,12}", tensor, 1..8)
        .prop_map(|map| map.into_iter().map(|(name, (_, dtype, shape))| (name, dtype, shape)).collect())
}

fn bytes_of(dtype: &str, shape: &[u64]) -> u64 {
    shape.iter().product::<u64>() * if dtype == "F32" { 4 } else { 2 }
}

fn header_json(parts: &[(String, &str, Vec<u64>)]) -> (Value, u64) {
    let mut end = 0;
    let mut header = serde_json::Map::new();
    for (name, dtype, shape) in parts {
        let begin = end;
        end += bytes_of(dtype, shape);
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}));
    }
    (Value::Object(header), end)
}

fn parse(header: &Value, data: u64) -> Result<Vec<(String, TensorInfo)>, Error> {
    parse_header("f", header.to_string().as_bytes(), data)
}

const EDGES: [u64; 12] = [0, 1, 3, 7, 255, 1 << 31, 1 << 32, (1 << 32) + 1, 1 << 61, 1 << 62, 1 << 63, u64::MAX];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Sound headers are read as they are, and the format's own implementation agrees.
    #[test]
    fn sound_headers_are_read(parts in sound_header()) {
        let (header, data) = header_json(&parts);
        let tensors = parse(&header, data).expect("a sound header");
        prop_assert_eq!(tensors.len(), parts.len());
        let bytes = file(header.to_string().as_bytes(), &vec![0; data as usize]);
        let theirs = safetensors::SafeTensors::deserialize(&bytes).expect("their reader agrees");
        for (name, info) in &tensors {
            let tensor = theirs.tensor(name).expect("a known tensor");
            prop_assert_eq!(tensor.shape(), &info.shape[..]);
            let begin = info.offset as usize;
            prop_assert_eq!(tensor.data().as_ptr() as usize - bytes.as_ptr() as usize, begin);
            prop_assert_eq!(tensor.data().len() as u64, info.bytes);
        }
    }

    /// One number changed: refused.
    #[test]
    fn one_changed_number_is_refused(
        parts in sound_header(), which in any::<prop::sample::Index>(), field in 0..3usize, edge in prop::sample::select(&EDGES[..]),
    ) {
        let (mut header, data) = header_json(&parts);
        let (name, _, shape) = &parts[which.index(parts.len())];
        let entry = &mut header[name];
        let before = entry.clone();
        match field {
            2 if !shape.is_empty() => {
                let axis = which.index(shape.len());
                entry["shape"][axis] = json!(edge);
            }
            2 => entry["shape"] = json!([edge]),
            offset => entry["data_offsets"][offset] = json!(edge),
        }
        // A scalar and a vector of one are the same bytes.
        prop_assume!(*entry != before && !(shape.is_empty() && edge == 1));
        prop_assert!(parse(&header, data).is_err());
    }

    /// Another file length: refused.
    #[test]
    fn another_length_is_refused(parts in sound_header(), data in prop_oneof![any::<u64>(), prop::sample::select(&EDGES[..])]) {
        let (header, sound) = header_json(&parts);
        prop_assume!(data != sound);
        prop_assert!(parse(&header, data).is_err());
    }

    /// One byte changed: no panic, and nothing is taken that the format's own implementation refuses.
    #[test]
    fn one_changed_byte_is_no_surprise(parts in sound_header(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (header, data) = header_json(&parts);
        let mut header = header.to_string().into_bytes();
        let at = at.index(header.len());
        header[at] = byte;
        if let Ok(tensors) = parse_header("f", &header, data) {
            let bytes = file(&header, &vec![0; data as usize]);
            let theirs = safetensors::SafeTensors::deserialize(&bytes);
            prop_assert!(theirs.is_ok_and(|theirs| theirs.len() == tensors.len()));
        }
    }

    /// Any bytes: no panic.
    #[test]
    fn any_bytes_are_survived(header in prop::collection::vec(any::<u8>(), 0..200), data in any::<u64>()) {
        let _ = parse_header("f", &header, data);
        let _ = parse_header("f", &[b"{", &header[..]].concat(), data);
    }
}
