//! x86-64 as a kernel IR target, at two levels.
//!
//! `v3` is x86-64-v3 (AVX2 and FMA, a line is two registers), `v4` is x86-64-v4 (AVX-512, a line
//! is one register). This crate names types and intrinsics; it holds no algorithm.

use emit::{Function, Item};
use kernels::{BinaryOp, CompareOp, Elem, Op, ReduceOp, Target, Ty, UnaryOp, float_tokens};
use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::quote;

/// A level of x86-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// x86-64-v3: AVX2, FMA.
    V3,
    /// x86-64-v4: AVX-512 F, BW, CD, DQ, VL.
    V4,
}

impl Level {
    /// All levels, best first.
    pub const ALL: [Level; 2] = [Level::V4, Level::V3];

    /// `_mm256_` or `_mm512_`.
    fn prefix(self) -> &'static str {
        match self {
            Level::V3 => "_mm256",
            Level::V4 => "_mm512",
        }
    }

    fn bits(self) -> usize {
        match self {
            Level::V3 => 256,
            Level::V4 => 512,
        }
    }

    fn intrinsic(self, name: &str) -> Ident {
        Ident::new(&format!("{}_{name}", self.prefix()), Span::call_site())
    }

    fn call(self, name: &str, args: &[TokenStream]) -> TokenStream {
        let f = self.intrinsic(name);
        quote!(#f(#(#args),*))
    }
}

