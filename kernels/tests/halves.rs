//! 16-bit floats: widened by loads, rounded by stores, on every target as it is legalized.

use codegen_avx2::Level;
use codegen_neon::Level::Neon;
use codegen_wasm::Simd128;
use kernels::{Builder, Elem, LANES, Memory, ParamKind, Target, interpret, legalize, verify};

const TARGETS: [&dyn Target; 7] =
    [&Level::V3, &Level::V4, &Level::V3Exact, &Level::V3Vnni, &Level::V4Vnni, &Neon, &Simd128];

/// A 16-bit float's value, from what its fields mean.
fn value(half: u16) -> f32 {
    let (sign, exponent, fraction) = (half >> 15, i32::from(half >> 10 & 31), f64::from(half & 0x3ff) / 1024.0);
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-14),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction) * 2f64.powi(exponent - 15),
    };
    let magnitude = magnitude as f32;
    if sign == 1 { -magnitude } else { magnitude }
}

/// Two 16-bit floats in a word.
fn words(halves: &[u16]) -> Vec<u32> {
    halves.chunks(2).map(|pair| u32::from(pair[0]) | u32::from(*pair.get(1).unwrap_or(&0)) << 16).collect()
}

/// Runs a kernel over lines of `n` elements as it is and on every target.
fn on_all(
    build: impl Fn(&mut Builder),
    memory: impl Fn() -> (Memory, Vec<kernels::Place>),
    check: impl Fn(&str, &Memory),
) {
    let mut k = Builder::new("halves", &[]);
    build(&mut k);
    let lines = k.finish();
    verify(&lines).expect("sound");
    let legalized = TARGETS.map(|t| (t.level(), legalize(&lines, t)));
    for (level, kernel) in legalized.iter().chain([&("lines", lines.clone())]) {
        verify(kernel).unwrap_or_else(|e| panic!("{level}: {e}"));
        let (mut memory, places) = memory();
        interpret(kernel, &mut memory, &places, &[]).expect("in range");
        check(level, &memory);
    }
}

#[test]
fn every_half_is_widened_exactly() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    on_all(
        |k| {
            let (x, y, one) = (k.read_floats("x", Elem::F16), k.write("y"), k.write("one"));
            k.each("i", 0usize, all.len() / LANES, |k, i| {
                let v = k.load("v", x, i.clone() * LANES);
                k.store(y, i.clone() * LANES, v);
                let flat = k.broadcast("flat", x, i.clone() * LANES + 3usize);
                k.store(one, i * LANES, flat);
            });
        },
        || {
            let mut memory = Memory::default();
            let places = vec![memory.words(&words(&all)), memory.zeros(all.len()), memory.zeros(all.len())];
            (memory, places)
        },
        |level, memory| {
            for &half in &all {
                let want = value(half);
                let same = |bits: u32, half: u16, want: f32| {
                    // A NaN is quiet and keeps its sign and payload.
                    let nan = (u32::from(half) & 0x8000) << 16 | 0x7fc0_0000 | (u32::from(half) & 0x3ff) << 13;
                    assert_eq!(bits, if want.is_nan() { nan } else { want.to_bits() }, "{half:#06x} at {level}");
                };
                same(memory.buffers[1][half as usize], half, want);
                let third = half / 16 * 16 + 3;
                same(memory.buffers[2][half as usize], third, value(third));
            }
        },
    );
}

/// Floats and the 16-bit floats they become.
fn corners() -> Vec<(f32, u16)> {
    let mut all = Vec::new();
    for half in 0..0x7c00u16 {
        let low = value(half);
        all.push((low, half));
        // Halfway to the next, or to where the next after the largest would be.
        let high = if half == 0x7bff { 65536.0 } else { value(half + 1) };
        let tie = (low + high) / 2.0;
        all.push((tie, half + half % 2));
        all.push((tie.next_down(), half));
        all.push((tie.next_up(), half + 1));
    }
    all.extend([(f32::MIN_POSITIVE, 0), (f32::from_bits(1), 0), (f32::MAX, 0x7c00), (f32::INFINITY, 0x7c00)]);
    // The upper bits of a payload stay; a signaling NaN becomes quiet.
    all.extend([0x7fc0_0000, 0x7f80_0001, 0x7faa_bcde, 0x7fff_ffff].map(|bits: u32| {
        let payload = (bits >> 13 & 0x3ff) as u16;
        (f32::from_bits(bits), 0x7e00 | payload)
    }));
    let negative: Vec<(f32, u16)> = all.iter().map(|(x, half)| (-x, half | 0x8000)).collect();
    all.extend(negative);
    all.resize(all.len().next_multiple_of(LANES), (0.0, 0));
    all
}

