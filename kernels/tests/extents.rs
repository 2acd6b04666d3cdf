//! Extents: exact where they can be, never too small, and a bound check that refuses.

use std::ops::Range;
use std::rc::Rc;

use codegen_avx2::Level;
use kernels::library::attention::{Attention, attend};
use kernels::library::cache::{Cache, GROUP};
use kernels::library::columns::{Columns, columns, gated};
use kernels::library::gemm::Init;
use kernels::library::linear::{Linear, Rows, linear};
use kernels::library::matrix::Format;
use kernels::library::rope::rope;
use kernels::library::{Schedule, head};
use kernels::{Builder, ExtentError, Int, Kernel, Memory, Var, extents, interpret};

fn check(kernel: &Kernel, sizes: &[(i64, i64)], expected: &[(&str, Range<i64>)]) {
    let found = extents(kernel, sizes).expect("extents");
    // The expectations count elements of four bytes.
    let words = |range: Range<i64>| {
        assert!(range.start % 4 == 0 && range.end % 4 == 0, "{}: {range:?}", kernel.name);
        range.start / 4..range.end / 4
    };
    let named: Vec<(&str, Range<i64>)> =
        kernel.pointers().map(|(name, _, _)| name).zip(found.into_iter().map(words)).collect();
    assert_eq!(named, expected, "{} with {sizes:?}", kernel.name);
}

/// `y[i + shift] = x[2 i]` for lines, with a broadcast and a copy of one element.
fn strided(shift: usize) -> Rc<Kernel> {
    let mut k = Builder::new("strided", &[]);
    let (x, y, unused) = (k.read("x"), k.write("y"), k.read("unused"));
    let n = k.size("n");
    k.each("i", 0usize, n.clone(), |k, i| {
        let v = k.load("v", x, i.clone() * 32usize);
        k.store(y, i * 16usize + shift, v);
    });
    k.copy_one(y, 0usize, x, n * 32usize);
    let _ = unused;
    k.finish()
}

#[test]
fn extents_of_a_loop_are_exact() {
    check(&strided(0), &[(3, 3)], &[("x", 0..97), ("y", 0..48), ("unused", 0..0)]);
    check(&strided(5), &[(1, 4)], &[("x", 0..129), ("y", 0..69), ("unused", 0..0)]);
    // An empty loop touches nothing; the copy touches its two elements.
    check(&strided(0), &[(0, 0)], &[("x", 0..1), ("y", 0..1), ("unused", 0..0)]);
}

#[test]
fn extents_follow_calls_and_branches() {
    let inner = strided(0);
    let mut k = Builder::new("outer", &[]);
    let (x, y) = (k.read("x"), k.write("y"));
    let n = k.size("n");
    k.if_less(
        n.clone(),
        10usize,
        |k| k.call(&inner, vec![(x, n.clone() * 100usize).into(), y.into(), x.into(), n.clone().into()]),
        |k| {
            let v = k.broadcast("v", x, 7usize);
            k.store_one(y, 500usize, v);
        },
    );
    let outer = k.finish();
    check(&outer, &[(2, 2)], &[("x", 200..265), ("y", 0..32)]);
    check(&outer, &[(10, 10)], &[("x", 7..8), ("y", 500..501)]);
    // Both branches, and a branch does not narrow `n`.
    check(&outer, &[(9, 10)], &[("x", 7..1321), ("y", 0..501)]);
}

#[test]
fn indices_that_may_be_negative_are_refused() {
    let mut k = Builder::new("back", &[]);
    let (x, y) = (k.read("x"), k.write("y"));
    let n = k.size("n");
    k.copy_one(y, 0usize, x, n - 4usize);
    let back = k.finish();
    check(&back, &[(4, 9)], &[("x", 0..6), ("y", 0..1)]);
    let negative = ExtentError::Negative("back".to_string(), "x".to_string());
    assert_eq!(extents(&back, &[(3, 9)]), Err(negative));
    assert_eq!(extents(&back, &[]), Err(ExtentError::Sizes("back".to_string(), 1, 0)));
}

/// What the compiler does: a slot must hold all of the extent.
fn fits(kernel: &Kernel, sizes: &[i64], slots: &[usize]) -> bool {
    let sizes: Vec<(i64, i64)> = sizes.iter().map(|n| (*n, *n)).collect();
    extents(kernel, &sizes).expect("extents").iter().zip(slots).all(|(e, slot)| e.end <= 4 * *slot as i64)
}

/// Whether the interpreter gets through with buffers of these sizes.
fn runs(kernel: &Kernel, sizes: &[i64], slots: &[usize]) -> bool {
    let mut memory = Memory::default();
    let places: Vec<_> = slots.iter().map(|n| memory.zeros(*n)).collect();
    interpret(kernel, &mut memory, &places, sizes).is_ok()
}

