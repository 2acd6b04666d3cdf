//! Kernels on their own: a module whose functions take operands from a list, for programs that time them.

use std::rc::Rc;

use emit::{File, Function, Item};
use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::quote;

use crate::extent::{ExtentError, extents};
use crate::ir::{Kernel, ParamKind};
use crate::legalize::legalize;
use crate::print::emit_kernel;
use crate::target::Target;

/// A call of a kernel with sizes known now.
#[derive(Clone, Debug)]
pub struct Callable {
    /// The kernel.
    pub kernel: Rc<Kernel>,
    /// Values of its sizes, in parameter order.
    pub sizes: Vec<usize>,
}

impl Callable {
    /// Bytes of each operand that the call may touch.
    ///
    /// # Errors
    /// As [`extents`].
    pub fn operands(&self) -> Result<Vec<usize>, ExtentError> {
        let sizes: Vec<(i64, i64)> = self.sizes.iter().map(|&n| (n as i64, n as i64)).collect();
        Ok(extents(&self.kernel, &sizes)?.into_iter().map(|r| r.end as usize).collect())
    }

    /// The function `name(p: &[*mut f32])`, which calls the kernel with the operands `p`.
    fn wrapper(&self, name: &str, target: &dyn Target) -> Item {
        let (mut pointers, mut sizes) = (0.., self.sizes.iter());
        let args: Vec<TokenStream> = self
            .kernel
            .params
            .iter()
            .map(|param| match param.kind {
                ParamKind::Ptr(..) => {
                    let at = Literal::usize_unsuffixed(pointers.next().unwrap_or(0));
                    quote!(p[#at].cast())
                }
                ParamKind::Size(_) => {
                    let n = Literal::usize_unsuffixed(sizes.next().copied().unwrap_or(0));
                    quote!(#n)
                }
            })
            .collect();
        let (name, kernel) = (Ident::new(name, Span::call_site()), Ident::new(&self.kernel.name, Span::call_site()));
        let features = target.features();
        let attrs = if features.is_empty() { vec![] } else { vec![quote!(target_feature(enable = #features))] };
        Item::Function(Function {
            docs: vec![
                format!("Calls [`{}`].", self.kernel.name),
                String::new(),
                "# Safety".to_string(),
                String::new(),
                "`p` holds its operands.".to_string(),
            ],
            attrs,
            head: quote!(pub unsafe fn #name),
            params: vec![quote!(p: &[*mut f32])],
            returns: None,
            body: vec![
                emit::Stmt::Comment("SAFETY: the caller's.".to_string()),
                emit::Stmt::Scope { head: quote!(unsafe), body: vec![emit::Stmt::Line(quote!(#kernel(#(#args),*);))] },
            ],
        })
    }
}

/// The module of some calls at one level: helpers, kernels, and for each call a function `run_0`, `run_1` and so on.
///
/// Kernels of one name must be equal.
pub fn callable_module(target: &dyn Target, calls: &[Callable]) -> String {
    let mut all: Vec<Rc<Kernel>> = Vec::new();
    for kernel in calls.iter().flat_map(|call| call.kernel.with_callees()) {
        if !all.iter().any(|k| k.name == kernel.name) {
            all.push(kernel);
        }
    }
    let mut items = target.prelude();
    items.extend(all.iter().map(|k| Item::Function(emit_kernel(&legalize(k, target), target))));
    items.extend(calls.iter().enumerate().map(|(i, call)| call.wrapper(&format!("run_{i}"), target)));
    emit::print(&File { docs: Vec::new(), items })
}
