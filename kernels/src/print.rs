//! A legalized kernel as a function of the emitted crate.

use emit::{Block, Function};
use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::quote;

use crate::int::Int;
use crate::ir::{Access, Arg, Elem, Kernel, Op, ParamKind, Ptr, Reg, Stmt};
use crate::target::Target;

/// The function `name` of `kernel`, which must be legalized for `target` and verified.
///
/// The body is one unsafe block: its addresses are the kernel's, whose extents the compiler has
/// checked against the slots and weights that its callers pass.
pub fn emit_kernel(kernel: &Kernel, target: &dyn Target) -> Function {
    let p = Printer { kernel, target };
    let features = target.features();
    let mut attrs = Vec::new();
    if !features.is_empty() {
        attrs.push(quote!(target_feature(enable = #features)));
    }
    let mut docs = kernel.docs.clone();
    docs.push(String::new());
    docs.push("# Safety".to_string());
    docs.push(String::new());
    docs.push("Every pointer reaches as far as the shapes above say.".to_string());
    let name = ident(&kernel.name);
    let body = vec![
        emit::Stmt::Comment("SAFETY: the caller passes pointers to whole operands of the shapes above.".to_string()),
        emit::Stmt::Scope { head: quote!(unsafe), body: p.block(&kernel.body) },
    ];
    Function { docs, attrs, head: quote!(pub unsafe fn #name), params: parameter_tokens(kernel), returns: None, body }
}

/// The parameters of the printed function, `name: Type` each.
pub fn parameter_tokens(kernel: &Kernel) -> Vec<TokenStream> {
    kernel
        .params
        .iter()
        .map(|param| {
            let name = ident(&param.name);
            let ty = match param.kind {
                ParamKind::Ptr(_, elem, access) => {
                    let elem = match elem {
                        Elem::F32 => quote!(f32),
                        Elem::U32 => quote!(u32),
                        Elem::I8 => quote!(i8),
                        // A float's bits: stable Rust has no type for it.
                        Elem::U16 | Elem::F16 => quote!(u16),
                    };
                    match access {
                        Access::Read => quote!(*const #elem),
                        Access::Write => quote!(*mut #elem),
                    }
                }
                ParamKind::Size(_) => quote!(usize),
            };
            quote!(#name: #ty)
        })
        .collect()
}

fn ident(name: &str) -> Ident {
    Ident::new(name, Span::call_site())
}

struct Printer<'a> {
    kernel: &'a Kernel,
    target: &'a dyn Target,
}

impl Printer<'_> {
    fn reg(&self, reg: Reg) -> TokenStream {
        let name = ident(&self.kernel.regs[reg.0 as usize].name);
        quote!(#name)
    }

    fn pointer(&self, ptr: Ptr) -> (TokenStream, Elem, Access) {
        let (name, elem, access) = self.kernel.pointers().nth(ptr.0 as usize).expect("verified");
        let name = ident(name);
        (quote!(#name), elem, access)
    }

    fn address(&self, ptr: Ptr, at: &Int) -> TokenStream {
        let (name, _, _) = self.pointer(ptr);
        if at.constant() == Some(0) {
            return name;
        }
        let at = self.int(at);
        quote!(#name.add(#at))
    }

    /// An integer expression without parentheses where precedence allows.
    fn int(&self, n: &Int) -> TokenStream {
        self.int_in(n, 0)
    }

    /// `level`: 0 anywhere, 1 right of `-` or beside `*`, 2 right of `/`, `%` or receiver of a call.
    fn int_in(&self, n: &Int, level: u8) -> TokenStream {
        let wrap = |tokens: TokenStream, own: u8| if level > own { quote!((#tokens)) } else { tokens };
        match n {
            Int::Const(n) => {
                let n = Literal::i64_unsuffixed(*n);
                quote!(#n)
            }
            Int::Var(v) => {
                let name = ident(&self.kernel.vars[v.0 as usize]);
                quote!(#name)
            }
            Int::Add(a, b) => {
                let (a, b) = (self.int_in(a, 0), self.int_in(b, 0));
                wrap(quote!(#a + #b), 0)
            }
            Int::Sub(a, b) => {
                let (a, b) = (self.int_in(a, 0), self.int_in(b, 1));
                wrap(quote!(#a - #b), 0)
            }
            Int::Mul(a, b) => {
                let (a, b) = (self.int_in(a, 1), self.int_in(b, 2));
                wrap(quote!(#a * #b), 1)
            }
            Int::Div(a, b) => {
                let (a, b) = (self.int_in(a, 1), self.int_in(b, 2));
                wrap(quote!(#a / #b), 1)
            }
            Int::Rem(a, b) => {
                let (a, b) = (self.int_in(a, 1), self.int_in(b, 2));
                wrap(quote!(#a % #b), 1)
            }
            Int::Min(a, b) => {
                let (a, b) = (self.int_in(a, 2), self.int_in(b, 0));
                quote!(#a.min(#b))
            }
            Int::Max(a, b) => {
                let (a, b) = (self.int_in(a, 2), self.int_in(b, 0));
                quote!(#a.max(#b))
            }
        }
    }

    fn op(&self, dst: Reg, op: &Op) -> TokenStream {
        let none = TokenStream::new();
        let ty = self.kernel.regs[dst.0 as usize].ty;
        match op {
            Op::Copy(a) => self.reg(*a),
            Op::Load(ptr, at) => self.target.load(self.pointer(*ptr).1, &self.address(*ptr, at)),
            Op::Broadcast(ptr, at) => self.target.broadcast(self.pointer(*ptr).1, &self.address(*ptr, at)),
            Op::Quad(ptr, at) => self.target.quad(&self.address(*ptr, at)),
            Op::SplatInt(n) => self.target.op(op, ty, &[], &self.int_in(n, 2)),
            Op::Splat(_) | Op::SplatBits(_) | Op::Iota(_) => self.target.op(op, ty, &[], &none),
            Op::Unary(_, a)
            | Op::ShiftLeft(a, _)
            | Op::ShiftRight(a, _)
            | Op::ShiftRightSigned(a, _)
            | Op::ShiftRightHalves(a, _)
            | Op::Reduce(_, a) => self.target.op(op, ty, &[self.reg(*a)], &none),
            Op::Binary(_, a, b)
            | Op::Compare(_, a, b)
            | Op::InterleaveLow(a, b)
            | Op::InterleaveHigh(a, b)
            | Op::Zip(_, a, b) => self.target.op(op, ty, &[self.reg(*a), self.reg(*b)], &none),
            Op::MulAdd(a, b, c)
            | Op::NegMulAdd(a, b, c)
            | Op::Select(a, b, c)
            | Op::Dot(a, b, c)
            | Op::DotPairs(a, b, c) => self.target.op(op, ty, &[self.reg(*a), self.reg(*b), self.reg(*c)], &none),
            Op::DotLane(w, a, _, acc) => self.target.op(op, ty, &[self.reg(*w), self.reg(*a), self.reg(*acc)], &none),
        }
    }

    fn block(&self, body: &[Stmt]) -> Block {
        body.iter().map(|s| self.stmt(s)).collect()
    }

    fn stmt(&self, stmt: &Stmt) -> emit::Stmt {
        use emit::Stmt as S;
        match stmt {
            Stmt::Note(text) => S::Comment(text.clone()),
            Stmt::Blank => S::Blank,
            Stmt::Let(reg, op) => {
                let (name, value) = (self.reg(*reg), self.op(*reg, op));
                S::Line(quote!(let #name = #value;))
            }
            Stmt::LetMut(reg, op) => {
                let (name, value) = (self.reg(*reg), self.op(*reg, op));
                S::Line(quote!(let mut #name = #value;))
            }
            Stmt::Set(reg, op) => {
                let (name, value) = (self.reg(*reg), self.op(*reg, op));
                S::Line(quote!(#name = #value;))
            }
            Stmt::Store(ptr, at, reg) => {
                let (_, elem, _) = self.pointer(*ptr);
                S::Line(self.target.store(elem, &self.address(*ptr, at), &self.reg(*reg)))
            }
            Stmt::StoreOne(ptr, at, reg) => {
                let (_, elem, _) = self.pointer(*ptr);
                S::Line(self.target.store_one(elem, &self.address(*ptr, at), &self.reg(*reg)))
            }
            Stmt::CopyOne((to, to_at), (from, from_at)) => {
                let (to, from) = (self.address(*to, to_at), self.address(*from, from_at));
                S::Line(quote!(*#to = *#from;))
            }
            Stmt::Prefetch(ptr, at) => {
                let ((name, _, _), at) = (self.pointer(*ptr), self.int(at));
                S::Line(self.target.prefetch(&quote!(#name.wrapping_add(#at))))
            }
            Stmt::LetInt(var, value) => {
                let (name, value) = (ident(&self.kernel.vars[var.0 as usize]), self.int(value));
                S::Line(quote!(let #name = #value;))
            }
            Stmt::Loop(var, from, to, body) => {
                let name = ident(&self.kernel.vars[var.0 as usize]);
                let (from, to) = (self.int(from), self.int(to));
                S::Scope { head: quote!(for #name in #from..#to), body: self.block(body) }
            }
            Stmt::IfLess(a, b, then, otherwise) => {
                let (a, b) = (self.int(a), self.int(b));
                S::Branch { head: quote!(#a < #b), body: self.block(then), otherwise: self.block(otherwise) }
            }
            Stmt::IfAtLeast((x, x_at), (y, y_at), then) => {
                let (x, y) = (self.address(*x, x_at), self.address(*y, y_at));
                S::Branch { head: quote!(*#x >= *#y), body: self.block(then), otherwise: vec![] }
            }
            Stmt::Call(callee, args) => {
                let name = ident(&callee.name);
                let args = args.iter().zip(&callee.params).map(|(arg, param)| match (arg, param.kind) {
                    (Arg::Ptr(ptr, at), ParamKind::Ptr(_, elem, wanted)) => {
                        let mut address = self.address(*ptr, at);
                        let (_, own, access) = self.pointer(*ptr);
                        if (access, wanted) == (Access::Write, Access::Read) {
                            address = quote!(#address.cast_const());
                        }
                        if own == elem { address } else { quote!(#address.cast()) }
                    }
                    (Arg::Size(n), _) => self.int(n),
                    (Arg::Ptr(..), ParamKind::Size(_)) => unreachable!("verified"),
                });
                S::Line(quote!(#name(#(#args),*);))
            }
        }
    }
}

/// A float as an expression; the limits by their names.
pub fn float_tokens(x: f32) -> TokenStream {
    if x == f32::NEG_INFINITY {
        return quote!(f32::NEG_INFINITY);
    }
    if x == f32::INFINITY {
        return quote!(f32::INFINITY);
    }
    if x == f32::MIN {
        return quote!(f32::MIN);
    }
    let magnitude: TokenStream = format!("{:?}", x.abs()).parse().expect("a finite float is a token");
    if x < 0.0 { quote!(-#magnitude) } else { magnitude }
}
