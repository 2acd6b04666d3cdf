//! aarch64 with NEON as a kernel IR target: a line is four registers.
//!
//! `neon` is Armv8.0-A, `dotprod` has the dot products of Armv8.2-A, `i8mm` the products of small matrices of Armv8.6-A. Float models run on the level that fuses multiplies and
//! adds; quantized ones on those that do not, so that every level and every other instruction set gives the same
//! bits. This crate names types and intrinsics; it holds no algorithm.

use emit::{Item, Stmt};
use kernels::{BinaryOp, CompareOp, Dots, Elem, Op, ReduceOp, Target, Ty, UnaryOp, Zip, float_tokens};
use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::quote;

/// A level of aarch64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Armv8.0-A, the baseline of every aarch64 target.
    Neon,
    /// Armv8.0-A without fused operations.
    Exact,
    /// With the dot products of bytes of Armv8.2-A, without fused operations.
    Dotprod,
    /// With products of matrices of bytes too, without fused operations.
    I8mm,
}

impl Level {
    /// The levels of float models, best first.
    pub const FLOAT: [Level; 1] = [Level::Neon];

    /// The levels of quantized models, best first.
    pub const EXACT: [Level; 3] = [Level::I8mm, Level::Dotprod, Level::Exact];

    /// Whether there is an instruction for dot products of bytes.
    fn has_dots(self) -> bool {
        matches!(self, Level::Dotprod | Level::I8mm)
    }
}