/// With `slots` all is well; one element less in any of them is refused, and rightly so.
fn check_bounds(kernel: &Kernel, sizes: &[i64], slots: &[usize]) {
    assert!(fits(kernel, sizes, slots) && runs(kernel, sizes, slots), "{} is refused", kernel.name);
    for i in 0..slots.len() {
        let mut less = slots.to_vec();
        less[i] -= 1;
        let name = kernel.pointers().nth(i).map_or("?", |p| p.0);
        assert!(!fits(kernel, sizes, &less), "{}: {name} one short is not refused", kernel.name);
        assert!(!runs(kernel, sizes, &less), "{}: {name} one short is enough", kernel.name);
    }
}

#[test]
fn a_slot_one_element_short_is_refused() {
    let s = Schedule::new(&Level::V3);
    let l = Linear { gelu: true, strip: 8, ..Linear::new(20, 33, Format::F32, Rows::UpTo(19)) };
    // The last row of `x` is read up to its 20 channels; rows of `y` are whole lines.
    check_bounds(&linear(&s, &l), &[19, 0, 3], &[18 * 32 + 20, 3 * 20 * 16, 48, 19 * 48]);
    check_bounds(&linear(&s, &l), &[7, 0, 1], &[6 * 32 + 20, 3 * 20 * 16, 48, 7 * 48]);
    check_bounds(&head::embed(Format::F32, 48, 40), &[39], &[2 * 48 * 16 + 47 * 16 + 8, 48]);
    check_bounds(&head::argmax(40), &[0, 1], &[48, 1]);
    let a = Attention { heads: 2, kv_heads: 1, head_dim: 32, capacity: 20, causal: true, cache: Cache::F32 };
    let values = 128 * 16 + 20 * 16;
    let rope_slots = [3 * 128 + 128, 20 * 16, 20 * 16, 32 * 16 + 31 * 16 + 4, values];
    check_bounds(&rope(&a, Rows::UpTo(4)), &[16, 4, 0, 1], &rope_slots);
}

#[test]
fn extents_of_bytes_and_views() {
    let mut k = Builder::new("bytes", &[]);
    let y = k.write_i8("y");
    let n = k.size("n");
    let line = k.load("line", y, n.clone());
    k.store(y, n.clone() + 5usize, line);
    let one = k.broadcast("one", y, n + 40usize);
    k.store_one(y, 2usize, one);
    let bytes = k.finish();
    assert_eq!(extents(&bytes, &[(3, 3)]).expect("extents")[0], 2..44);
    assert_eq!(extents(&bytes, &[(0, 9)]).expect("extents")[0], 0..50);
    // A caller counts in its own elements: words here.
    let mut k = Builder::new("caller", &[]);
    let (x, y) = (k.write("x"), k.write_u32("y"));
    k.call(&bytes, vec![(x, Int::from(100usize)).into(), Int::from(3usize).into()]);
    k.call(&bytes, vec![(y, Int::from(2usize)).into(), Int::from(0usize).into()]);
    assert_eq!(extents(&k.finish(), &[]), Ok(vec![402..444, 8..49]));
}

#[test]
fn a_slot_of_quantized_operands_one_word_short_is_refused() {
    let s = Schedule::new(&Level::V4Vnni);
    let (inputs, outputs, rows) = (48, 33, Rows::UpTo(19));
    let format = Format::Bytes { block: 16 };
    let l = Linear { gelu: true, strip: 8, ..Linear::new(inputs, outputs, format, rows) };
    // A row in scratch: 12 words of bytes, three scales, three sums, up to 32.
    let slots = [19 * 48, 3 * 12 * 16, 48, 48, 19 * 48, 7 * 32 + 18];
    check_bounds(&linear(&s, &l), &[19, 0, 3], &slots);
    assert!(slots[5] <= l.scratch(8));
    // The same of 4 bits: 32 words of bytes, a scale, eight sums and one, up to 48.
    let c = Columns { inputs, outputs, format: Format::Nibbles, init: Init::Zero, rows };
    let slots = [18 * 48 + 42, 3 * 17 * 16, 48, 19 * 48, 2 * 32 * 16];
    check_bounds(&columns(&s, &c), &[19, 0, 1], &slots);
    assert!(slots[4] <= c.scratch());
    // Quads of eight channels of the third line, its eighth lane.
    check_bounds(&head::embed(Format::Nibbles, 48, 40), &[39], &[2 * 272 + 16 + 5 * 16 + 8, 40, 48]);
    check_bounds(&head::embed(format, 48, 40), &[39], &[2 * 192 + 11 * 16 + 8, 40, 48]);
}

