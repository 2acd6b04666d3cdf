//! Names of constants: weights and slots, made from the names of nodes.

use std::collections::HashSet;

use proc_macro2::{Ident, Span};

use crate::lower::SlotId;
use crate::pack::PackId;
use crate::pipeline::Prepared;

/// Constant names of all packs and slots, each unique among its kind.
pub(super) struct Names {
    packs: Vec<Ident>,
    slots: Vec<Ident>,
}

impl Names {
    pub(super) fn new(prepared: &Prepared) -> Names {
        let packs = unique(prepared.program.packs.iter().map(|p| p.name.as_str()));
        let slots = unique(prepared.program.slots.iter().map(|s| s.name.as_str()));
        Names { packs, slots }
    }

    pub(super) fn pack(&self, id: PackId) -> &Ident {
        &self.packs[id.0]
    }

    pub(super) fn slot(&self, id: SlotId) -> &Ident {
        &self.slots[id.0]
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Ident> {
    let mut taken = HashSet::new();
    names
        .map(|name| {
            let base: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
            let mut fresh = base.clone();
            let mut n = 1;
            while !taken.insert(fresh.clone()) {
                n += 1;
                fresh = format!("{base}_{n}");
            }
            Ident::new(&fresh, Span::call_site())
        })
        .collect()
}
