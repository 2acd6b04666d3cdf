//! WebAssembly as a kernel IR target: a line is four registers.
//!
//! There are two ways out: printed Rust with the intrinsics of `core::arch::wasm32` (the `Target` of `kernels`), and
//! encoded functions that need no compiler ([`encode`]). Both are made from one table of operations (`ops`), so both
//! have the interpreter's bits. This crate names types and instructions; it holds no algorithm.

mod address;
mod callable;
mod encode;
mod ops;

use emit::Item;
use kernels::{BinaryOp, Elem, Op, ReduceOp, Reg, Target, Ty, float_tokens};
use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::quote;

pub use Level::Simd128;
pub use callable::callable_module;
pub use encode::{encode, signature, worth_constants};
use ops::{Access, Recipe, Value};

/// A level of WebAssembly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The simd128 proposal, which does not fuse.
    Simd128,
    /// Relaxed SIMD, where multiplies and adds fuse.
    Relaxed,
    /// Relaxed SIMD without fused operations; a dot product is made of two instructions and an addition.
    RelaxedExact,
    /// As [`Level::RelaxedExact`], but a dot product is one instruction: for processors that have it.
    RelaxedDot,
}

impl Level {
    /// The levels of float models, best first.
    pub const FLOAT: [Level; 2] = [Level::Relaxed, Level::Simd128];

    /// The levels of quantized models, best first where the processor has dot products of bytes.
    pub const EXACT: [Level; 3] = [Level::RelaxedDot, Level::RelaxedExact, Level::Simd128];

    /// Whether there are relaxed instructions.
    pub fn relaxed(self) -> bool {
        self != Level::Simd128
    }

    fn fuses(self) -> bool {
        self == Level::Relaxed
    }
}

