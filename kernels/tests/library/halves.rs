//! Maps of 16-bit floats: a kernel on them gives what the same kernel gives on 32-bit floats of the same values,
//! rounded once, at every level.

use std::rc::Rc;

use kernels::library::Schedule;
use kernels::library::conv::{self, Map, Stem};
use kernels::library::depthwise::Shape;
use kernels::library::gemm::Init;
use kernels::library::linear::{self, Linear, Norm, Rows};
use kernels::library::matrix::Format;
use kernels::library::two_layer::{Activation, TwoLayer};
use kernels::{Access, Elem, Kernel, Memory, ParamKind, Place, extents, half, interpret, legalize, verify};

use crate::case::{exact_targets, odd_schedules};
use crate::data::noise;

const BYTES: Format = Format::Bytes { block: 32 };

/// Runs `kernel` on noise, `units` of work. `maps` says whose values are those of 16-bit floats, however they are stored.
/// Returns what each pointer holds afterwards.
fn run(kernel: &Kernel, maps: &[bool], units: usize) -> Vec<Vec<u32>> {
    let sizes: Vec<(i64, i64)> = kernel
        .params
        .iter()
        .filter(|p| matches!(p.kind, ParamKind::Size(_)))
        .map(|p| if p.name == "last" { (units as i64, units as i64) } else { (0, 0) })
        .collect();
    let touched = extents(kernel, &sizes).expect("extents");
    let mut memory = Memory::default();
    for (i, ((_, elem, access), touched)) in kernel.pointers().zip(&touched).enumerate() {
        let n = touched.end as usize / elem.bytes();
        let values = noise(70 + i as u64, n);
        let words: Vec<u32> = match elem {
            Elem::U32 => values.iter().map(|x| x.to_bits().wrapping_mul(0x9e37_79b9) & 0x7f7f_7f7f).collect(),
            _ if access == Access::Write => vec![0; n],
            _ if maps[i] => values.iter().map(|x| half::widen(half::narrow(x.to_bits()))).collect(),
            _ => values.iter().map(|x| x.to_bits()).collect(),
        };
        memory.buffers.push(if elem.bytes() == 2 { packed(&words) } else { words });
    }
    let places: Vec<Place> = (0..memory.buffers.len()).map(|buffer| Place { buffer, at: 0 }).collect();
    let sizes: Vec<i64> = sizes.iter().map(|(n, _)| *n).collect();
    interpret(kernel, &mut memory, &places, &sizes).unwrap_or_else(|e| panic!("{}: {e}", kernel.name));
    memory.buffers
}

/// Two halves in a word.
fn packed(floats: &[u32]) -> Vec<u32> {
    floats.chunks(2).map(|two| two.iter().rev().fold(0, |word, x| word << 16 | half::narrow(*x))).collect()
}

/// `build` makes a kernel whose maps are stored as it is told, with the names of its maps; `units` is its work.
fn check(build: &dyn Fn(Elem, &Schedule) -> Rc<Kernel>, units: usize) {
    let own: Vec<Schedule> = exact_targets().iter().map(|t| Schedule::new(t.as_ref())).collect();
    let mut compared = 0;
    for s in own.iter().chain(&odd_schedules()) {
        let (wide, narrow) = (build(Elem::F32, s), build(Elem::F16, s));
        let maps: Vec<bool> = narrow.pointers().map(|(_, elem, _)| elem == Elem::F16).collect();
        assert!(maps.contains(&true), "{} has a map", narrow.name);
        for target in &exact_targets() {
            let [wide, narrow] = [&wide, &narrow].map(|kernel| {
                verify(kernel).unwrap_or_else(|e| panic!("{}: {e}", kernel.name));
                legalize(kernel, target.as_ref())
            });
            let (expected, found) = (run(&wide, &maps, units), run(&narrow, &maps, units));
            let operands = narrow.pointers().zip(&maps).zip(expected.iter().zip(&found));
            for (((name, _, access), map), (expected, found)) in operands {
                if *map && access == Access::Write {
                    let expected = packed(expected);
                    let differs = expected.iter().zip(found).position(|(a, b)| a != b);
                    let who = format!("{}: {name} at {}", narrow.name, target.level());
                    assert_eq!((expected.len(), differs), (found.len(), None), "{who}: first word that differs");
                    assert!(found.iter().filter(|word| **word != 0).count() > found.len() / 2, "{}", narrow.name);
                    compared += 1;
                }
            }
        }
    }
    println!("{compared} results compared");
}

fn map(channels: usize, multiplier: usize, (kernel, stride): (usize, usize), from: Elem, to: Elem) -> Map {
    Map { row: Shape { channels, multiplier, kernel, stride, width: 13, from, to }, height: 6 }
}

#[test]
fn depthwise_convolutions() {
    for (kernel, stride) in [(3, 1), (7, 1), (7, 2)] {
        check(&|maps, s| conv::depthwise_map(s, &map(17, 1, (kernel, stride), maps, maps)), 6 / stride);
    }
    // The final convolution's result is of 32-bit floats: nothing is rounded.
    let to_floats = |maps| map(16, 2, (3, 1), maps, Elem::F32);
    let s = odd_schedules()[0];
    let [wide, narrow] = [Elem::F32, Elem::F16].map(|maps| conv::depthwise_map(&s, &to_floats(maps)));
    let maps = [true, false, false, false];
    let [wide, narrow] = [wide, narrow].map(|kernel| run(&kernel, &maps, 6));
    assert!(wide[3] == narrow[3]);
}

#[test]
fn regions_of_convolutions() {
    let s = odd_schedules()[0];
    let two = TwoLayer::new((48, 80), Activation::Gelu, BYTES, 2 * 13, s.strip_bytes);
    check(&|maps, s| conv::conv_ffn(s, &map(48, 1, (7, 1), maps, Elem::F32), &two, 2), 3);
    for channels in [33, 40] {
        check(&|maps, s| conv::patch_embed(s, &map(20, 2, (7, 2), maps, Elem::F32), BYTES, channels, 1), 3);
    }
    check(&|maps, s| conv::stem(s, &Stem { side: 18, channels: 17, strip: 1, format: BYTES, to: maps }), 5);
    check(&|maps, s| conv::stem(s, &Stem { side: 16, channels: 16, strip: 2, format: BYTES, to: maps }), 2);
}

#[test]
fn rows_of_attention() {
    let l = |from, to, norm, init| Linear {
        norm,
        inputs: 48,
        outputs: 64,
        format: BYTES,
        init,
        gelu: false,
        rows: Rows::Fixed(21),
        strip: 8,
        from,
        to,
    };
    check(&|maps, s| linear::linear(s, &l(Elem::F32, maps, None, Init::BiasResidual)), 3);
    let norm = Some(Norm::Layer { eps: 1e-5 });
    let s = odd_schedules()[0];
    let [wide, narrow] = [Elem::F32, Elem::F16].map(|maps| linear::linear(&s, &l(maps, Elem::F32, norm, Init::Bias)));
    let maps: Vec<bool> = narrow.pointers().map(|(name, _, _)| name == "x").collect();
    let y = narrow.pointers().position(|(name, _, _)| name == "y").expect("a result");
    let [wide, narrow] = [wide, narrow].map(|kernel| run(&kernel, &maps, 3));
    assert!(wide[y] == narrow[y]);
}