/// At the sizes of the decoders that are compiled: scratch is as large as its owner says, rows and
/// units may be any.
#[test]
fn quantized_kernels_of_real_sizes_fit_their_scratch() {
    let s = Schedule::new(&Level::V4Vnni);
    for (inputs, hidden) in [(896, 4864), (1536, 8960), (3584, 18944)] {
        for format in [Format::Bytes { block: 128 }, Format::Nibbles] {
            let most = 300;
            let c = Columns { inputs, outputs: hidden, format, init: Init::Zero, rows: Rows::UpTo(most) };
            let (blocks, units) = (c.blocks() as i64, c.units() as i64);
            let rows = most as i64;
            for sizes in [[(rows, rows), (0, 0), (blocks, blocks)], [(rows, rows), (5, 5), (6, 6)]] {
                let found = extents(&gated(&s, &c), &sizes).unwrap_or_else(|e| panic!("{c:?}: {e}"));
                assert!(found[4].end as usize <= 4 * c.gated_scratch(), "{c:?}: {found:?}");
            }
            let found = extents(&columns(&s, &c), &[(rows, rows), (0, 0), (units, units)]).expect("extents");
            let panel = if format == Format::Nibbles { found[4].end as usize } else { 0 };
            assert!(panel <= 4 * c.scratch(), "{c:?}: {found:?}");
            let table = extents(&head::embed(format, inputs, 1000), &[(0, 999)]).expect("extents");
            assert!(table[0].end as usize <= 4 * 63 * format.line_words(inputs), "{table:?}");
            assert_eq!(table[2], 0..4 * inputs as i64);
        }
    }
}

/// A kernel for a larger map than the plan's: every slot of it is too small.
#[test]
fn a_kernel_that_is_too_large_is_refused() {
    let s = Schedule::new(&Level::V4);
    let made = |rows: usize, outputs: usize| {
        let l = Linear { init: Init::Zero, strip: 8, ..Linear::new(16, outputs, Format::F32, Rows::Fixed(rows)) };
        linear(&s, &l)
    };
    let slots = [16 * 16, 32 * 16, 16 * 32];
    assert!(fits(&made(16, 32), &[0, 2], &slots));
    for (rows, outputs) in [(17, 32), (16, 33), (24, 16)] {
        let kernel = made(rows, outputs);
        let units = rows.div_ceil(8) as i64;
        assert!(!fits(&kernel, &[0, units], &slots), "{rows} rows, {outputs} outputs");
        assert!(!runs(&kernel, &[0, units], &slots), "{rows} rows, {outputs} outputs");
    }
}

/// The compiler asks once, at the largest sizes: smaller ones must stay inside.
#[test]
fn the_largest_sizes_cover_all_others() {
    let s = Schedule::new(&Level::V3);
    let a = |cache| Attention { heads: 4, kv_heads: 2, head_dim: 32, capacity: 140, causal: true, cache };
    let (most, block) = (12, 8);
    let both = |a: Attention| [(attend(&s, &a, Rows::UpTo(most), block), true), (rope(&a, Rows::UpTo(most)), false)];
    let kernels = [Cache::F32, Cache::F16, Cache::Int8].map(|cache| both(a(cache)));
    let a = a(Cache::F32);
    for (kernel, by_heads) in kernels.into_iter().flatten() {
        let sizes = |start: usize, rows: usize| {
            let units = if by_heads { a.kv_heads * rows.div_ceil(block) } else { rows.div_ceil(GROUP) };
            [start, rows, 0, units].map(|n| n as i64).to_vec()
        };
        let of = |sizes: Vec<i64>| {
            let sizes: Vec<(i64, i64)> = sizes.into_iter().map(|n| (n, n)).collect();
            extents(&kernel, &sizes).expect("extents")
        };
        let largest = of(sizes(a.capacity - most, most));
        for rows in 1..=most {
            for start in (0..=a.capacity - rows).step_by(7) {
                for (all, one) in largest.iter().zip(of(sizes(start, rows))) {
                    assert!(one.end <= all.end, "{}: {rows} rows from {start} touch {one:?}, {all:?}", kernel.name);
                }
            }
        }
    }
}

/// A random expression on two variables.
fn expression(state: &mut u64, depth: usize) -> Int {
    let mut draw = |n: u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % n
    };
    let (what, constant, var) = (draw(if depth == 0 { 2 } else { 9 }), draw(20) as usize, draw(2) as u32);
    let mut deeper = || expression(state, depth - 1);
    match what {
        0 => Int::from(constant),
        1 => Int::from(Var(var)),
        2 | 3 => deeper() + deeper(),
        4 => deeper() - deeper(),
        5 => deeper() * deeper(),
        6 => deeper() / (constant as i64 + 1),
        7 => deeper() % (constant as i64 + 1),
        _ if var == 0 => deeper().min(deeper()),
        _ => deeper().max(deeper()),
    }
}

#[test]
fn intervals_hold_every_value() {
    let mut state = 1;
    for _ in 0..4000 {
        let e = expression(&mut state, 4);
        let (low, high) = e.interval(&|v| if v.0 == 0 { (0, 6) } else { (3, 9) });
        for a in 0..=6 {
            for b in 3..=9 {
                if let Some(value) = e.eval(&|v| if v.0 == 0 { a } else { b }) {
                    assert!((low..=high).contains(&value), "{e:?} is {value} at {a}, {b}, not in {low}..={high}");
                }
            }
        }
    }
}
