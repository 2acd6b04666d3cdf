//! Replays the corpora, without a fuzzer.

#[test]
fn corpora_replay() {
    for (name, target) in tvlmc_fuzz::TARGETS {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut files: Vec<_> = std::fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
            .map(|entry| entry.expect("readable").path())
            .collect();
        files.sort();
        for file in &files {
            // A crash ends the test with this as its last words.
            println!("{}", file.display());
            target(&std::fs::read(file).expect("readable"));
        }
        assert!(files.len() > 5, "{name}: {} inputs", files.len());
    }
}