#[test]
fn stores_round_to_the_nearest_even() {
    let corners = corners();
    let floats: Vec<f32> = corners.iter().map(|(x, _)| *x).collect();
    let want = words(&corners.iter().map(|(_, half)| *half).collect::<Vec<_>>());
    on_all(
        |k| {
            let (x, y) = (k.read("x"), k.write_floats("y", Elem::F16));
            k.each("i", 0usize, corners.len() / LANES, |k, i| {
                let v = k.load("v", x, i.clone() * LANES);
                k.store(y, i * LANES, v);
            });
        },
        || {
            let mut memory = Memory::default();
            let places = vec![memory.floats(&floats), memory.zeros(want.len())];
            (memory, places)
        },
        |level, memory| {
            let differ = memory.buffers[1].iter().zip(&want).position(|(a, b)| a != b);
            assert_eq!(differ, None, "at {level}, floats {:?}", differ.map(|i| &corners[2 * i..2 * i + 2]));
        },
    );
}

/// An odd place, one element, a register that is the same in all lanes.
#[test]
fn places_and_single_elements() {
    on_all(
        |k| {
            let (x, y) = (k.read("x"), k.write_floats("y", Elem::F16));
            let line = k.load("line", x, 0usize);
            k.store(y, 1usize, line);
            k.store_one(y, 18usize, line);
            let flat = k.splat("flat", 1.5);
            k.store(y, 20usize, flat);
            let own = k.load("own", y, 1usize);
            let sum = k.add("sum", own, flat);
            k.store(y, 37usize, sum);
        },
        || {
            let mut memory = Memory::default();
            let line: Vec<f32> = (0..LANES).map(|i| i as f32 * 0.25).collect();
            let places = vec![memory.floats(&line), memory.words(&[0xffff_ffff; 27])];
            (memory, places)
        },
        |level, memory| {
            let halves: Vec<f32> =
                memory.buffers[1].iter().flat_map(|w| [value(*w as u16), value((w >> 16) as u16)]).collect();
            let line: Vec<f32> = (0..LANES).map(|i| i as f32 * 0.25).collect();
            let more: Vec<f32> = line.iter().map(|x| x + 1.5).collect();
            let kept = [0, 17, 19, 36, 53].map(|i: usize| halves[i].is_nan());
            assert_eq!(kept, [true; 5], "beside what is written, at {level}");
            assert_eq!(halves[1..17], line, "{level}");
            assert_eq!(halves[18], 0.0, "{level}");
            assert_eq!(halves[20..36], [1.5; LANES], "{level}");
            assert_eq!(halves[37..53], more, "{level}");
        },
    );
}

/// What cannot convert moves bits: no pointer to 16-bit floats is left, and none where it can is changed.
#[test]
fn targets_without_conversions_move_bits() {
    let mut k = Builder::new("halves", &[]);
    let (x, y) = (k.read_floats("x", Elem::F16), k.write_floats("y", Elem::F16));
    let v = k.load("v", x, 0usize);
    k.store(y, 0usize, v);
    let lines = k.finish();
    for target in TARGETS {
        let want = if target.converts_halves() { Elem::F16 } else { Elem::U16 };
        let kernel = legalize(&lines, target);
        let elements = kernel.params.iter().map(|p| match p.kind {
            ParamKind::Ptr(_, elem, _) => Some(elem),
            ParamKind::Size(_) => None,
        });
        assert_eq!(elements.collect::<Vec<_>>(), [Some(want); 2], "{}", target.level());
    }
    assert!(Neon.converts_halves() && !Simd128.converts_halves() && Level::V3Exact.converts_halves());
}
