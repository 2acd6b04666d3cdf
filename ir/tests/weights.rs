//! Weight expressions: slices equal the whole, arithmetic is what it says, text reads back.

use ir::{ColumnOrder, MemorySource, SourceError, TensorSource, WeightId, WeightOp, Weights};
use proptest::prelude::*;

/// Tensors of small integers, so that all arithmetic is exact.
fn tensor(weights: &mut Weights, source: &mut MemorySource, shape: &[usize]) -> WeightId {
    let name = format!("t{}", source.names().count());
    let n: usize = shape.iter().product();
    let start = source.names().count() * 7;
    source.insert(name.clone(), shape.to_vec(), (0..n).map(|i| ((start + i * 5) % 17) as f32 - 8.0).collect());
    weights.tensor(name, shape)
}

/// Grows an arena by ops chosen by `choices`; every expression stays a matrix `[rows, cols]`
/// with `rows` even.
fn grow(choices: &[u8]) -> (Weights, MemorySource) {
    let (mut w, mut s) = (Weights::new(), MemorySource::default());
    let mut last = tensor(&mut w, &mut s, &[6, 4]);
    for choice in choices {
        let shape = w.shape(last).to_vec();
        if shape[0] * shape[1] > 4096 {
            break;
        }
        let (a, half) = (last, shape[0] / 2);
        let op = match choice % 19 {
            0 => WeightOp::MulRows { w: a, v: tensor(&mut w, &mut s, &[shape[0]]) },
            1 => WeightOp::MulCols { w: a, v: tensor(&mut w, &mut s, &[shape[1]]) },
            2 => WeightOp::Add(a, tensor(&mut w, &mut s, &shape)),
            3 => WeightOp::Sub(tensor(&mut w, &mut s, &shape), a),
            4 => WeightOp::Mul(a, tensor(&mut w, &mut s, &shape)),
            5 => WeightOp::Scale(a, 0.5),
            6 => WeightOp::ConcatRows(vec![a, tensor(&mut w, &mut s, &[4, shape[1]]), a]),
            7 => WeightOp::InterleaveRows { a, b: tensor(&mut w, &mut s, &shape), block: 2 },
            8 => WeightOp::InterleaveRows { a, b: a, block: half },
            9 => WeightOp::PermuteRows { a, order: ColumnOrder::Planar { planes: 2, each: half } },
            10 if shape[1] % 2 == 0 => {
                WeightOp::PermuteCols { a, order: ColumnOrder::Planar { planes: 2, each: shape[1] / 2 } }
            }
            11 => WeightOp::PadRows { a, rows: shape[0] + 6 },
            12 => WeightOp::PadCols { a, cols: shape[1] + 3 },
            13 => WeightOp::Add(a, w.fill(0.25, &shape)),
            15 => WeightOp::PadRowBlocks { a, block: half, to: half + 3 },
            16 => WeightOp::PadColBlocks { a, block: shape[1], to: shape[1] + 2 },
            17 if shape[0] % 3 == 0 => {
                WeightOp::PermuteRows { a, order: ColumnOrder::Planar { planes: 3, each: shape[0] / 3 } }
            }
            18 if shape[0] == shape[1] => WeightOp::OffDiagonal(a),
            10 | 14 | 17 | 18 => {
                let v = tensor(&mut w, &mut s, &[shape[1]]);
                let v = w.derive(WeightOp::MatVec { w: a, v }).expect("fits");
                WeightOp::MulRows { w: a, v }
            }
            _ => unreachable!("19 choices"),
        };
        last = w.derive(op).expect("fits");
    }
    (w, s)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn slices_equal_the_whole(choices in prop::collection::vec(any::<u8>(), 0..6), cut in any::<(u16, u16)>()) {
        let (weights, source) = grow(&choices);
        weights.check().expect("consistent");
        for (id, node) in weights.nodes() {
            let whole = weights.eval(id, &source).expect("values");
            prop_assert_eq!(whole.len(), node.shape.iter().product::<usize>());
            let a = usize::from(cut.0) % (node.rows() + 1);
            let b = usize::from(cut.1) % (node.rows() + 1);
            let rows = a.min(b)..a.max(b);
            let slice = weights.eval_rows(id, rows.clone(), &source).expect("values");
            prop_assert_eq!(&slice[..], &whole[rows.start * node.width()..rows.end * node.width()]);
        }
    }

    #[test]
    fn text_reads_back(choices in prop::collection::vec(any::<u8>(), 0..6)) {
        let (mut weights, _) = grow(&choices);
        weights.pin(weights.nodes().last().expect("one").0);
        let text = weights.to_ron();
        let read = Weights::from_ron(&text).expect("text");
        prop_assert_eq!(&read, &weights);
        prop_assert_eq!(read.to_ron(), text);
    }
}