impl Target for Level {
    fn level(&self) -> &'static str {
        match self {
            Level::V3 => "v3",
            Level::V4 => "v4",
        }
    }

    fn lanes(&self) -> usize {
        self.bits() / 32
    }

    fn registers(&self) -> usize {
        match self {
            Level::V3 => 16,
            Level::V4 => 32,
        }
    }

    fn features(&self) -> &'static str {
        match self {
            Level::V3 => "avx2,fma",
            Level::V4 => "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma",
        }
    }

    fn supports(&self, _op: &Op) -> bool {
        true
    }

    fn vector_type(&self, ty: Ty) -> TokenStream {
        match (self, ty) {
            (Level::V3, Ty::F32 | Ty::Mask) => quote!(__m256),
            (Level::V3, Ty::I32) => quote!(__m256i),
            (Level::V4, Ty::F32) => quote!(__m512),
            (Level::V4, Ty::I32) => quote!(__m512i),
            (Level::V4, Ty::Mask) => quote!(__mmask16),
        }
    }

    fn op(&self, op: &Op, ty: Ty, regs: &[TokenStream], at: &TokenStream) -> TokenStream {
        let call = |name: &str| self.call(name, regs);
        let bits = self.bits();
        match op {
            Op::Splat(x) => {
                let x = float_tokens(*x);
                if x.to_string() == "0.0" { self.call("setzero_ps", &[]) } else { self.call("set1_ps", &[x]) }
            }
            Op::SplatBits(x) => {
                let x = Literal::i32_unsuffixed(*x);
                self.call("set1_epi32", &[quote!(#x)])
            }
            Op::SplatInt(_) => self.call("set1_epi32", &[quote!(#at as i32)]),
            Op::Iota(from) => {
                let lanes = (0..self.lanes() as i32).map(|i| Literal::i32_unsuffixed(from + i));
                let f = self.intrinsic("setr_epi32");
                quote!(#f(#(#lanes),*))
            }
            Op::Load(..) => self.call("loadu_ps", std::slice::from_ref(at)),
            Op::Broadcast(..) => self.call("set1_ps", &[quote!(*#at)]),
            Op::Unary(op, _) => match (op, self) {
                (UnaryOp::Sqrt, _) => call("sqrt_ps"),
                (UnaryOp::RoundEven, Level::V3) => {
                    let [a] = regs else { return TokenStream::new() };
                    quote!(_mm256_round_ps::<NEAREST>(#a))
                }
                (UnaryOp::RoundEven, Level::V4) => {
                    let [a] = regs else { return TokenStream::new() };
                    quote!(_mm512_roundscale_ps::<NEAREST>(#a))
                }
                (UnaryOp::ToInt, _) => call("cvttps_epi32"),
                (UnaryOp::ToFloat, _) => call("cvtepi32_ps"),
                (UnaryOp::BitsToInt, _) => call(&format!("castps_si{bits}")),
                (UnaryOp::BitsToFloat, _) => call(&format!("castsi{bits}_ps")),
            },
            Op::Binary(op, ..) => match op {
                BinaryOp::Add => call("add_ps"),
                BinaryOp::Sub => call("sub_ps"),
                BinaryOp::Mul => call("mul_ps"),
                BinaryOp::Div => call("div_ps"),
                BinaryOp::Min => call("min_ps"),
                BinaryOp::Max => call("max_ps"),
                BinaryOp::AddInt => call("add_epi32"),
                BinaryOp::And => call(&format!("and_si{bits}")),
                BinaryOp::Or => call(&format!("or_si{bits}")),
                BinaryOp::Xor => call(&format!("xor_si{bits}")),
            },
            Op::MulAdd(..) => call("fmadd_ps"),
            Op::NegMulAdd(..) => call("fnmadd_ps"),
            Op::ShiftLeft(_, by) => {
                let [a] = regs else { return TokenStream::new() };
                let (f, by) = (self.intrinsic("slli_epi32"), Literal::u32_unsuffixed(*by));
                quote!(#f::<#by>(#a))
            }
            Op::Compare(op, ..) => self.compare(*op, regs),
            Op::Select(..) => self.select(ty, regs),
            Op::Reduce(op, _) => {
                let [a] = regs else { return TokenStream::new() };
                match op {
                    ReduceOp::Add => quote!(reduce_add(#a)),
                    ReduceOp::Max => quote!(reduce_max(#a)),
                    ReduceOp::MinInt => quote!(reduce_min_int(#a)),
                }
            }
            Op::Copy(_) => regs[0].clone(),
        }
    }

    fn store(&self, _elem: Elem, ty: Ty, at: &TokenStream, value: &TokenStream) -> TokenStream {
        match ty {
            Ty::F32 | Ty::Mask => {
                let f = self.intrinsic("storeu_ps");
                quote!(#f(#at, #value);)
            }
            Ty::I32 => {
                let f = self.intrinsic(&format!("storeu_si{}", self.bits()));
                quote!(#f(#at.cast(), #value);)
            }
        }
    }

    fn store_one(&self, _elem: Elem, ty: Ty, at: &TokenStream, value: &TokenStream) -> TokenStream {
        match ty {
            Ty::F32 | Ty::Mask => {
                let f = self.intrinsic("cvtss_f32");
                quote!(*#at = #f(#value);)
            }
            Ty::I32 => {
                let f = match self {
                    Level::V3 => quote!(_mm256_cvtsi256_si32),
                    Level::V4 => quote!(_mm512_cvtsi512_si32),
                };
                quote!(*#at = #f(#value) as u32;)
            }
        }
    }

    fn prelude(&self) -> Vec<Item> {
        let imports = Item::Line {
            docs: vec![],
            attrs: vec![],
            tokens: quote!(
                use core::arch::x86_64::*;
            ),
        };
        let nearest = Item::Line {
            docs: vec!["To the nearest integer, ties to even, without raising flags.".to_string()],
            attrs: vec![],
            tokens: quote!(
                pub const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
            ),
        };
        vec![
            imports,
            nearest,
            self.tree("reduce_add", "The sum of all lanes, in all lanes.", Ty::F32, "add_ps"),
            self.tree("reduce_max", "The largest lane, in all lanes.", Ty::F32, "max_ps"),
            self.tree("reduce_min_int", "The smallest integer, in all lanes.", Ty::I32, "min_epi32"),
        ]
    }
}

impl Level {
    /// A helper that folds a register onto itself: lanes 8 apart (AVX-512), then 4, 2 and 1.
    fn tree(self, name: &str, doc: &str, ty: Ty, fold: &str) -> Item {
        let swaps: &[TokenStream] = match (self, ty) {
            (Level::V3, Ty::I32) => &[
                quote!(_mm256_permute2x128_si256::<1>(x, x)),
                quote!(_mm256_shuffle_epi32::<0x4e>(x)),
                quote!(_mm256_shuffle_epi32::<0xb1>(x)),
            ],
            (Level::V3, Ty::F32 | Ty::Mask) => &[
                quote!(_mm256_permute2f128_ps::<1>(x, x)),
                quote!(_mm256_permute_ps::<0x4e>(x)),
                quote!(_mm256_permute_ps::<0xb1>(x)),
            ],
            (Level::V4, Ty::I32) => &[
                quote!(_mm512_shuffle_i32x4::<0x4e>(x, x)),
                quote!(_mm512_shuffle_i32x4::<0xb1>(x, x)),
                quote!(_mm512_shuffle_epi32::<0x4e>(x)),
                quote!(_mm512_shuffle_epi32::<0xb1>(x)),
            ],
            (Level::V4, Ty::F32 | Ty::Mask) => &[
                quote!(_mm512_shuffle_f32x4::<0x4e>(x, x)),
                quote!(_mm512_shuffle_f32x4::<0xb1>(x, x)),
                quote!(_mm512_permute_ps::<0x4e>(x)),
                quote!(_mm512_permute_ps::<0xb1>(x)),
            ],
        };
        let (fold, features) = (self.intrinsic(fold), self.features());
        let (name, vector) = (Ident::new(name, Span::call_site()), self.vector_type(ty));
        let mut body: Vec<emit::Stmt> =
            swaps.iter().map(|swap| emit::Stmt::Line(quote!(let x = #fold(x, #swap);))).collect();
        body.push(emit::Stmt::Line(quote!(x)));
        Item::Function(Function {
            docs: vec![doc.to_string()],
            attrs: vec![quote!(inline), quote!(target_feature(enable = #features))],
            head: quote!(pub fn #name),
            params: vec![quote!(x: #vector)],
            returns: Some(vector),
            body,
        })
    }

    fn compare(self, op: CompareOp, regs: &[TokenStream]) -> TokenStream {
        let [a, b] = regs else { return TokenStream::new() };
        match (op, self) {
            (CompareOp::Less, Level::V3) => quote!(_mm256_cmp_ps::<_CMP_LT_OQ>(#a, #b)),
            (CompareOp::Less, Level::V4) => quote!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(#a, #b)),
            (CompareOp::Equal, Level::V3) => quote!(_mm256_cmp_ps::<_CMP_EQ_OQ>(#a, #b)),
            (CompareOp::Equal, Level::V4) => quote!(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(#a, #b)),
            (CompareOp::LessInt, Level::V3) => quote!(_mm256_castsi256_ps(_mm256_cmpgt_epi32(#b, #a))),
            (CompareOp::LessInt, Level::V4) => quote!(_mm512_cmplt_epi32_mask(#a, #b)),
        }
    }

    fn select(self, ty: Ty, regs: &[TokenStream]) -> TokenStream {
        let [mask, yes, no] = regs else { return TokenStream::new() };
        match (self, ty) {
            (Level::V3, Ty::I32) => quote!(_mm256_blendv_epi8(#no, #yes, _mm256_castps_si256(#mask))),
            (Level::V3, Ty::F32 | Ty::Mask) => quote!(_mm256_blendv_ps(#no, #yes, #mask)),
            (Level::V4, Ty::I32) => quote!(_mm512_mask_blend_epi32(#mask, #no, #yes)),
            (Level::V4, Ty::F32 | Ty::Mask) => quote!(_mm512_mask_blend_ps(#mask, #no, #yes)),
        }
    }
}
