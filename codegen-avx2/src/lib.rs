//! x86-64 as a kernel IR target.
//!
//! `v3` is x86-64-v3 (AVX2, FMA and F16C, a line is two registers), `v4` is x86-64-v4 (AVX-512, a line
//! is one register), each also with the dot products of VNNI. Float models run on the levels that
//! fuse multiplies and adds; quantized ones on those that do not, so that every level and every
//! other instruction set gives the same bits. This crate names types and intrinsics; it holds no
//! algorithm.

use emit::{Function, Item};
use kernels::{BinaryOp, CompareOp, Elem, Op, ReduceOp, Reg, Target, Ty, UnaryOp, float_tokens};
use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::quote;

/// A level of x86-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// x86-64-v3: AVX2, FMA, F16C.
    V3,
    /// x86-64-v4: AVX-512 F, BW, CD, DQ, VL.
    V4,
    /// x86-64-v3 without fused operations.
    V3Exact,
    /// x86-64-v3 and AVX-VNNI, without fused operations.
    V3Vnni,
    /// x86-64-v4 and AVX512-VNNI, without fused operations.
    V4Vnni,
}

impl Level {
    /// The levels of float models, best first.
    pub const FLOAT: [Level; 2] = [Level::V4, Level::V3];

    /// The levels of quantized models, best first.
    pub const EXACT: [Level; 3] = [Level::V4Vnni, Level::V3Vnni, Level::V3Exact];

    /// Whether registers have 512 bits.
    fn wide(self) -> bool {
        match self {
            Level::V4 | Level::V4Vnni => true,
            Level::V3 | Level::V3Exact | Level::V3Vnni => false,
        }
    }