#[test]
fn folding_formulas() {
    let (mut w, mut s) = (Weights::new(), MemorySource::default());
    let mut vector = |w: &mut Weights, name: &str, data: &[f32]| {
        s.insert(name, vec![data.len()], data.to_vec());
        w.tensor(name, &[data.len()])
    };
    let gamma = vector(&mut w, "gamma", &[2.0, -3.0]);
    let var = vector(&mut w, "var", &[3.0, 8.0]);
    let scale = w.derive(WeightOp::BnScale { gamma, var, eps: 1.0 }).expect("fits");
    assert_eq!(w.eval(scale, &s).expect("values"), [1.0, -1.0]);
    let unit = w.unit(&[2, 1, 3, 3]).expect("a kernel");
    let kernel = w.derive(WeightOp::MulRows { w: unit, v: scale }).expect("fits");
    let mut expected = vec![0.0; 18];
    (expected[4], expected[13]) = (1.0, -1.0);
    assert_eq!(w.eval(kernel, &s).expect("values"), expected);
    let dense = w.unit(&[2, 2, 1, 1]).expect("a kernel");
    assert_eq!(w.eval(dense, &s).expect("values"), [1.0, 0.0, 0.0, 1.0]);
    let padded = w.derive(WeightOp::PadKernel { a: dense, k: 3 }).expect("fits");
    let mut expected = vec![0.0; 36];
    (expected[4], expected[31]) = (1.0, 1.0);
    assert_eq!(w.eval(padded, &s).expect("values"), expected);
    let scaled = w.derive(WeightOp::MulCols { w: padded, v: gamma }).expect("fits");
    (expected[4], expected[31]) = (2.0, -3.0);
    assert_eq!(w.eval(scaled, &s).expect("values"), expected);
}

#[test]
fn diagonals() {
    let (mut w, s) = (Weights::new(), MemorySource::default());
    let v = w.values((1..=9).map(f64::from).collect());
    let ones = w.fill(1.0, &[1, 9]);
    let row = w.derive(WeightOp::MulCols { w: ones, v }).expect("fits");
    let rows = w.derive(WeightOp::ConcatRows(vec![row, row])).expect("fits");
    let error = w.derive(WeightOp::Diagonal(rows)).expect_err("2 x 9");
    assert_eq!(error.to_string(), "weight expression Diagonal: [2, 9] is not square");
    let all = w.derive(WeightOp::ConcatRows(vec![row; 9])).expect("fits");
    let kernel = w.reshape(all, &[9, 9, 1, 1]).expect("fits");
    for matrix in [all, kernel] {
        let (d, off) = (WeightOp::Diagonal(matrix), WeightOp::OffDiagonal(matrix));
        let (d, off) = (w.derive(d).expect("square"), w.derive(off).expect("square"));
        assert_eq!((w.shape(d), w.shape(off)), (&[9][..], w.shape(matrix)));
        assert_eq!(w.eval_rows(d, 2..5, &s).expect("values"), [3.0, 4.0, 5.0]);
        let mut want: Vec<f32> = (0..18).map(|i| (i % 9 + 1) as f32).collect();
        (want[3], want[9 + 4]) = (0.0, 0.0);
        assert_eq!(w.eval_rows(off, 3..5, &s).expect("values"), want);
    }
}

