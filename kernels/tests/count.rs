//! Work that is counted is what is done: a triangle of rows by hand, and shares that add up.

use std::rc::Rc;

use codegen_avx2::Level;
use kernels::{Arg, Builder, Counter, Counts, Kernel, LANES, ParamKind, legalize};

/// `y = y + x a` on the first `n` lines.
fn row() -> Rc<Kernel> {
    let mut k = Builder::new("row", &["A row."]);
    let (x, y, n) = (k.read("x"), k.write("y"), k.size("n"));
    let a = k.broadcast("a", x, 0usize);
    k.each("j", 0usize, n, |k, j| {
        let acc = k.load("acc", y, j.clone() * LANES);
        let b = k.load("b", x, j.clone() * LANES);
        let product = k.mul("product", a, b);
        let sum = k.add("sum", acc, product);
        k.store(y, j * LANES, sum);
    });
    k.finish()
}

/// Row `i` has `i + 1` lines.
fn triangle() -> Rc<Kernel> {
    let row = row();
    let mut k = Builder::new("triangle", &["Rows."]);
    let (x, y) = (k.read("x"), k.write("y"));
    let (first, last) = (k.size("first"), k.size("last"));
    let pointer = |at: usize| match row.params[at].kind {
        ParamKind::Ptr(ptr, ..) => ptr,
        ParamKind::Size(_) => panic!("a pointer"),
    };
    assert_eq!((pointer(0), pointer(1)), (x, y), "both have them first");
    k.each("i", first, last, |k, i| {
        k.call(&row, vec![Arg::Ptr(x, 0usize.into()), Arg::Ptr(y, 0usize.into()), Arg::Size(i + 1usize)]);
    });
    k.finish()
}

#[test]
fn a_triangle_is_counted_line_by_line() {
    let kernel = legalize(&triangle(), &Level::V3Exact);
    let mut counter = Counter::default();
    let whole = counter.count(&kernel, &[0, 4]);
    // 1 + 2 + 3 + 4 lines of 16 lanes, each with a product and a sum, two loads and a store.
    let (rows, lines) = (4, 10);
    assert_eq!(whole.kernels["row"], Counts { floats: 2 * 16 * lines, ..Counts::default() });
    assert_eq!(whole.kernels["triangle"], Counts::default());
    assert_eq!(whole.bytes, [64 * lines + 4 * rows, 2 * 64 * lines]);
    let (some, rest) = (counter.count(&kernel, &[0, 3]), counter.count(&kernel, &[3, 4]));
    assert_eq!(some.bytes.iter().zip(&rest.bytes).map(|(a, b)| a + b).collect::<Vec<_>>(), whole.bytes);
    assert_eq!(some.kernels["row"].floats + rest.kernels["row"].floats, whole.kernels["row"].floats);
}