impl Target for Level {
    fn level(&self) -> &'static str {
        match self {
            Level::Neon | Level::Exact => "neon",
            Level::Dotprod => "dotprod",
            Level::I8mm => "i8mm",
        }
    }

    fn extends(&self) -> Option<&'static str> {
        match self {
            Level::Neon | Level::Exact => None,
            Level::Dotprod => Some(Level::Exact.level()),
            Level::I8mm => Some(Level::Dotprod.level()),
        }
    }

    fn lanes(&self) -> usize {
        4
    }

    fn registers(&self) -> usize {
        32
    }

    fn features(&self) -> &'static str {
        match self {
            Level::Neon | Level::Exact => "neon",
            Level::Dotprod => "neon,dotprod",
            Level::I8mm => "neon,dotprod,i8mm",
        }
    }

    fn is_intrinsic(&self, word: &str) -> bool {
        let element = || ["_f32", "_s32", "_u32", "_u16", "_s64"].iter().any(|element| word.contains(element));
        word.ends_with("x4_t") || word.starts_with('v') && element()
    }

    fn supports(&self, op: &Op) -> bool {
        match op {
            Op::MulAdd(..) | Op::NegMulAdd(..) => *self == Level::Neon,
            Op::Quad(..) | Op::DotLane(..) => self.has_dots(),
            Op::DotPairs(..) => *self == Level::I8mm,
            _ => true,
        }
    }

    fn converts_halves(&self) -> bool {
        true
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
            Elem::F16 => quote!(widen_halves(vld1_u16(#at))),
        }
    }

    fn broadcast(&self, elem: Elem, at: &TokenStream) -> TokenStream {
        match elem {
            Elem::F32 => quote!(vld1q_dup_f32(#at)),
            Elem::U32 => quote!(vld1q_dup_s32(#at.cast())),
            Elem::I8 | Elem::U16 => quote!(vdupq_n_s32(i32::from(*#at))),
            Elem::F16 => quote!(widen_halves(vld1_dup_u16(#at))),
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
            Op::Load(..) | Op::Broadcast(..) | Op::Quad(..) => TokenStream::new(),
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
                BinaryOp::Min => call("smaller"),
                BinaryOp::Max => call("larger"),
                BinaryOp::AddInt => call("vaddq_s32"),
                BinaryOp::SubInt => call("vsubq_s32"),
                BinaryOp::MulInt => call("vmulq_s32"),
                BinaryOp::DotBytes => call("dot_bytes"),
                BinaryOp::AddHalves => call("add_halves"),
                BinaryOp::DotHalves => call("dot_halves"),
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
            Op::ShiftRight(_, 0) | Op::ShiftRightSigned(_, 0) | Op::ShiftRightHalves(_, 0) => regs[0].clone(),
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
            Op::ShiftRightHalves(_, by) => {
                let [a] = regs else { return TokenStream::new() };
                let by = Literal::u32_unsuffixed(*by);
                quote!(vreinterpretq_s32_s16(vshrq_n_s16::<#by>(vreinterpretq_s16_s32(#a))))
            }
            Op::Dot(..) => {
                let [w, a, acc] = regs else { return TokenStream::new() };
                quote!(dot(#acc, #w, #a))
            }
            Op::DotLane(_, _, lane, _) => {
                let [w, a, acc] = regs else { return TokenStream::new() };
                let dot = Ident::new(&format!("dot_lane_{lane}"), Span::call_site());
                quote!(#dot(#acc, #w, #a))
            }
            Op::DotPairs(..) => {
                let [w, a, acc] = regs else { return TokenStream::new() };
                quote!(dot_pairs(#acc, #a, #w))
            }
            Op::Zip(Zip::Low, ..) => call("vzip1q_s32"),
            Op::Zip(Zip::High, ..) => call("vzip2q_s32"),
            Op::Zip(Zip::LowPairs, ..) => call("low_pairs"),
            Op::Zip(Zip::HighPairs, ..) => call("high_pairs"),
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
            Elem::F16 => quote!(vst1_u16(#at, round_to_halves(#value));),
        }
    }

    fn store_one(&self, elem: Elem, at: &TokenStream, value: &TokenStream) -> TokenStream {
        match elem {
            Elem::F32 => quote!(*#at = vgetq_lane_f32::<0>(#value);),
            Elem::U32 => quote!(*#at = vgetq_lane_s32::<0>(#value) as u32;),
            Elem::I8 => quote!(*#at = vgetq_lane_s32::<0>(#value) as i8;),
            Elem::U16 => quote!(*#at = vgetq_lane_s32::<0>(#value) as u16;),
            Elem::F16 => quote!(*#at = vget_lane_u16::<0>(round_to_halves(#value));),
        }
    }

    fn dots(&self) -> Dots {
        match self {
            Level::Neon | Level::Exact => Dots::Words,
            Level::Dotprod => Dots::Lanes,
            Level::I8mm => Dots::Pairs,
        }
    }

    fn quad(&self, at: &TokenStream) -> TokenStream {
        quote!(vld1q_s32(#at.cast()))
    }

    fn prefetches(&self) -> bool {
        true
    }

    fn prefetch(&self, at: &TokenStream) -> TokenStream {
        quote!(prefetch(#at.cast());)
    }

    fn prelude(&self) -> Vec<Item> {
        let features = self.features();
        let body = |lines: &[TokenStream]| lines.iter().cloned().map(Stmt::Line).collect::<Vec<Stmt>>();
        let helper = |name: &str, doc: &str, params: &[&str], vector: TokenStream, code: &[TokenStream]| {
            let params = params.iter().map(|p| {
                let p = Ident::new(p, Span::call_site());
                quote!(#p: #vector)
            });
            function(features, (quote!(pub fn), name), doc, params.collect(), Some(vector.clone()), body(code))
        };
        // Stable Rust has no names for these instructions.
        let instruction = |name: &str, doc: &str, params, returns: Option<TokenStream>, of: TokenStream| {
            let result = returns.as_ref().map(|ty| Stmt::Line(quote!(let y: #ty;)));
            let block = Stmt::Scope { head: quote!(unsafe), body: vec![Stmt::Line(of)] };
            let safe = Stmt::Comment(
                "SAFETY: reads and writes registers; `target_feature` says that it is there.".to_string(),
            );
            let last = returns.as_ref().map(|_| Stmt::Line(quote!(y)));
            let body = result.into_iter().chain([safe, block]).chain(last).collect();
            function(features, (quote!(pub fn), name), doc, params, returns, body)
        };
        let dot = match self {
            Level::Dotprod | Level::I8mm => instruction(
                "dot",
                DOT,
                vec![quote!(acc: int32x4_t), quote!(w: int32x4_t), quote!(a: int32x4_t)],
                Some(quote!(int32x4_t)),
                quote!(core::arch::asm!("sdot {:v}.4s, {:v}.16b, {:v}.16b", inlateout(vreg) acc => y, in(vreg) w, in(vreg) a, options(pure, nomem, nostack));),
            ),
            Level::Neon | Level::Exact => helper(
                "dot",
                DOT,
                &["acc", "w", "a"],
                quote!(int32x4_t),
                &[
                    quote!(let (w, a) = (vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(a));),
                    quote!(let low = vmull_s8(vget_low_s8(w), vget_low_s8(a));),
                    quote!(let high = vmull_high_s8(w, a);),
                    quote!(vpadalq_s16(acc, vpaddq_s16(low, high))),
                ],
            ),
        };
        let lanes = (0..4).filter(|_| self.has_dots()).map(|lane| {
            let sdot = format!("sdot {{:v}}.4s, {{:v}}.16b, {{:v}}.4b[{lane}]");
            instruction(
                &format!("dot_lane_{lane}"),
                &format!("As `dot`, with lane {lane} of `a` in all lanes."),
                vec![quote!(acc: int32x4_t), quote!(w: int32x4_t), quote!(a: int32x4_t)],
                Some(quote!(int32x4_t)),
                quote!(core::arch::asm!(#sdot, inlateout(vreg) acc => y, in(vreg) w, in(vreg) a, options(pure, nomem, nostack));),
            )
        });
        let mut more: Vec<Item> = lanes.collect();
        if *self == Level::I8mm {
            more.push(instruction(
                "dot_pairs",
                "What two rows of `a` give with two of `w`, eight bytes deep each, added to `acc`: rows of two.",
                vec![quote!(acc: int32x4_t), quote!(a: int32x4_t), quote!(w: int32x4_t)],
                Some(quote!(int32x4_t)),
                quote!(core::arch::asm!("smmla {:v}.4s, {:v}.16b, {:v}.16b", inlateout(vreg) acc => y, in(vreg) a, in(vreg) w, options(pure, nomem, nostack));),
            ));
            for (name, doc, zip) in [
                ("low_pairs", "The first two lanes of `a`, then those of `b`.", quote!(vzip1q_s64)),
                ("high_pairs", "The last two lanes of `a`, then those of `b`.", quote!(vzip2q_s64)),
            ] {
                let of = quote!(vreinterpretq_s32_s64(#zip(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b))));
                more.push(helper(name, doc, &["a", "b"], quote!(int32x4_t), &[of]));
            }
        }
        // `vmaxq_f32` gives NaN where an operand is NaN; these give the second operand, as on x86.
        let mut all = vec![
            Item::Line {
                docs: vec![],
                attrs: vec![],
                tokens: quote!(
                    use core::arch::aarch64::*;
                ),
            },
            helper(
                "larger",
                "`a > b ? a : b` by lane.",
                &["a", "b"],
                quote!(float32x4_t),
                &[quote!(vbslq_f32(vcgtq_f32(a, b), a, b))],
            ),
            helper(
                "smaller",
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
                &[quote!(let x = larger(x, vextq_f32::<2>(x, x));), quote!(larger(x, vrev64q_f32(x)))],
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
            dot,
            instruction(
                "widen_halves",
                "Four 16-bit floats as floats.",
                vec![quote!(x: uint16x4_t)],
                Some(quote!(float32x4_t)),
                quote!(core::arch::asm!("fcvtl {:v}.4s, {:v}.4h", out(vreg) y, in(vreg) x, options(pure, nomem, nostack));),
            ),
            instruction(
                "round_to_halves",
                "Four floats as 16-bit floats, ties to even.",
                vec![quote!(x: float32x4_t)],
                Some(quote!(uint16x4_t)),
                quote!(core::arch::asm!("fcvtn {:v}.4h, {:v}.4s", out(vreg) y, in(vreg) x, options(pure, nomem, nostack));),
            ),
            instruction(
                "prefetch",
                "Asks for the cache line at `at`, which nobody may own.",
                vec![quote!(at: *const u8)],
                None,
                quote!(core::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(readonly, nostack, preserves_flags));),
            ),
            helper(
                "dot_bytes",
                "The sums of two products of bytes each, in the halves of each lane; those of `w` are at most 127.",
                &["w", "a"],
                quote!(int32x4_t),
                &[
                    quote!(let (w, a) = (vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(a));),
                    quote!(let low = vmull_s8(vget_low_s8(w), vget_low_s8(a));),
                    quote!(vreinterpretq_s32_s16(vpaddq_s16(low, vmull_high_s8(w, a)))),
                ],
            ),
            helper(
                "add_halves",
                "Sums of the halves of each lane.",
                &["a", "b"],
                quote!(int32x4_t),
                &[quote!(vreinterpretq_s32_s16(vaddq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b))))],
            ),
            helper(
                "dot_halves",
                "The sum of the products of both halves of each lane.",
                &["a", "b"],
                quote!(int32x4_t),
                &[
                    quote!(let (a, b) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));),
                    quote!(let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));),
                    quote!(vpaddq_s32(low, vmull_high_s16(a, b))),
                ],
            ),
            function(
                features,
                (quote!(pub unsafe fn), "widen"),
                "Four signed bytes at `at`, which need not be aligned, as integers.",
                vec![quote!(at: *const i8)],
                Some(quote!(int32x4_t)),
                body(&[
                    quote!(let bytes = vreinterpret_s8_u32(vdup_n_u32(unsafe { at.cast::<u32>().read_unaligned() }));),
                    quote!(vmovl_s16(vget_low_s16(vmovl_s8(bytes)))),
                ]),
            ),
            function(
                features,
                (quote!(pub unsafe fn), "narrow"),
                "The low byte of each lane to `at`, which need not be aligned.",
                vec![quote!(at: *mut i8), quote!(x: int32x4_t)],
                None,
                body(&[
                    quote!(let x = vmovn_s32(x);),
                    quote!(let x = vmovn_s16(vcombine_s16(x, x));),
                    quote!(unsafe { at.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_s8(x))) }),
                ]),
            ),
        ];
        all.extend(more);
        all
    }
}

/// What a dot product is, for whoever reads the printed code.
const DOT: &str = "`acc` plus the sum of four products of bytes in each lane; those of `w` are at most 127.";

/// A helper of the prelude.
fn function(
    features: &str,
    (head, name): (TokenStream, &str),
    doc: &str,
    params: Vec<TokenStream>,
    returns: Option<TokenStream>,
    body: Vec<Stmt>,
) -> Item {
    let name = Ident::new(name, Span::call_site());
    Item::Function(emit::Function {
        docs: vec![doc.to_string()],
        attrs: vec![quote!(inline), quote!(target_feature(enable = #features))],
        head: quote!(#head #name),
        params,
        returns,
        body,
    })
}
