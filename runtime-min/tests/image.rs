//! Preprocessing of odd shapes, orientation, refusals, and the time it takes.

use std::time::Instant;

use runtime_min::image::{MAX_SIDE, preprocess};
use runtime_min::{ImagePolicy, Rgb8};

const BLACK: ImagePolicy = ImagePolicy::Pad { color: [0; 3] };

fn noise(n: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..n).map(|_| next()).collect()
}

#[test]
fn impossible_pictures_are_refused() {
    let check = |width, height, len: usize, part: &str| {
        let pixels = vec![0; len];
        let message = Rgb8::new(width, height, &pixels).expect_err("a refusal").to_string();
        assert!(message.contains(part), "{message}");
    };
    check(0, 5, 0, "0 x 5 pixels, expected at least one each way");
    check(5, 0, 0, "at least one each way");
    check(2, 2, 11, "2 x 2 pixels of 3 bytes are 12 bytes, not 11");
    check(2, 2, 16, "is it RGB");
    check(usize::MAX, usize::MAX, 0, "sides of 1048576 at most");
    check(MAX_SIDE + 1, 1, 0, "sides of");
    check(20_000, 20_000, 0, "178956970 at most");
    let pixels = [0; 3];
    let one = Rgb8::new(1, 1, &pixels).expect("one pixel");
    for side in [0, usize::MAX] {
        let message = preprocess(&one, side, &BLACK).expect_err("a refusal").to_string();
        assert!(message.contains("input side"), "{message}");
    }
    assert_eq!(one.oriented(0).expect_err("a refusal").code(), "image");
    assert!(one.oriented(9).is_err());
}

#[test]
fn one_pixel_fills_the_square() {
    let pixels = [10, 200, 30];
    let one = Rgb8::new(1, 1, &pixels).expect("one pixel");
    for policy in [BLACK, ImagePolicy::Crop] {
        for side in [1, 7, 64] {
            assert_eq!(preprocess(&one, side, &policy).expect("a result"), pixels.repeat(side * side));
        }
    }
}

/// Padding is only ever computed; here it is put around the picture by hand.
#[test]
fn padding_equals_a_padded_picture() {
    for (width, height) in [(5, 12), (12, 5), (1, 40), (40, 1), (33, 32), (31, 32), (9, 64), (200, 3)] {
        for color in [[0, 0, 0], [255, 255, 255], [127, 3, 240]] {
            let whole = width.max(height);
            let pixels = noise(width * height * 3);
            let mut square = color.repeat(whole * whole);
            for (row, pixels) in pixels.chunks_exact(width * 3).enumerate() {
                let at = ((row + (whole - height) / 2) * whole + (whole - width) / 2) * 3;
                square[at..at + width * 3].copy_from_slice(pixels);
            }
            for side in [1, 8, 32, 40, 100] {
                let image = Rgb8::new(width, height, &pixels).expect("a picture");
                let padded = Rgb8::new(whole, whole, &square).expect("a square");
                let found = preprocess(&image, side, &ImagePolicy::Pad { color }).expect("a result");
                let expected = preprocess(&padded, side, &ImagePolicy::Crop).expect("a result");
                assert!(found == expected, "{width} x {height} on {color:?} to {side}");
            }
        }
    }
}

#[test]
fn orientation_follows_exif() {
    // a b c
    // d e f
    let pixels: Vec<u8> = b"abcdef".iter().flat_map(|b| [*b; 3]).collect();
    let image = Rgb8::new(3, 2, &pixels).expect("a picture");
    let check = |orientation, width, expected: &str| {
        let picture = image.oriented(orientation).expect("a picture");
        let found: Vec<u8> = picture.view().pixels().chunks_exact(3).map(|pixel| pixel[0]).collect();
        assert_eq!(
            (picture.view().width(), String::from_utf8_lossy(&found).as_ref()),
            (width, expected),
            "{orientation}"
        );
    };
    check(1, 3, "abcdef");
    check(2, 3, "cbafed");
    check(3, 3, "fedcba");
    check(4, 3, "defabc");
    check(5, 2, "adbecf");
    check(6, 2, "daebfc");
    check(7, 2, "fcebda");
    check(8, 2, "cfbead");
}

#[test]
fn extreme_shapes_take_little_time() {
    let started = Instant::now();
    for (width, height) in [(20_000, 3), (3, 20_000), (MAX_SIDE, 1), (1, MAX_SIDE), (MAX_SIDE, 10), (10, MAX_SIDE)] {
        let pixels = noise(width * height * 3);
        let image = Rgb8::new(width, height, &pixels).expect("a picture");
        for policy in [BLACK, ImagePolicy::Crop] {
            let before = Instant::now();
            assert_eq!(preprocess(&image, 1024, &policy).expect("a result").len(), 1024 * 1024 * 3);
            println!("{width} x {height} {policy:?}: {:.1} ms", before.elapsed().as_secs_f64() * 1e3);
        }
    }
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn times() {
    for (width, height) in [(1024, 1024), (1024, 768), (640, 480), (1920, 1080), (4000, 3000)] {
        let pixels = noise(width * height * 3);
        let image = Rgb8::new(width, height, &pixels).expect("a picture");
        for policy in [BLACK, ImagePolicy::Crop] {
            let best = (0..3).map(|_| {
                let before = Instant::now();
                assert!(preprocess(&image, 1024, &policy).is_ok());
                before.elapsed()
            });
            println!("{width} x {height} {policy:?}: {:.1} ms", best.min().unwrap_or_default().as_secs_f64() * 1e3);
        }
    }
}
