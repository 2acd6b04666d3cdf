//! The weight file that the compiler writes is the one that the runtime reads.

use runtime_min::weights::{Expect, Residence, Verify, WeightFile};
use tempfile::TempDir;
use tvlmc::weightfile::WeightFileWriter;

const DIGEST: [u8; 32] = [7; 32];

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32 * 0.25).collect()
}

/// Writes a file with both sections; the second in pieces of `piece` values.
fn write(dir: &TempDir, name: &str, n: usize, piece: usize) -> (std::path::PathBuf, u64) {
    let path = dir.path().join(name);
    let mut writer = WeightFileWriter::create(&path, DIGEST).expect("a new file");
    writer.reserve(1 << 22).expect("room");
    writer.section("tokenizer", b"some tables").expect("a section");
    writer.begin("weights").expect("a section");
    assert_eq!(writer.position(), 0);
    writer.write(&[1, 2, 3]).expect("written");
    assert_eq!(writer.align(64).expect("aligned"), 64);
    assert_eq!(writer.align(64).expect("aligned"), 64);
    for part in values(n).chunks(piece) {
        let bits: Vec<u32> = part.iter().map(|value| value.to_bits()).collect();
        writer.write_u32(&bits).expect("written");
    }
    assert_eq!(writer.position(), 64 + 4 * n as u64);
    let bytes = writer.finish().expect("finished");
    (path, bytes)
}

#[test]
fn the_runtime_reads_it() {
    let dir = TempDir::new().expect("a temporary folder");
    for (n, piece) in [(0, 1), (1, 1), (1000, 7), (700_000, 300_000), (700_000, 4096)] {
        let (path, bytes) = write(&dir, &format!("{n}-{piece}"), n, piece);
        assert_eq!(std::fs::metadata(&path).expect("a file").len(), bytes);
        let expect = Expect { model: "test", digest: DIGEST };
        for residence in [Residence::Copied, Residence::Mapped] {
            let file = WeightFile::open(&path, &expect, Verify::Full, residence).expect("a sound file");
            assert_eq!(file.section("tokenizer", 11).expect("a section"), b"some tables");
            let weights = file.section("weights", 64).expect("a section");
            assert_eq!(&weights[..4], [1, 2, 3, 0]);
            assert!(
                weights[64..].chunks(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).eq(values(n))
            );
            assert_eq!(weights.as_ptr() as usize % 64, 0);
        }
        let other = Expect { model: "test", digest: [8; 32] };
        assert!(WeightFile::open(&path, &other, Verify::Header, Residence::Copied).is_err());
    }
}

#[test]
fn pieces_do_not_change_the_bytes() {
    let dir = TempDir::new().expect("a temporary folder");
    let (a, _) = write(&dir, "a", 600_001, 600_001);
    let (b, _) = write(&dir, "b", 600_001, 12345);
    assert!(std::fs::read(a).expect("a file") == std::fs::read(b).expect("a file"));
}

#[test]
fn a_file_that_was_not_finished_is_none() {
    let dir = TempDir::new().expect("a temporary folder");
    let path = dir.path().join("weights.tvlm");
    let mut writer = WeightFileWriter::create(&path, DIGEST).expect("a new file");
    writer.begin("weights").expect("a section");
    writer.write(&vec![1; 3 << 20]).expect("written");
    drop(writer);
    let expect = Expect { model: "test", digest: DIGEST };
    assert!(WeightFile::open(&path, &expect, Verify::Header, Residence::Copied).is_err());
    // Nothing is written over.
    let error = WeightFileWriter::create(&path, DIGEST).map(drop).expect_err("it exists");
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().contains("cannot create") && error.to_string().contains("weights.tvlm"), "{error}");
}

#[test]
fn misuse_is_a_bug_not_a_broken_file() {
    let dir = TempDir::new().expect("a temporary folder");
    let mut writer = WeightFileWriter::create(&dir.path().join("w"), DIGEST).expect("a new file");
    assert_eq!(writer.write(&[1]).expect_err("no section").exit_code(), 101);
    writer.section("a", &[1]).expect("a section");
    assert_eq!(writer.write(&[1]).expect_err("ended").exit_code(), 101);
    assert_eq!(writer.begin("a").expect_err("a name twice").exit_code(), 101);
    assert_eq!(writer.begin(&"n".repeat(33)).expect_err("a long name").exit_code(), 101);
    for i in 0..61 {
        writer.section(&format!("s{i}"), &[]).expect("a section");
    }
    assert_eq!(writer.begin("more").expect_err("a full table").exit_code(), 101);
}

/// A disk without room, where this machine has one.
#[test]
fn a_full_disk_is_the_environments_fault() {
    let full = std::path::Path::new("/dev/full");
    if !full.exists() {
        println!("skipped: there is no /dev/full");
        return;
    }
    let error = std::fs::write(full, b"x").expect_err("full");
    let error = tvlmc::Error::io("write", full)(error);
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().starts_with("cannot write /dev/full: No space left on device"), "{error}");
}
