//! What an instruction set has to say: types, one intrinsic per operation, its prelude.

use emit::Item;
use proc_macro2::TokenStream;

use crate::ir::{Elem, Op, Ty};

/// What a dot product of bytes takes of rows of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Dots {
    /// A word of a row in all lanes.
    #[default]
    Words,
    /// A lane of a register: then four words of a row are one load.
    Lanes,
    /// Two words of two rows, with two of two output channels; of single rows a lane.
    Pairs,
}

/// An instruction set at one level of features.
///
/// A target holds no algorithm: it names types and intrinsics. An operation it does not support
/// is expanded into others by the legalizer, before interpreter and printer see the kernel.
pub trait Target {
    /// Short name of the level, the suffix of printed functions: `v3`.
    fn level(&self) -> &'static str;

    /// 32-bit lanes of a register: 4, 8 or 16.
    fn lanes(&self) -> usize;

    /// The level that every processor of this one has too, whose registers and rounding are the same: a kernel that is the same
    /// at both is printed once, there.
    fn extends(&self) -> Option<&'static str> {
        None
    }

    /// Vector registers the schedule may count on.
    fn registers(&self) -> usize;

    /// The value of `#[target_feature(enable = "...")]`; empty for a baseline that needs none.
    fn features(&self) -> &'static str;

    /// Whether a word of printed code is one of its intrinsics.
    fn is_intrinsic(&self, word: &str) -> bool {
        word.starts_with('_')
    }

    /// Whether the target has an instruction for this operation.
    fn supports(&self, op: &Op) -> bool;

    /// Whether `load`, `broadcast` and the stores convert 16-bit floats. Where not, the legalizer moves
    /// their bits as [`Elem::U16`] and converts these.
    fn converts_halves(&self) -> bool;

    /// Whether products of nibbles and bytes are added up in halves of lanes first, and meet their factor there: where a dot
    /// product is several instructions.
    fn adds_in_halves(&self) -> bool {
        false
    }

    /// What its products of bytes take.
    fn dots(&self) -> Dots {
        Dots::Words
    }

    /// The register type.
    fn vector_type(&self, ty: Ty) -> TokenStream;

    /// The expression that reads consecutive elements at the address `at`, widened to 32 bits.
    fn load(&self, elem: Elem, at: &TokenStream) -> TokenStream;

    /// The expression that reads the element at the address `at` into all lanes.
    fn broadcast(&self, elem: Elem, at: &TokenStream) -> TokenStream;

    /// The expression that reads four words at the address `at` into every four lanes.
    fn quad(&self, _at: &TokenStream) -> TokenStream {
        TokenStream::new()
    }

    /// The expression of any other operation, whose result is a `ty`; `regs` are its operands' names
    /// in the order of the fields, `at` is the value of an integer.
    fn op(&self, op: &Op, ty: Ty, regs: &[TokenStream], at: &TokenStream) -> TokenStream;

    /// The statement that writes the lanes of `value` at the address `at`, narrowed to the element.
    fn store(&self, elem: Elem, at: &TokenStream, value: &TokenStream) -> TokenStream;

    /// The statement that writes the first lane of `value` at the address `at`.
    fn store_one(&self, elem: Elem, at: &TokenStream, value: &TokenStream) -> TokenStream;

    /// Whether the target has [`prefetch`](Target::prefetch); without, the hint is left out.
    fn prefetches(&self) -> bool {
        false
    }

    /// The statement that asks for the cache line at the address `at`, which nobody may own.
    fn prefetch(&self, _at: &TokenStream) -> TokenStream {
        TokenStream::new()
    }

    /// Imports and helper functions (reductions) the printed kernels use.
    fn prelude(&self) -> Vec<Item>;
}
