//! What it costs to store the values between the regions of the tower in fewer bits: the same kernels, their results
//! rounded as each way of storing would.

use std::path::Path;

use kernels::{Elem, half};
use models::Recipe;
use models::recipe::Maps;
use tvlmc::frontend::{Checkpoint, OpenOptions};
use tvlmc::lower::Tap;
use tvlmc::pipeline::{Options, Prepared, prepare};
use tvlmc::simulate::Simulation;

/// A way to store a pixel's channels.
type Rounding = fn(&mut [f32]);

fn as_is(_: &mut [f32]) {}

fn to_halves(channels: &mut [f32]) {
    channels.iter_mut().for_each(|x| *x = f32::from_bits(half::widen(half::narrow(x.to_bits()))));
}

/// Bytes with one scale for a pixel.
fn to_bytes(channels: &mut [f32]) {
    let peak = channels.iter().fold(0f32, |peak, x| peak.max(x.abs()));
    let scale = peak / 127.0;
    if scale > 0.0 {
        channels.iter_mut().for_each(|x| *x = (*x / scale).round_ties_even() * scale);
    }
}

/// Pictures of the demo's questions, and pixels that no camera and no painter makes: a gradient with edges.
fn pictures(side: usize) -> Vec<Vec<f32>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo/eval/images");
    let shown = ["000.png", "006.png", "029.png"].map(|name| {
        let picture = image::open(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")).into_rgb8();
        let size = u32::try_from(side).expect("a side in pixels");
        let picture = image::imageops::resize(&picture, size, size, image::imageops::FilterType::CatmullRom);
        picture.into_raw().into_iter().map(f32::from).collect()
    });
    let pixel = |i: usize| ((i / 3 % side / 2 + i / (3 * side) / 3 + i % 3 * 40 + (i / 97 % 7) * 9) % 256) as f32;
    shown.into_iter().chain([(0..side * side * 3).map(pixel).collect()]).collect()
}

/// The picture's rows when every map is rounded after the step that makes it.
fn rows(picture: &[f32], prepared: &Prepared, packed: &[u32], maps: &[&str], round: Rounding) -> Vec<f32> {
    let program = &prepared.program;
    let mut sim = Simulation::new(program, &prepared.memory, 0, prepared.targets[0].as_ref(), packed);
    sim.picture(prepared.description.vision.side, picture);
    let mut rounded = 0;
    for step in &program.vision.steps {
        sim.step(step, (0, 0), 1).unwrap_or_else(|e| panic!("{e}"));
        if maps.contains(&step.name.as_str()) {
            let Tap { slot, channels, pitch, rows, .. } = step.result;
            for row in 0..rows {
                let mut values = sim.get(slot, row * pitch, channels);
                round(&mut values);
                sim.set(slot, row * pitch, &values);
            }
            rounded += 1;
        }
    }
    assert_eq!(rounded, maps.len());
    assert!(rounded > 5, "only {rounded} maps");
    sim.rows(program.io.image_rows, prepared.description.vision.tokens(), prepared.description.text.hidden)
}

fn snr_db(found: &[f32], expected: &[f32]) -> f64 {
    let power = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let signal = power(&mut expected.iter().map(|x| f64::from(*x)));
    let noise = power(&mut found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    10.0 * (signal / noise).log10()
}

#[test]
fn halves_cost_nothing_and_bytes_do() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
    let checkpoint = Checkpoint::open(&folder, &OpenOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let prepared = |recipe: &str, maps: Maps| {
        let recipe = Recipe { maps, ..Recipe::named(recipe).unwrap_or_else(|e| panic!("{e}")) };
        let options = Options { recipe: Some(&recipe), ..Options::default() };
        let prepared = prepare(&checkpoint, &options).unwrap_or_else(|e| panic!("{e}"));
        let packed = prepared.packed(&checkpoint).unwrap_or_else(|e| panic!("{e}"));
        (prepared, packed)
    };
    let (exact, weights) = prepared("f32", Maps::F32);
    let (halves, _) = prepared("int8", Maps::F16);
    let stored = halves.program.vision.steps.iter().filter(|step| step.result.elem == Elem::F16);
    let maps: Vec<&str> = stored.map(|step| step.name.as_str()).collect();
    let pictures = pictures(exact.description.vision.side);
    let all_rows = |prepared: &Prepared, packed: &[u32], round: Rounding| -> Vec<f32> {
        pictures.iter().flat_map(|picture| rows(picture, prepared, packed, &maps, round)).collect()
    };
    let expected = all_rows(&exact, &weights, as_is);
    let (quantized, packed) = prepared("int8", Maps::F32);
    let ways: [(&str, Rounding); 3] = [("32-bit floats", as_is), ("16-bit floats", to_halves), ("bytes", to_bytes)];
    let mut all = Vec::new();
    for (name, round) in ways {
        let alone = snr_db(&all_rows(&exact, &weights, round), &expected);
        let together = snr_db(&all_rows(&quantized, &packed, round), &expected);
        println!("maps of {name}: {alone:.1} dB with weights in floats, {together:.1} dB with weights of int8");
        all.push((alone, together));
    }
    assert!(all[1].0 > 50.0, "halves alone: {:.1} dB", all[1].0);
    assert!((all[0].1 - all[1].1).abs() < 0.5, "halves cost {:.1} dB", all[0].1 - all[1].1);
    assert!(all[0].1 - all[2].1 > 1.0, "bytes cost {:.1} dB: they would be worth another look", all[0].1 - all[2].1);
}
