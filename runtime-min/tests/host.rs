//! The command line: results on stdout, messages on stderr, exit codes.

mod common;

use common::*;
use runtime_min::host::run;
use serde_json::Value;
use std::ffi::OsString;

/// Runs the fake model's command line; answers code, stdout, stderr.
fn host(arguments: &[&str]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run::<Fake>(arguments.iter().map(OsString::from), false, &mut out, &mut err);
    (code, String::from_utf8(out).expect("UTF-8"), String::from_utf8(err).expect("UTF-8"))
}

fn path(file: &TempFile) -> &str {
    file.0.to_str().expect("UTF-8")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("an array").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

#[test]
fn one_question_as_text_and_as_json() {
    let weights = TempFile::new("one.tvlm", &fake_file());
    let picture = TempFile::new("one.rgb", &[7; SIDE * SIDE * 3]);
    let rgb = format!("{SIDE}x{SIDE}:{}", path(&picture));
    let common =
        ["--weights", path(&weights), "--rgb", &rgb, "--rgb", &rgb, "--prompt", "Which?", "--max-new-tokens=9"];
    let (code, text, err) = host(&common);
    assert_eq!((code, err.as_str()), (0, ""));
    let (code, out, err) = host(&[&common[..], &["--json", "--threads", "2", "--ignore-eos"]].concat());
    assert_eq!((code, err.as_str(), out.lines().count()), (0, "", 1));
    let report = json(&out);
    let keys: Vec<_> = report.as_object().expect("an object").keys().map(String::as_str).collect();
    let expected_keys =
        ["accepted_tokens", "drafted_tokens", "peak_bytes", "prompt_token_ids", "text", "timings_ms", "token_ids"];
    assert_eq!(keys, expected_keys);
    let prompt: Vec<i64> = ids(&report["prompt_token_ids"]).into_iter().map(i64::from).collect();
    let prompt = prompt_values(&prompt, &[image_values(7), image_values(7)]);
    assert_eq!(ids(&report["token_ids"]), expected(&prompt, 9, true));
    assert_eq!(text, common::text(&expected(&prompt, 9, false)) + "\n");
    for key in ["load", "preprocess", "vision", "prefill", "decode_per_token"] {
        assert!(report["timings_ms"][key].is_f64(), "{key}");
    }
    assert!(report["peak_bytes"].as_u64().expect("a size") > 4096);
}

#[test]
fn many_questions_in_one_process() {
    let weights = TempFile::new("many.tvlm", &fake_file());
    let pictures = [7, 9].map(|value| TempFile::new(&format!("many-{value}.rgb"), &[value; SIDE * SIDE * 3]));
    let lines = [
        format!("{}\t{SIDE}x{SIDE}\tone\twith a tab", path(&pictures[0])),
        format!("{}\t{SIDE}x{SIDE}\ttwo", path(&pictures[0])),
        format!("{}\t{SIDE}x{SIDE}\tthree", path(&pictures[1])),
        "\t\tfour".to_string(),
    ];
    let questions = TempFile::new("many.tsv", (lines.join("\n") + "\n").as_bytes());
    let (code, out, err) =
        host(&["--weights", path(&weights), "--questions", path(&questions), "--max-new-tokens", "8"]);
    assert_eq!((code, err.as_str(), out.lines().count()), (0, "", 4));
    for (line, images) in out.lines().zip([vec![image_values(7)], vec![image_values(7)], vec![image_values(9)], vec![]])
    {
        let report = json(line);
        let prompt: Vec<i64> = ids(&report["prompt_token_ids"]).into_iter().map(i64::from).collect();
        assert_eq!(prompt[0], i64::from(IM_START), "a conversation of its own");
        assert_eq!(ids(&report["token_ids"]), expected(&prompt_values(&prompt, &images), 8, false));
    }
    let bad = TempFile::new("many-bad.tsv", b"\t\tfine\nno tabs here\n");
    let (code, out, err) = host(&["--weights", path(&weights), "--questions", path(&bad)]);
    assert_eq!((code, out.lines().count()), (3, 1));
    assert!(err.contains("many-bad.tsv:2: cannot read the question: expected rgb-path, WxH and prompt"), "{err}");
}

#[test]
fn a_dump_holds_every_step() {
    let weights = TempFile::new("dump.tvlm", &fake_file());
    let picture = TempFile::new("dump.rgb", &[7; SIDE * SIDE * 3]);
    let folder = std::env::temp_dir().join(format!("tvlm-{}-dump", std::process::id()));
    let rgb = format!("{SIDE}x{SIDE}:{}", path(&picture));
    let to = folder.to_str().expect("UTF-8");
    let (code, out, err) = host(&["--weights", path(&weights), "--rgb", &rgb, "--prompt", "x", "--dump", to, "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(json(&out)["token_ids"].as_array().expect("an array").len(), 2);
    let index = json(&std::fs::read_to_string(folder.join("index.json")).expect("written"));
    let n = index["prompt_token_ids"].as_array().expect("an array").len();
    let files = index["files"].as_array().expect("an array");
    let count = |phase: &str, name: &str| files.iter().filter(|f| f["phase"] == phase && f["name"] == name).count();
    assert_eq!(count("input", "pixels"), 1);
    assert_eq!(count("vision", "vision.rows"), 1);
    assert_eq!(count("prefill", "decoder.0.cache"), n.div_ceil(7));
    assert_eq!(count("decode", "decoder.head"), 1);
    assert_eq!(count("decode", "logits"), 1);
    for file in files {
        let bytes = std::fs::read(folder.join(file["file"].as_str().expect("a name"))).expect("written");
        let size = |key: &str| file[key].as_u64().expect("a size") as usize;
        let item = if file["name"] == "pixels" { 1 } else { 4 };
        assert_eq!(bytes.len(), size("rows") * size("channels") * item, "{file}");
        if item == 4 {
            let floats = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            assert_eq!(
                floats.fold(0.0f32, |max, value| max.max(value.abs())) as f64,
                file["max"].as_f64().expect("finite")
            );
        }
    }
    assert_eq!(std::fs::read(folder.join("pixels.u8")).expect("written"), [7; SIDE * SIDE * 3]);
    assert_eq!(std::fs::metadata(folder.join("input_ids.i64")).expect("written").len(), n as u64 * 8);
    std::fs::remove_dir_all(folder).expect("ours");
}

#[test]
fn bench_and_profile_report() {
    let weights = TempFile::new("bench.tvlm", &fake_file());
    let (code, out, err) = host(&["--weights", path(&weights), "--bench", "4", "--threads", "1"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let report = json(&out);
    for key in ["vision_ms", "prefill_ms", "decode_ms"] {
        assert!(report[key]["median"].is_f64(), "{key}: {report}");
    }
    assert_eq!((report["threads"].as_u64(), report["decode_steps"].as_u64()), (Some(1), Some(4)));
    let (code, _, err) = host(&["--weights", path(&weights), "--prompt", "x", "--profile", "--max-new-tokens", "3"]);
    assert_eq!(code, 0);
    assert!(err.lines().any(|line| line.starts_with("prefill ") && line.ends_with("decoder.0.cache")), "{err}");
    assert!(err.lines().any(|line| line.starts_with("decode ") && line.ends_with("decoder.head")), "{err}");
}

#[test]
fn pictures_have_the_sides_that_are_asked_for() {
    let weights = TempFile::new("sides.tvlm", &fake_file());
    let picture = TempFile::new("sides.rgb", &[7; SIDE * SIDE * 3]);
    let rgb = format!("{SIDE}x{SIDE}:{}", path(&picture));
    let common = ["--weights", path(&weights), "--rgb", &rgb, "--rgb", &rgb, "--prompt", "x", "--json"];
    // What a picture of this side becomes: of fewer pixels, another sum and fewer rows.
    let values = |side: usize, tokens: usize| -> Vec<u32> {
        let sum = 7 * (side * side * 3) as u32;
        (0..tokens as u32).map(|row| (sum + row) * HIDDEN as u32).collect()
    };
    let (small, large) = (values(SMALL_SIDE, SMALL_TOKENS), values(SIDE, TOKENS));
    assert_eq!(large, image_values(7));
    let cases: [(&[&str], [&Vec<u32>; 2]); 4] = [
        (&[], [&large, &large]),
        (&["--side", "2"], [&small, &small]),
        (&["--side=2,4"], [&small, &large]),
        (&["--side", "4,2"], [&large, &small]),
    ];
    for (more, images) in cases {
        let (code, out, err) = host(&[&common[..], &["--max-new-tokens", "8", "--ignore-eos"], more].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{more:?}");
        let report = json(&out);
        let prompt: Vec<i64> = ids(&report["prompt_token_ids"]).into_iter().map(i64::from).collect();
        let prompt = prompt_values(&prompt, &images.map(Clone::clone));
        assert_eq!(ids(&report["token_ids"]), expected(&prompt, 8, true), "{more:?}");
    }
    let bench = |side: &[&str]| json(&host(&[&["--weights", path(&weights), "--bench", "1"], side].concat()).1);
    assert_eq!((&bench(&[])["side"], &bench(&["--side=2"])["side"]), (&SIDE.into(), &SMALL_SIDE.into()));
    let refused = |more: &[&str]| {
        let (code, out, err) = host(&[&common[..], more].concat());
        assert_eq!((code, out.as_str()), (2, ""));
        err
    };
    assert_eq!(refused(&["--side", "3"]), "error: --side: 3 is not of fake, which has 2, 4\n");
    assert!(refused(&["--side", "2,4,2"]).contains("3 sides for 2 pictures: give one for all, or one for each"));
    assert!(refused(&["--side", "2,x"]).contains("--side x: expected a number"));
}

#[test]
fn exit_codes_and_messages() {
    let weights = TempFile::new("codes.tvlm", &fake_file());
    let damaged = TempFile::new("codes-bad.tvlm", &{
        let mut bytes = fake_file();
        *bytes.last_mut().expect("not empty") ^= 1;
        bytes
    });
    let short = TempFile::new("codes.rgb", &[0; 5]);
    let binary = TempFile::new("codes.txt", b"caf\xe9");
    let rgb = format!("4x4:{}", path(&short));
    let huge = format!("4294967295x4294967295:{}", path(&short));
    let none = format!("0x0:{}", path(&short));
    let long = "x".repeat(500);
    let w = ["--weights", path(&weights)];
    let cases: &[(&[&str], u8, &str)] = &[
        (&["--help"], 0, ""),
        (&[&w[..], &["--verify"]].concat(), 0, ""),
        (&["--nonsense"], 2, "--nonsense: unknown option"),
        (&["--prompt"], 2, "--prompt needs a value"),
        (&["--json=yes"], 2, "--json takes no value"),
        (&["--threads", "many"], 2, "--threads many: expected a number"),
        (&["--rgb", "photo.rgb"], 2, "expected WxH:PATH"),
        (&["--rgb", "4by4:x"], 2, "\"4by4\" is no size"),
        (&["--bench", "0"], 2, "at least 1"),
        (&["--dump", "d"], 2, "--dump needs --prompt"),
        (&["--prompt", "a", "--prompt-file", "b"], 2, "exclude each other"),
        (&w, 2, "nothing to do"),
        (&[&w[..], &["--prompt", "x", "--threads", "0"]].concat(), 2, "threads: 0 is out of range"),
        (&[&w[..], &["--prompt", "x", "--level", "avx9"]].concat(), 2, "it has best, plain"),
        (&[&w[..], &["--prompt", "x", "--temperature", "NaN"]].concat(), 2, "temperature: "),
        (&["--weights", "/nowhere/w.tvlm", "--prompt", "x"], 3, "/nowhere/w.tvlm: cannot open: "),
        (&["--weights", path(&damaged), "--verify"], 3, "does not match its checksum"),
        (&["--weights", path(&damaged), "--prompt", "x"], 3, "does not match its checksum"),
        (&[&w[..], &["--prompt", ""]].concat(), 3, "the prompt is empty"),
        (&[&w[..], &["--prompt", &long]].concat(), 3, "positions with this prompt, the model has 200"),
        (&[&w[..], &["--prompt-file", path(&binary)]].concat(), 3, "not UTF-8 at byte 3"),
        (&[&w[..], &["--prompt", "x", "--rgb", &rgb]].concat(), 3, "5 bytes, expected 48 for 4x4 pixels"),
        (&[&w[..], &["--prompt", "x", "--rgb", &huge]].concat(), 3, "expected more than can exist"),
        (&[&w[..], &["--prompt", "x", "--rgb", &none]].concat(), 3, "expected 0 for 0x0"),
        (&[&w[..], &["--prompt", "x", "--level", "best"]].concat(), 4, "(best); this CPU lacks"),
    ];
    for (arguments, code, message) in cases {
        let (found, out, err) = host(arguments);
        assert_eq!((found, err.contains(message)), (*code, true), "{arguments:?}: {err}");
        assert!(*code == 0 || (out.is_empty() && err.starts_with("error: ") && err.lines().count() == 1), "{err}");
    }
}

/// An answer that the model did not end is told apart, unless that was asked for.
#[test]
fn answers_that_are_cut_off() {
    let weights = TempFile::new("cut.tvlm", &fake_file());
    let ask = |more: &[&str]| {
        let base = ["--weights", path(&weights), "--prompt", "x", "--max-new-tokens", "1"];
        let (code, _, err) = host(&[&base[..], more].concat());
        (code, err)
    };
    assert_eq!(ask(&[]), (0, "note: the answer was cut off by --max-new-tokens 1\n".into()));
    assert_eq!(ask(&["--max-new-tokens", "0"]), (0, String::new()));
    let many = "error: --speculate 16: at most 15 tokens are verified together; --help lists the options\n";
    assert_eq!(ask(&["--speculate", "16"]), (2, many.into()));
    for silent in ["--quiet", "--ignore-eos", "--json"] {
        assert_eq!(ask(&[silent]), (0, String::new()), "{silent}");
    }
}

/// Who stops reading (`| head`) is not told that something went wrong; a full disk is.
#[test]
fn output_that_cannot_be_written() {
    use std::io::ErrorKind;
    struct Failing(ErrorKind);
    impl std::io::Write for Failing {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let weights = TempFile::new("closed.tvlm", &fake_file());
    for (kind, code) in [(ErrorKind::BrokenPipe, 0), (ErrorKind::StorageFull, 4)] {
        let arguments = ["--weights", path(&weights), "--prompt", "x"].map(OsString::from);
        let mut err = Vec::new();
        assert_eq!(run::<Fake>(arguments.into_iter(), false, &mut Failing(kind), &mut err), code, "{kind}");
        assert_eq!(err.is_empty(), code == 0, "{kind}: {}", String::from_utf8_lossy(&err));
    }
}