impl Target for Level {
    fn level(&self) -> &'static str {
        match self {
            Level::Simd128 => "simd128",
            Level::Relaxed | Level::RelaxedExact => "relaxed",
            Level::RelaxedDot => "relaxed_dot",
        }
    }

    fn lanes(&self) -> usize {
        4
    }

    /// Engines map values to the 16 machine registers of x86-64 and keep two; more spill.
    fn registers(&self) -> usize {
        14
    }

    fn features(&self) -> &'static str {
        if self.relaxed() { "simd128,relaxed-simd" } else { "simd128" }
    }

    fn is_intrinsic(&self, word: &str) -> bool {
        const SHAPES: [&str; 8] = ["v128_", "i8x16_", "u8x16_", "i16x8_", "u16x8_", "i32x4_", "u32x4_", "f32x4_"];
        SHAPES.iter().any(|shape| word.starts_with(shape)) || matches!(word, "i32x4" | "v128")
    }

    fn supports(&self, op: &Op) -> bool {
        match op {
            Op::MulAdd(..) | Op::NegMulAdd(..) => self.fuses(),
            // Nine instructions where none is relaxed.
            Op::Dot(..) => self.relaxed(),
            Op::Quad(..) | Op::DotLane(..) | Op::DotPairs(..) | Op::Zip(..) => false,
            _ => true,
        }
    }

    fn converts_halves(&self) -> bool {
        false
    }

    fn adds_in_halves(&self) -> bool {
        *self == Level::RelaxedExact
    }

    fn vector_type(&self, _ty: Ty) -> TokenStream {
        quote!(v128)
    }

    fn load(&self, elem: Elem, at: &TokenStream) -> TokenStream {
        match elem {
            // Made U16 by the legalizer, here and below.
            Elem::F16 => TokenStream::new(),
            _ => {
                let Access { intrinsic, convert, .. } = ops::load(elem);
                let f = tokens(intrinsic);
                printed(&convert, &[quote!(#f(#at.cast()))])
            }
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
        if let Some(recipe) = ops::recipe(*self, op) {
            return printed(&recipe, regs);
        }
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
            // Printed by `load` and `broadcast`; the rest has recipes.
            _ => TokenStream::new(),
        }
    }

    fn store(&self, elem: Elem, at: &TokenStream, value: &TokenStream) -> TokenStream {
        written(elem, ops::store(elem), at, value)
    }

    fn store_one(&self, elem: Elem, at: &TokenStream, value: &TokenStream) -> TokenStream {
        written(elem, ops::store_one(elem), at, value)
    }

    fn prelude(&self) -> Vec<Item> {
        let x = Reg(0);
        let reductions = [ReduceOp::Add, ReduceOp::Max, ReduceOp::MinInt, ReduceOp::AddInt].map(|op| Op::Reduce(op, x));
        let mut recipes: Vec<Recipe> = reductions.iter().filter_map(|op| ops::recipe(*self, op)).collect();
        recipes.extend([ops::store(Elem::I8).convert, ops::load(Elem::I8).convert]);
        recipes.extend(ops::recipe(*self, &Op::Dot(x, x, x)));
        recipes.extend(ops::recipe(*self, &Op::Binary(BinaryOp::DotBytes, x, x)));
        let uses = Item::Line {
            docs: vec![],
            attrs: vec![],
            tokens: quote!(
                use core::arch::wasm32::*;
            ),
        };
        let helpers = recipes.iter().filter_map(|recipe| function(recipe, self.features()));
        std::iter::once(uses).chain(helpers).collect()
    }
}

/// The statement of a store.
fn written(elem: Elem, access: Access, at: &TokenStream, value: &TokenStream) -> TokenStream {
    if elem == Elem::F16 {
        return TokenStream::new();
    }
    let (f, value) = (tokens(access.intrinsic), printed(&access.convert, std::slice::from_ref(value)));
    // A whole register's address comes first, a lane's last.
    if access.intrinsic == "v128_store" { quote!(#f(#at.cast(), #value);) } else { quote!(#f(#value, #at.cast());) }
}

fn tokens(text: &str) -> TokenStream {
    text.parse().expect("the table holds Rust")
}

fn ident(name: &str) -> Ident {
    Ident::new(name, Span::call_site())
}

/// A recipe as an expression: a call of its helper, or its steps nested.
fn printed(recipe: &Recipe, regs: &[TokenStream]) -> TokenStream {
    match recipe.helper {
        Some(helper) => {
            let name = ident(helper.name);
            quote!(#name(#(#regs),*))
        }
        None => match recipe.steps.len() {
            0 => regs[0].clone(),
            n => step(recipe, n - 1, regs, &|i| step(recipe, i, regs, &|_| TokenStream::new())),
        },
    }
}

/// Step `at` as an expression; `other` gives those of the steps it takes.
fn step(recipe: &Recipe, at: usize, regs: &[TokenStream], other: &dyn Fn(usize) -> TokenStream) -> TokenStream {
    let own = &recipe.steps[at];
    let args = own.args.iter().map(|value| match value {
        Value::Arg(i) => regs[*i].clone(),
        Value::Step(i) => other(*i),
        Value::Halves(n) => {
            let n = Literal::i16_unsuffixed(*n);
            quote!(i16x8_splat(#n))
        }
    });
    let by = own.by.map(Literal::u32_unsuffixed).map(|by| quote!(#by));
    let (f, args) = (tokens(own.intrinsic), args.chain(by));
    quote!(#f(#(#args),*))
}

/// A helper of the prelude: a line for each step.
fn function(recipe: &Recipe, features: &str) -> Option<Item> {
    let helper = recipe.helper?;
    let regs: Vec<TokenStream> = helper.params.iter().map(|p| ident(p)).map(|p| quote!(#p)).collect();
    let named = |i: usize| {
        let name = ident(recipe.steps[i].name);
        quote!(#name)
    };
    let last = recipe.steps.len() - 1;
    // A step without a name is nested into the one that takes it.
    let value = |i: usize| {
        step(recipe, i, &regs, &|i| {
            if recipe.steps[i].name.is_empty() { step(recipe, i, &regs, &named) } else { named(i) }
        })
    };
    let lines = (0..=last).filter(|&i| i == last || !recipe.steps[i].name.is_empty()).map(|i| {
        let value = value(i);
        if i == last {
            return emit::Stmt::Line(value);
        }
        let name = named(i);
        emit::Stmt::Line(quote!(let #name = #value;))
    });
    let name = ident(helper.name);
    Some(Item::Function(emit::Function {
        docs: vec![helper.doc.to_string()],
        attrs: vec![quote!(inline), quote!(target_feature(enable = #features))],
        head: quote!(pub fn #name),
        params: regs.iter().map(|p| quote!(#p: v128)).collect(),
        returns: Some(quote!(v128)),
        body: lines.collect(),
    }))
}
