//! aarch64 with NEON as a kernel IR target: a line is four registers.
//!
//! This crate names types and intrinsics; it holds no algorithm.

use emit::Item;
use kernels::{BinaryOp, CompareOp, Elem, Op, ReduceOp, Target, Ty, UnaryOp, float_tokens};
use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::quote;

/// Armv8.0-A NEON, the baseline of every aarch64 target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neon;

impl Target for Neon {
    fn level(&self) -> &'static str {
        "neon"
    }

    fn lanes(&self) -> usize {
        4
    }

    fn registers(&self) -> usize {
        32
    }

    fn features(&self) -> &'static str {
        "neon"
    }

    fn supports(&self, _op: &Op) -> bool {
        true
    }

    /// Stable Rust has no names for `fcvtl` and `fcvtn` of halves.
    fn converts_halves(&self) -> bool {
        false
    }

    fn vector_type(&self, ty: Ty) -> TokenStream {
        match ty {
            Ty::F32 => quote!(float32x4_t),
            Ty::I32 => quote!(int32x4_t),
            Ty::Mask => quote!(uint32x4_t),
        }
    }

    fn load(&self, elem: Elem, at: &TokenStream) -> TokenStream {
        match elem {
            Elem::F32 => quote!(vld1q_f32(#at)),
            Elem::U32 => quote!(vld1q_s32(#at.cast())),
            Elem::I8 => quote!(widen(#at)),
            Elem::U16 => quote!(vreinterpretq_s32_u32(vmovl_u16(vld1_u16(#at)))),
            // Made U16 by the legalizer, here and below.
            Elem::F16 => TokenStream::new(),
        }
    }

    fn broadcast(&self, elem: Elem, at: &TokenStream) -> TokenStream {
        match elem {
            Elem::F32 => quote!(vld1q_dup_f32(#at)),
            Elem::U32 => quote!(vld1q_dup_s32(#at.cast())),
            Elem::I8 | Elem::U16 => quote!(vdupq_n_s32(i32::from(*#at))),
            Elem::F16 => TokenStream::new(),
        }
    }

    fn op(&self, op: &Op, ty: Ty, regs: &[TokenStream], at: &TokenStream) -> TokenStream {
        let call = |name: &str| {
            let f = Ident::new(name, Span::call_site());
            quote!(#f(#(#regs),*))
        };
        match op {
            Op::Splat(x) => {
                let x = float_tokens(*x);
                quote!(vdupq_n_f32(#x))
            }
            Op::SplatBits(x) => {
                let x = Literal::i32_unsuffixed(*x);
                quote!(vdupq_n_s32(#x))
            }
            Op::SplatInt(_) => quote!(vdupq_n_s32(#at as i32)),
            Op::Iota(from) => {
                let lanes = (0..4).map(|i| Literal::i32_unsuffixed(from + i));
                quote!(vld1q_s32([#(#lanes),*].as_ptr()))
            }
            // Printed by `load` and `broadcast`.
            Op::Load(..) | Op::Broadcast(..) => TokenStream::new(),
            Op::Unary(op, _) => match op {
                UnaryOp::Sqrt => call("vsqrtq_f32"),
                UnaryOp::RoundEven => call("vrndnq_f32"),
                UnaryOp::ToInt => call("vcvtq_s32_f32"),
                UnaryOp::RoundToInt => call("vcvtnq_s32_f32"),
                UnaryOp::ToFloat => call("vcvtq_f32_s32"),
                UnaryOp::BitsToInt => call("vreinterpretq_s32_f32"),
                UnaryOp::BitsToFloat => call("vreinterpretq_f32_s32"),
            },
            Op::Binary(op, ..) => match op {
                BinaryOp::Add => call("vaddq_f32"),
                BinaryOp::Sub => call("vsubq_f32"),
                BinaryOp::Mul => call("vmulq_f32"),
                BinaryOp::Div => call("vdivq_f32"),
                BinaryOp::Min => call("min"),
                BinaryOp::Max => call("max"),
                BinaryOp::AddInt => call("vaddq_s32"),
                BinaryOp::SubInt => call("vsubq_s32"),
                BinaryOp::MulInt => call("vmulq_s32"),
                BinaryOp::And => call("vandq_s32"),
                BinaryOp::Or => call("vorrq_s32"),
                BinaryOp::Xor => call("veorq_s32"),
            },
            Op::MulAdd(..) | Op::NegMulAdd(..) => {
                let [a, b, c] = regs else { return TokenStream::new() };
                // The accumulator comes first.
                if matches!(op, Op::MulAdd(..)) { quote!(vfmaq_f32(#c, #a, #b)) } else { quote!(vfmsq_f32(#c, #a, #b)) }
            }
            Op::ShiftLeft(_, by) => {
                let [a] = regs else { return TokenStream::new() };
                let by = Literal::u32_unsuffixed(*by);
                quote!(vshlq_n_s32::<#by>(#a))
            }
            // The right shifts have no encoding for none.
            Op::ShiftRight(_, 0) | Op::ShiftRightSigned(_, 0) => regs[0].clone(),
            Op::ShiftRight(_, by) => {
                let [a] = regs else { return TokenStream::new() };
                let by = Literal::u32_unsuffixed(*by);
                quote!(vreinterpretq_s32_u32(vshrq_n_u32::<#by>(vreinterpretq_u32_s32(#a))))
            }
            Op::ShiftRightSigned(_, by) => {
                let [a] = regs else { return TokenStream::new() };
                let by = Literal::u32_unsuffixed(*by);
                quote!(vshrq_n_s32::<#by>(#a))
            }
            Op::Dot(..) => {
                let [w, a, acc] = regs else { return TokenStream::new() };
                quote!(dot(#acc, #w, #a))
            }
            Op::Compare(op, ..) => match op {
                CompareOp::Less => call("vcltq_f32"),
                CompareOp::LessInt => call("vcltq_s32"),
                CompareOp::Equal => call("vceqq_f32"),
            },
            Op::Select(..) => match ty {
                Ty::I32 => call("vbslq_s32"),
                Ty::F32 | Ty::Mask => call("vbslq_f32"),
            },
            Op::InterleaveLow(..) => call("vzip1q_f32"),
            Op::InterleaveHigh(..) => call("vzip2q_f32"),
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
            Elem::F32 => quote!(vst1q_f32(#at, #value);),
            Elem::U32 => quote!(vst1q_u32(#at, vreinterpretq_u32_s32(#value));),
            Elem::I8 => quote!(narrow(#at, #value);),
            Elem::U16 => quote!(vst1_u16(#at, vmovn_u32(vreinterpretq_u32_s32(#value)));),
            Elem::F16 => TokenStream::new(),
        }
    }

    fn store_one(&self, elem: Elem, at: &TokenStream, value: &TokenStream) -> TokenStream {
        match elem {
            Elem::F32 => quote!(*#at = vgetq_lane_f32::<0>(#value);),
            Elem::U32 => quote!(*#at = vgetq_lane_s32::<0>(#value) as u32;),
            Elem::I8 => quote!(*#at = vgetq_lane_s32::<0>(#value) as i8;),
            Elem::U16 => quote!(*#at = vgetq_lane_s32::<0>(#value) as u16;),
            Elem::F16 => TokenStream::new(),
        }
    }

    fn prelude(&self) -> Vec<Item> {
        let helper = |name: &str, doc: &str, params: &[&str], vector: TokenStream, lines: &[TokenStream]| {
            let params = params.iter().map(|p| {
                let p = Ident::new(p, Span::call_site());
                quote!(#p: #vector)
            });
            function((quote!(pub fn), name), doc, params.collect(), Some(vector.clone()), lines)
        };
        // `vmaxq_f32` gives NaN where an operand is NaN; these give the second operand, as on x86.
        vec![
            Item::Line {
                docs: vec![],
                attrs: vec![],
                tokens: quote!(
                    use core::arch::aarch64::*;
                ),
            },
            helper(
                "max",
                "`a > b ? a : b` by lane.",
                &["a", "b"],
                quote!(float32x4_t),
                &[quote!(vbslq_f32(vcgtq_f32(a, b), a, b))],
            ),
            helper(
                "min",
                "`a < b ? a : b` by lane.",
                &["a", "b"],
                quote!(float32x4_t),
                &[quote!(vbslq_f32(vcltq_f32(a, b), a, b))],
            ),
            helper(
                "reduce_add",
                "The sum of all lanes, in all lanes: lanes 2 apart, then 1.",
                &["x"],
                quote!(float32x4_t),
                &[quote!(let x = vaddq_f32(x, vextq_f32::<2>(x, x));), quote!(vaddq_f32(x, vrev64q_f32(x)))],
            ),
            helper(
                "reduce_max",
                "The largest lane, in all lanes.",
                &["x"],
                quote!(float32x4_t),
                &[quote!(let x = max(x, vextq_f32::<2>(x, x));), quote!(max(x, vrev64q_f32(x)))],
            ),
            helper(
                "reduce_min_int",
                "The smallest integer, in all lanes.",
                &["x"],
                quote!(int32x4_t),
                &[quote!(let x = vminq_s32(x, vextq_s32::<2>(x, x));), quote!(vminq_s32(x, vrev64q_s32(x)))],
            ),
            helper(
                "reduce_add_int",
                "The sum of all integers, in all lanes.",
                &["x"],
                quote!(int32x4_t),
                &[quote!(let x = vaddq_s32(x, vextq_s32::<2>(x, x));), quote!(vaddq_s32(x, vrev64q_s32(x)))],
            ),
            helper(
                "dot",
                "`acc` plus the sum of four products of bytes in each lane; those of `w` are at most 127.",
                &["acc", "w", "a"],
                quote!(int32x4_t),
                &[
                    quote!(let (w, a) = (vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(a));),
                    quote!(let low = vmull_s8(vget_low_s8(w), vget_low_s8(a));),
                    quote!(let high = vmull_high_s8(w, a);),
                    quote!(vpadalq_s16(acc, vpaddq_s16(low, high))),
                ],
            ),
            function(
                (quote!(pub unsafe fn), "widen"),
                "Four signed bytes at `at`, which need not be aligned, as integers.",
                vec![quote!(at: *const i8)],
                Some(quote!(int32x4_t)),
                &[
                    quote!(let bytes = vreinterpret_s8_u32(vdup_n_u32(unsafe { at.cast::<u32>().read_unaligned() }));),
                    quote!(vmovl_s16(vget_low_s16(vmovl_s8(bytes)))),
                ],
            ),
            function(
                (quote!(pub unsafe fn), "narrow"),
                "The low byte of each lane to `at`, which need not be aligned.",
                vec![quote!(at: *mut i8), quote!(x: int32x4_t)],
                None,
                &[
                    quote!(let x = vmovn_s32(x);),
                    quote!(let x = vmovn_s16(vcombine_s16(x, x));),
                    quote!(unsafe { at.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_s8(x))) }),
                ],
            ),
        ]
    }
}

/// A helper of the prelude.
fn function(
    (head, name): (TokenStream, &str),
    doc: &str,
    params: Vec<TokenStream>,
    returns: Option<TokenStream>,
    lines: &[TokenStream],
) -> Item {
    let name = Ident::new(name, Span::call_site());
    Item::Function(emit::Function {
        docs: vec![doc.to_string()],
        attrs: vec![quote!(inline), quote!(target_feature(enable = "neon"))],
        head: quote!(#head #name),
        params,
        returns,
        body: lines.iter().cloned().map(emit::Stmt::Line).collect(),
    })
}