/// Heads of 2 x 3 channels to 2 x 4, along rows and along columns.
#[test]
fn blocks_are_padded_one_by_one() {
    let (mut w, s) = (Weights::new(), MemorySource::default());
    let v = w.values(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let rows = w.derive(WeightOp::PadRowBlocks { a: v, block: 3, to: 4 }).expect("fits");
    assert_eq!(w.eval(rows, &s).expect("values"), [1.0, 2.0, 3.0, 0.0, 4.0, 5.0, 6.0, 0.0]);
    assert_eq!(w.eval_rows(rows, 2..6, &s).expect("values"), [3.0, 0.0, 4.0, 5.0]);
    let ones = w.fill(1.0, &[1, 6]);
    let a = w.derive(WeightOp::MulCols { w: ones, v }).expect("fits");
    let columns = w.derive(WeightOp::PadColBlocks { a, block: 3, to: 5 }).expect("fits");
    assert_eq!(w.shape(columns), [1, 10]);
    assert_eq!(w.eval(columns, &s).expect("values"), [1.0, 2.0, 3.0, 0.0, 0.0, 4.0, 5.0, 6.0, 0.0, 0.0]);
    let kernel = w.reshape(a, &[1, 3, 2]).expect("fits");
    let kernel = w.derive(WeightOp::PadCols { a: kernel, cols: 4 }).expect("fits");
    assert_eq!(w.eval(kernel, &s).expect("values"), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0]);
    let error = w.derive(WeightOp::PadRowBlocks { a: v, block: 4, to: 8 }).expect_err("6 rows are no blocks of 4");
    assert_eq!(error.to_string(), "weight expression PadRowBlocks: [6] in blocks of 4 rows to 8");
}

#[test]
fn one_rounding() {
    // (1 + e) * (1 + e) - 1 in f64 keeps what f32 would lose.
    let (mut w, mut s) = (Weights::new(), MemorySource::default());
    let e = f32::EPSILON;
    s.insert("a", vec![1], vec![1.0 + e]);
    let a = w.tensor("a", &[1]);
    let square = w.derive(WeightOp::Mul(a, a)).expect("fits");
    let one = w.fill(1.0, &[1]);
    let rest = w.derive(WeightOp::Sub(square, one)).expect("fits");
    assert_eq!(w.eval(rest, &s).expect("values"), [2.0 * e + e * e]);
}

/// A source that remembers the largest read.
struct Watched {
    largest: std::sync::Mutex<usize>,
}

impl TensorSource for Watched {
    fn shape(&self, _: &str) -> Option<Vec<usize>> {
        Some(vec![1024, 8])
    }

    fn rows(&self, _: &str, rows: std::ops::Range<usize>) -> Result<Vec<f32>, SourceError> {
        let mut largest = self.largest.lock().expect("not poisoned");
        *largest = (*largest).max(rows.len());
        Ok(vec![1.0; rows.len() * 8])
    }
}

#[test]
fn a_slice_reads_little() {
    let mut w = Weights::new();
    let (a, b) = (w.tensor("a", &[1024, 8]), w.tensor("b", &[1024, 8]));
    let v = w.fill(2.0, &[8]);
    let a = w.derive(WeightOp::MulCols { w: a, v }).expect("fits");
    let both = w.derive(WeightOp::InterleaveRows { a, b, block: 16 }).expect("fits");
    let all = w.derive(WeightOp::ConcatRows(vec![both, a, b])).expect("fits");
    let source = Watched { largest: 0.into() };
    w.eval_rows(all, 1000..1064, &source).expect("values");
    let largest = *source.largest.lock().expect("not poisoned");
    assert!(largest <= 64, "{largest} rows read for 64");
}

#[test]
fn mistakes_are_named() {
    let mut w = Weights::new();
    let a = w.fill(0.0, &[4, 6]);
    let v = w.fill(0.0, &[4]);
    let message = |r: Result<WeightId, ir::WeightError>| r.expect_err("wrong").to_string();
    assert_eq!(message(w.derive(WeightOp::MulCols { w: a, v })), "weight expression MulCols: [4, 6] by [4]");
    assert_eq!(message(w.derive(WeightOp::Add(a, WeightId(9)))), "weight expression Add: w9 is not in the arena");
    assert_eq!(message(w.reshape(a, &[6, 4])), "weight expression Reshape: [4, 6] to [6, 4]");
    let t = w.tensor("x", &[2, 2]);
    let mut source = MemorySource::default();
    assert_eq!(w.eval(t, &source), Err(SourceError::Missing { name: "x".into() }));
    source.insert("x", vec![3, 2], vec![0.0; 6]);
    let wrong = w.eval(t, &source).expect_err("another shape");
    assert_eq!(wrong.to_string(), "tensor \"x\" is [3, 2], expected [2, 2]");
    let text = "(nodes:[(op:Scale((0),2.0),shape:[1])],pinned:[])";
    assert!(Weights::from_ron(text).expect_err("a cycle").to_string().contains("comes after it"));
}
