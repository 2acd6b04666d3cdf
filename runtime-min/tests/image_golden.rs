//! Preprocessing against Pillow's bytes.

use std::path::{Path, PathBuf};

use runtime_min::image::preprocess;
use runtime_min::{ImagePolicy, Rgb8};

/// Compares every record of a file: u32 width, height, side, policy (0 crop, 1 black pad), input bytes, output bytes.
fn check(path: &Path, file: &[u8]) {
    let mut rest = file;
    let (mut pictures, mut pixels, mut wrong) = (0, 0, 0);
    while !rest.is_empty() {
        let word = |rest: &mut &[u8]| {
            let (word, after) = rest.split_first_chunk::<4>().expect("a whole record");
            *rest = after;
            u32::from_le_bytes(*word) as usize
        };
        let [width, height, side, policy] = [(); 4].map(|()| word(&mut rest));
        let (input, after) = rest.split_at(width * height * 3);
        let (expected, after) = after.split_at(side * side * 3);
        rest = after;
        let policy = if policy == 0 { ImagePolicy::Crop } else { ImagePolicy::Pad { color: [0; 3] } };
        let image = Rgb8::new(width, height, input).expect("a valid picture");
        let found = preprocess(&image, side, &policy).expect("a result");
        let differ = found.iter().zip(expected).filter(|(a, b)| a != b).count();
        if differ > 0 || found.len() != expected.len() {
            println!("{width} x {height} to {side}, {policy:?}: {differ} of {} bytes differ", expected.len());
        }
        wrong += differ;
        pictures += 1;
        pixels += side * side;
    }
    println!("{}: {pictures} pictures, {pixels} pixels, {wrong} bytes differ", path.display());
    assert_eq!(wrong, 0, "bytes that differ");
}

#[test]
fn small_pictures_are_pillows_bytes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pixels-small.bin");
    check(&path, &std::fs::read(&path).expect("tests/data/pixels-small.bin"));
}

/// `pixels.bin` in the folder of large references, which is made on demand and not part of the repository.
#[test]
fn large_pictures_are_pillows_bytes() {
    let home = || Some(Path::new(&std::env::var_os("HOME")?).join(".cache/tvlmc/oracle"));
    let path = std::env::var_os("TVLMC_ORACLE").map(PathBuf::from).or_else(home).unwrap_or_default().join("pixels.bin");
    match std::fs::read(&path) {
        Ok(file) => check(&path, &file),
        Err(_) => println!("skipped: {} is missing", path.display()),
    }
}
