//! WebAssembly with simd128 as a kernel IR target: a line is four registers.
//!
//! simd128 has no fused multiply-add, so the legalizer expands it. This crate names types and
//! intrinsics; it holds no algorithm.

use emit::Item;
use kernels::{BinaryOp, CompareOp, Elem, Op, ReduceOp, Target, Ty, UnaryOp, float_tokens};
use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::quote;

/// WebAssembly with the simd128 proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Simd128;

impl Target for Simd128 {
    fn level(&self) -> &'static str {
        "simd128"
    }

    fn lanes(&self) -> usize {
        4
    }

    /// Engines map values to 16 machine registers on x86-64; more spill.
    fn registers(&self) -> usize {
        16
    }

    fn features(&self) -> &'static str {
        "simd128"
    }

    fn supports(&self, op: &Op) -> bool {
        !matches!(op, Op::MulAdd(..) | Op::NegMulAdd(..))
    }

    fn converts_halves(&self) -> bool {
        false
    }

    fn vector_type(&self, _ty: Ty) -> TokenStream {
        quote!(v128)
    }

    fn load(&self, elem: Elem, at: &TokenStream) -> TokenStream {
        match elem {
            Elem::F32 | Elem::U32 => quote!(v128_load(#at.cast())),
            Elem::I8 => quote!(widen(v128_load32_zero(#at.cast()))),
            Elem::U16 => quote!(u32x4_extend_low_u16x8(v128_load64_zero(#at.cast()))),
            // Made U16 by the legalizer, here and below.
            Elem::F16 => TokenStream::new(),
        }
    }

    fn broadcast(&self, elem: Elem, at: &TokenStream) -> TokenStream {
        match elem {
            Elem::F32 | Elem::U32 => quote!(v128_load32_splat(#at.cast())),
            Elem::I8 | Elem::U16 => quote!(i32x4_splat(i32::from(*#at))),
            Elem::F16 => TokenStream::new(),
        }
    }

    fn op(&self, op: &Op, _ty: Ty, regs: &[TokenStream], at: &TokenStream) -> TokenStream {
        let call = |name: &str| {
            let f = Ident::new(name, Span::call_site());
            quote!(#f(#(#regs),*))
        };
        match op {
            Op::Splat(x) => {
                let x = float_tokens(*x);
                quote!(f32x4_splat(#x))
            }
            Op::SplatBits(x) => {
                let x = Literal::i32_unsuffixed(*x);
                quote!(i32x4_splat(#x))
            }
            Op::SplatInt(_) => quote!(i32x4_splat(#at as i32)),
            Op::Iota(from) => {
                let lanes = (0..4).map(|i| Literal::i32_unsuffixed(from + i));
                quote!(i32x4(#(#lanes),*))
            }
            // Printed by `load` and `broadcast`.
            Op::Load(..) | Op::Broadcast(..) => TokenStream::new(),
            Op::Unary(op, _) => match op {
                UnaryOp::Sqrt => call("f32x4_sqrt"),
                UnaryOp::RoundEven => call("f32x4_nearest"),
                UnaryOp::ToInt => call("i32x4_trunc_sat_f32x4"),
                UnaryOp::RoundToInt => {
                    let [a] = regs else { return TokenStream::new() };
                    quote!(i32x4_trunc_sat_f32x4(f32x4_nearest(#a)))
                }
                UnaryOp::ToFloat => call("f32x4_convert_i32x4"),
                UnaryOp::BitsToInt | UnaryOp::BitsToFloat => regs[0].clone(),
            },
            Op::Binary(op, ..) => match op {
                BinaryOp::Add => call("f32x4_add"),
                BinaryOp::Sub => call("f32x4_sub"),
                BinaryOp::Mul => call("f32x4_mul"),
                BinaryOp::Div => call("f32x4_div"),
                // `pmin(b, a)` is `a < b ? a : b`: operands swapped to take b where either is NaN.
                BinaryOp::Min | BinaryOp::Max => {
                    let [a, b] = regs else { return TokenStream::new() };
                    if *op == BinaryOp::Min { quote!(f32x4_pmin(#b, #a)) } else { quote!(f32x4_pmax(#b, #a)) }
                }
                BinaryOp::AddInt => call("i32x4_add"),
                BinaryOp::SubInt => call("i32x4_sub"),
                BinaryOp::MulInt => call("i32x4_mul"),
                BinaryOp::And => call("v128_and"),
                BinaryOp::Or => call("v128_or"),
                BinaryOp::Xor => call("v128_xor"),
            },
            // Expanded by the legalizer: `supports` says no.
            Op::MulAdd(..) | Op::NegMulAdd(..) => TokenStream::new(),
            Op::ShiftLeft(_, by) => {
                let [a] = regs else { return TokenStream::new() };
                let by = Literal::u32_unsuffixed(*by);
                quote!(i32x4_shl(#a, #by))
            }
            Op::ShiftRight(_, by) => {
                let [a] = regs else { return TokenStream::new() };
                let by = Literal::u32_unsuffixed(*by);
                quote!(u32x4_shr(#a, #by))
            }
            Op::ShiftRightSigned(_, by) => {
                let [a] = regs else { return TokenStream::new() };
                let by = Literal::u32_unsuffixed(*by);
                quote!(i32x4_shr(#a, #by))
            }
            Op::Dot(..) => {
                let [w, a, acc] = regs else { return TokenStream::new() };
                quote!(dot(#acc, #w, #a))
            }
            Op::Compare(op, ..) => match op {
                CompareOp::Less => call("f32x4_lt"),
                CompareOp::LessInt => call("i32x4_lt"),
                CompareOp::Equal => call("f32x4_eq"),
            },
            Op::Select(..) => {
                let [mask, yes, no] = regs else { return TokenStream::new() };
                quote!(v128_bitselect(#yes, #no, #mask))
            }
            Op::InterleaveLow(..) => quote!(i32x4_shuffle::<0, 4, 1, 5>(#(#regs),*)),
            Op::InterleaveHigh(..) => quote!(i32x4_shuffle::<2, 6, 3, 7>(#(#regs),*)),
            Op::Reduce(op, _) => match op {
                ReduceOp::Add => call("reduce_add"),
                ReduceOp::Max => call("reduce_max"),
                ReduceOp::MinInt => call("reduce_min_int"),
                ReduceOp::AddInt => call("reduce_add_int"),
            },
            Op::Copy(_) => regs[0].clone(),
        }
    }

    fn store(&self, elem: Elem, at: &TokenStream, value: &TokenStream) -> TokenStream {
        match elem {
            Elem::F32 | Elem::U32 => quote!(v128_store(#at.cast(), #value);),
            Elem::I8 => quote!(v128_store32_lane::<0>(narrow(#value), #at.cast());),
            Elem::U16 => {
                let low = quote!(i16x8_shuffle::<0, 2, 4, 6, 0, 2, 4, 6>(#value, #value));
                quote!(v128_store64_lane::<0>(#low, #at.cast());)
            }
            Elem::F16 => TokenStream::new(),
        }
    }

    fn store_one(&self, elem: Elem, at: &TokenStream, value: &TokenStream) -> TokenStream {
        match elem {
            Elem::F32 | Elem::U32 => quote!(v128_store32_lane::<0>(#value, #at.cast());),
            Elem::I8 => quote!(v128_store8_lane::<0>(#value, #at.cast());),
            Elem::U16 => quote!(v128_store16_lane::<0>(#value, #at.cast());),
            Elem::F16 => TokenStream::new(),
        }
    }

    fn prelude(&self) -> Vec<Item> {
        let tree = |name: &str, doc: &str, fold: &dyn Fn(TokenStream) -> TokenStream| {
            let (far, near) =
                (fold(quote!(i32x4_shuffle::<2, 3, 0, 1>(x, x))), fold(quote!(i32x4_shuffle::<1, 0, 3, 2>(x, x))));
            function(name, doc, &["x"], &[quote!(let x = #far;), near])
        };
        vec![
            Item::Line {
                docs: vec![],
                attrs: vec![],
                tokens: quote!(
                    use core::arch::wasm32::*;
                ),
            },
            tree("reduce_add", "The sum of all lanes, in all lanes.", &|y| quote!(f32x4_add(x, #y))),
            tree("reduce_max", "The largest lane, in all lanes.", &|y| quote!(f32x4_pmax(#y, x))),
            tree("reduce_min_int", "The smallest integer, in all lanes.", &|y| quote!(i32x4_min(x, #y))),
            tree("reduce_add_int", "The sum of all integers, in all lanes.", &|y| quote!(i32x4_add(x, #y))),
            function(
                "narrow",
                "The low byte of each lane, in the low four bytes.",
                &["x"],
                &[quote!(i8x16_shuffle::<0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12>(x, x))],
            ),
            function(
                "widen",
                "The low four bytes with their signs, one in each lane.",
                &["x"],
                &[quote!(i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(x)))],
            ),
            function(
                "dot",
                "`acc` plus the sum of four products of bytes in each lane; those of `w` are at most 127.",
                &["acc", "w", "a"],
                &[
                    quote!(let low = i32x4_dot_i16x8(i16x8_extend_low_i8x16(w), i16x8_extend_low_i8x16(a));),
                    quote!(let high = i32x4_dot_i16x8(i16x8_extend_high_i8x16(w), i16x8_extend_high_i8x16(a));),
                    quote!(let even = i32x4_shuffle::<0, 2, 4, 6>(low, high);),
                    quote!(let odd = i32x4_shuffle::<1, 3, 5, 7>(low, high);),
                    quote!(i32x4_add(acc, i32x4_add(even, odd))),
                ],
            ),
        ]
    }
}

/// A helper of the prelude.
fn function(name: &str, doc: &str, params: &[&str], lines: &[TokenStream]) -> Item {
    let ident = |name: &str| Ident::new(name, Span::call_site());
    let params = params.iter().map(|p| {
        let p = ident(p);
        quote!(#p: v128)
    });
    let name = ident(name);
    Item::Function(emit::Function {
        docs: vec![doc.to_string()],
        attrs: vec![quote!(inline), quote!(target_feature(enable = "simd128"))],
        head: quote!(pub fn #name),
        params: params.collect(),
        returns: Some(quote!(v128)),
        body: lines.iter().cloned().map(emit::Stmt::Line).collect(),
    })
}