    /// `_mm256_` or `_mm512_`.
    fn prefix(self) -> &'static str {
        if self.wide() { "_mm512" } else { "_mm256" }
    }

    fn bits(self) -> usize {
        if self.wide() { 512 } else { 256 }
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
            Level::V3 | Level::V3Exact => "v3",
            Level::V4 => "v4",
            Level::V3Vnni => "v3_vnni",
            Level::V4Vnni => "v4_vnni",
        }
    }

    fn extends(&self) -> Option<&'static str> {
        match self {
            Level::V3Vnni => Some(Level::V3Exact.level()),
            Level::V3 | Level::V3Exact | Level::V4 | Level::V4Vnni => None,
        }
    }

    fn lanes(&self) -> usize {
        self.bits() / 32
    }

    fn registers(&self) -> usize {
        if self.wide() { 32 } else { 16 }
    }

    fn features(&self) -> &'static str {
        match self {
            Level::V3 | Level::V3Exact => "avx2,fma,f16c",
            Level::V3Vnni => "avx2,fma,f16c,avxvnni",
            Level::V4 => "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,f16c",
            Level::V4Vnni => "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c",
        }
    }

    fn supports(&self, op: &Op) -> bool {
        if matches!(op, Op::Quad(..) | Op::DotLane(..) | Op::DotPairs(..) | Op::Zip(..)) {
            return false;
        }
        match self {
            Level::V3 | Level::V4 => true,
            Level::V3Vnni | Level::V4Vnni => !matches!(op, Op::MulAdd(..) | Op::NegMulAdd(..)),
            // A dot product is a helper of three instructions.
            Level::V3Exact => !matches!(op, Op::MulAdd(..) | Op::NegMulAdd(..) | Op::Dot(..)),
        }
    }

    fn converts_halves(&self) -> bool {
        true
    }

    fn adds_in_halves(&self) -> bool {
        *self == Level::V3Exact
    }

    fn vector_type(&self, ty: Ty) -> TokenStream {
        match (self.wide(), ty) {
            (false, Ty::F32 | Ty::Mask) => quote!(__m256),
            (false, Ty::I32) => quote!(__m256i),
            (true, Ty::F32) => quote!(__m512),
            (true, Ty::I32) => quote!(__m512i),
            (true, Ty::Mask) => quote!(__mmask16),
        }
    }

    fn load(&self, elem: Elem, at: &TokenStream) -> TokenStream {
        match (elem, self.wide()) {
            (Elem::F32, _) => self.call("loadu_ps", std::slice::from_ref(at)),
            (Elem::U32, _) => self.call(&format!("loadu_si{}", self.bits()), &[quote!(#at.cast())]),
            (Elem::I8, true) => quote!(_mm512_cvtepi8_epi32(_mm_loadu_si128(#at.cast()))),
            (Elem::I8, false) => quote!(_mm256_cvtepi8_epi32(_mm_loadl_epi64(#at.cast()))),
            (Elem::U16, true) => quote!(_mm512_cvtepu16_epi32(_mm256_loadu_si256(#at.cast()))),
            (Elem::U16, false) => quote!(_mm256_cvtepu16_epi32(_mm_loadu_si128(#at.cast()))),
            (Elem::F16, true) => quote!(_mm512_cvtph_ps(_mm256_loadu_si256(#at.cast()))),
            (Elem::F16, false) => quote!(_mm256_cvtph_ps(_mm_loadu_si128(#at.cast()))),
        }
    }

    fn broadcast(&self, elem: Elem, at: &TokenStream) -> TokenStream {
        match elem {
            Elem::F32 => self.call("set1_ps", &[quote!(*#at)]),
            Elem::U32 => self.call("set1_epi32", &[quote!(*#at as i32)]),
            Elem::I8 | Elem::U16 => self.call("set1_epi32", &[quote!(i32::from(*#at))]),
            Elem::F16 if self.wide() => quote!(_mm512_cvtph_ps(_mm256_set1_epi16(*#at as i16))),
            Elem::F16 => quote!(_mm256_cvtph_ps(_mm_set1_epi16(*#at as i16))),
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
            // Printed by `load` and `broadcast`.
            Op::Load(..) | Op::Broadcast(..) => TokenStream::new(),
            // Expanded by the legalizer.
            Op::Quad(..) | Op::DotLane(..) | Op::DotPairs(..) | Op::Zip(..) => TokenStream::new(),
            Op::Unary(op, _) => match (op, self.wide()) {
                (UnaryOp::Sqrt, _) => call("sqrt_ps"),
                (UnaryOp::RoundEven, false) => {
                    let [a] = regs else { return TokenStream::new() };
                    quote!(_mm256_round_ps::<NEAREST>(#a))
                }
                (UnaryOp::RoundEven, true) => {
                    let [a] = regs else { return TokenStream::new() };
                    quote!(_mm512_roundscale_ps::<NEAREST>(#a))
                }
                (UnaryOp::ToInt, _) => call("cvttps_epi32"),
                (UnaryOp::RoundToInt, _) => call("cvtps_epi32"),
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
                BinaryOp::SubInt => call("sub_epi32"),
                BinaryOp::MulInt => call("mullo_epi32"),
                BinaryOp::DotBytes => call("maddubs_epi16"),
                BinaryOp::AddHalves => call("add_epi16"),
                BinaryOp::DotHalves => call("madd_epi16"),
                BinaryOp::And => call(&format!("and_si{bits}")),
                BinaryOp::Or => call(&format!("or_si{bits}")),
                BinaryOp::Xor => call(&format!("xor_si{bits}")),
            },
            Op::MulAdd(..) => call("fmadd_ps"),
            Op::NegMulAdd(..) => call("fnmadd_ps"),
            Op::ShiftLeft(_, by) => self.shift("slli_epi32", *by, regs),
            Op::ShiftRight(_, by) => self.shift("srli_epi32", *by, regs),
            Op::ShiftRightSigned(_, by) => self.shift("srai_epi32", *by, regs),
            Op::ShiftRightHalves(_, by) => self.shift("srai_epi16", *by, regs),
            Op::Dot(..) => {
                let [w, a, acc] = regs else { return TokenStream::new() };
                match self {
                    Level::V3 | Level::V3Exact | Level::V4 => quote!(dot(#acc, #w, #a)),
                    Level::V3Vnni => quote!(_mm256_dpbusd_avx_epi32(#acc, #w, #a)),
                    Level::V4Vnni => quote!(_mm512_dpbusd_epi32(#acc, #w, #a)),
                }
            }
            Op::Compare(op, ..) => self.compare(*op, regs),
            Op::Select(..) => self.select(ty, regs),
            Op::InterleaveLow(..) => self.interleave(0, regs),
            Op::InterleaveHigh(..) => self.interleave(1, regs),
            Op::Reduce(op, _) => {
                let [a] = regs else { return TokenStream::new() };
                match op {
                    ReduceOp::Add => quote!(reduce_add(#a)),
                    ReduceOp::Max => quote!(reduce_max(#a)),
                    ReduceOp::MinInt => quote!(reduce_min_int(#a)),
                    ReduceOp::AddInt => quote!(reduce_add_int(#a)),
                }
            }
            Op::Copy(_) => regs[0].clone(),
        }
    }

    fn store(&self, elem: Elem, at: &TokenStream, value: &TokenStream) -> TokenStream {
        match elem {
            Elem::F32 => {
                let f = self.intrinsic("storeu_ps");
                quote!(#f(#at, #value);)
            }
            Elem::I8 if self.wide() => quote!(_mm_storeu_si128(#at.cast(), _mm512_cvtepi32_epi8(#value));),
            Elem::I8 => quote!(_mm_storel_epi64(#at.cast(), narrow(#value));),
            Elem::U16 if self.wide() => quote!(_mm256_storeu_si256(#at.cast(), _mm512_cvtepi32_epi16(#value));),
            Elem::U16 => {
                let halves = quote!(_mm256_shuffle_epi8(#value, _mm256_set1_epi64x(0x0d0c_0908_0504_0100)));
                let low = quote!(_mm256_castsi256_si128(_mm256_permute4x64_epi64::<0x08>(#halves)));
                quote!(_mm_storeu_si128(#at.cast(), #low);)
            }
            Elem::F16 if self.wide() => {
                quote!(_mm256_storeu_si256(#at.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(#value));)
            }
            Elem::F16 => quote!(_mm_storeu_si128(#at.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(#value));),
            Elem::U32 => {
                let f = self.intrinsic(&format!("storeu_si{}", self.bits()));
                quote!(#f(#at.cast(), #value);)
            }
        }
    }

    fn store_one(&self, elem: Elem, at: &TokenStream, value: &TokenStream) -> TokenStream {
        let first = self.intrinsic(&format!("cvtsi{0}_si32", self.bits()));
        match elem {
            Elem::F32 => {
                let f = self.intrinsic("cvtss_f32");
                quote!(*#at = #f(#value);)
            }
            Elem::U32 => quote!(*#at = #first(#value) as u32;),
            Elem::I8 => quote!(*#at = #first(#value) as i8;),
            Elem::U16 => quote!(*#at = #first(#value) as u16;),
            Elem::F16 => {
                let low = self.intrinsic(&format!("castps{}_ps128", self.bits()));
                quote!(_mm_storeu_si16(#at.cast(), _mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(#low(#value)));)
            }
        }
    }

    fn prefetches(&self) -> bool {
        true
    }

    fn prefetch(&self, at: &TokenStream) -> TokenStream {
        quote!(_mm_prefetch::<_MM_HINT_T0>(#at.cast());)
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
        let mut items = vec![
            imports,
            nearest,
            self.tree("reduce_add", "The sum of all lanes, in all lanes.", Ty::F32, "add_ps"),
            self.tree("reduce_max", "The largest lane, in all lanes.", Ty::F32, "max_ps"),
            self.tree("reduce_min_int", "The smallest integer, in all lanes.", Ty::I32, "min_epi32"),
        ];
        if self.supports(&Op::MulAdd(Reg(0), Reg(0), Reg(0))) {
            return items;
        }
        items.push(self.tree("reduce_add_int", "The sum of all integers, in all lanes.", Ty::I32, "add_epi32"));
        if !self.wide() {
            items.push(self.narrow());
        }
        if *self == Level::V3Exact {
            items.push(self.dot());
        }
        items
    }
}

impl Level {
    fn shift(self, name: &str, by: u32, regs: &[TokenStream]) -> TokenStream {
        let [a] = regs else { return TokenStream::new() };
        let (f, by) = (self.intrinsic(name), Literal::u32_unsuffixed(by));
        quote!(#f::<#by>(#a))
    }

    /// The helper that keeps the low byte of each of eight lanes.
    fn narrow(self) -> Item {
        self.helper(
            "narrow",
            "The low byte of each lane, in the low eight bytes.",
            (&[quote!(x: __m256i)], quote!(__m128i)),
            &[
                quote!(let low = _mm256_set1_epi32(0x0c08_0400);),
                quote!(let x = _mm256_shuffle_epi8(x, low);),
                quote!(_mm_unpacklo_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x))),
            ],
        )
    }

    /// The helper that stands for `vpdpbusd`.
    fn dot(self) -> Item {
        self.helper(
            "dot",
            "`acc` plus the sum of four products of bytes in each lane; those of `w` are at most 127.",
            (&[quote!(acc: __m256i), quote!(w: __m256i), quote!(a: __m256i)], quote!(__m256i)),
            &[
                quote!(let pairs = _mm256_maddubs_epi16(w, a);),
                quote!(_mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))),
            ],
        )
    }

    fn helper(
        self,
        name: &str,
        doc: &str,
        (params, returns): (&[TokenStream], TokenStream),
        lines: &[TokenStream],
    ) -> Item {
        let (name, features) = (Ident::new(name, Span::call_site()), self.features());
        Item::Function(Function {
            docs: vec![doc.to_string()],
            attrs: vec![quote!(inline), quote!(target_feature(enable = #features))],
            head: quote!(pub fn #name),
            params: params.to_vec(),
            returns: Some(returns),
            body: lines.iter().cloned().map(emit::Stmt::Line).collect(),
        })
    }

    /// A helper that folds a register onto itself: lanes 8 apart (AVX-512), then 4, 2 and 1.
    fn tree(self, name: &str, doc: &str, ty: Ty, fold: &str) -> Item {
        let swaps: &[TokenStream] = match (self.wide(), ty) {
            (false, Ty::I32) => &[
                quote!(_mm256_permute2x128_si256::<1>(x, x)),
                quote!(_mm256_shuffle_epi32::<0x4e>(x)),
                quote!(_mm256_shuffle_epi32::<0xb1>(x)),
            ],
            (false, Ty::F32 | Ty::Mask) => &[
                quote!(_mm256_permute2f128_ps::<1>(x, x)),
                quote!(_mm256_permute_ps::<0x4e>(x)),
                quote!(_mm256_permute_ps::<0xb1>(x)),
            ],
            (true, Ty::I32) => &[
                quote!(_mm512_shuffle_i32x4::<0x4e>(x, x)),
                quote!(_mm512_shuffle_i32x4::<0xb1>(x, x)),
                quote!(_mm512_shuffle_epi32::<0x4e>(x)),
                quote!(_mm512_shuffle_epi32::<0xb1>(x)),
            ],
            (true, Ty::F32 | Ty::Mask) => &[
                quote!(_mm512_shuffle_f32x4::<0x4e>(x, x)),
                quote!(_mm512_shuffle_f32x4::<0xb1>(x, x)),
                quote!(_mm512_permute_ps::<0x4e>(x)),
                quote!(_mm512_permute_ps::<0xb1>(x)),
            ],
        };
        let fold = self.intrinsic(fold);
        let vector = self.vector_type(ty);
        let mut lines: Vec<TokenStream> = swaps.iter().map(|swap| quote!(let x = #fold(x, #swap);)).collect();
        lines.push(quote!(x));
        self.helper(name, doc, (&[quote!(x: #vector)], vector.clone()), &lines)
    }

    /// Lanes of two registers in turn, half 0 or 1 of them.
    fn interleave(self, half: i32, regs: &[TokenStream]) -> TokenStream {
        let [a, b] = regs else { return TokenStream::new() };
        if self.wide() {
            let lanes = (0..16).map(|i| Literal::i32_unsuffixed(8 * half + i / 2 + 16 * (i % 2)));
            return quote!(_mm512_permutex2var_ps(#a, _mm512_setr_epi32(#(#lanes),*), #b));
        }
        let halves = if half == 0 { quote!(0x20) } else { quote!(0x31) };
        quote!(_mm256_permute2f128_ps::<#halves>(_mm256_unpacklo_ps(#a, #b), _mm256_unpackhi_ps(#a, #b)))
    }

    fn compare(self, op: CompareOp, regs: &[TokenStream]) -> TokenStream {
        let [a, b] = regs else { return TokenStream::new() };
        match (op, self.wide()) {
            (CompareOp::Less, false) => quote!(_mm256_cmp_ps::<_CMP_LT_OQ>(#a, #b)),
            (CompareOp::Less, true) => quote!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(#a, #b)),
            (CompareOp::Equal, false) => quote!(_mm256_cmp_ps::<_CMP_EQ_OQ>(#a, #b)),
            (CompareOp::Equal, true) => quote!(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(#a, #b)),
            (CompareOp::LessInt, false) => quote!(_mm256_castsi256_ps(_mm256_cmpgt_epi32(#b, #a))),
            (CompareOp::LessInt, true) => quote!(_mm512_cmplt_epi32_mask(#a, #b)),
        }
    }

    fn select(self, ty: Ty, regs: &[TokenStream]) -> TokenStream {
        let [mask, yes, no] = regs else { return TokenStream::new() };
        match (self.wide(), ty) {
            (false, Ty::I32) => quote!(_mm256_blendv_epi8(#no, #yes, _mm256_castps_si256(#mask))),
            (false, Ty::F32 | Ty::Mask) => quote!(_mm256_blendv_ps(#no, #yes, #mask)),
            (true, Ty::I32) => quote!(_mm512_mask_blend_epi32(#mask, #no, #yes)),
            (true, Ty::F32 | Ty::Mask) => quote!(_mm512_mask_blend_ps(#mask, #no, #yes)),
        }
    }
}
