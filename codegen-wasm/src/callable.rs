//! Kernels on their own: a module that exports one, for programs that run or time it.

use std::rc::Rc;

use kernels::Kernel;
use wasm_encoder::{
    CodeSection, EntityType, ExportKind, ExportSection, FunctionSection, ImportSection, MemoryType, Module,
    TypeSection, ValType,
};

use crate::{Level, encode, signature};

/// The module of a legalized kernel and those it calls: it imports `env.memory` and exports `run`, which takes the kernel's
/// parameters in order, pointers as byte addresses.
pub fn callable_module(kernel: &Rc<Kernel>, level: Level) -> Vec<u8> {
    let all = kernel.with_callees();
    let (mut types, mut functions, mut code) = (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    let index = |name: &str| all.iter().position(|k| k.name == name).map_or(u32::MAX, |i| i as u32);
    for (i, kernel) in all.iter().enumerate() {
        types.ty().function(vec![ValType::I32; signature(kernel)], []);
        functions.function(i as u32);
        code.function(&encode(kernel, level, &index));
    }
    let (mut imports, mut exports) = (ImportSection::new(), ExportSection::new());
    let memory = MemoryType { minimum: 0, maximum: None, memory64: false, shared: false, page_size_log2: None };
    imports.import("env", "memory", EntityType::Memory(memory));
    exports.export("run", ExportKind::Func, all.len() as u32 - 1);
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&exports).section(&code);
    module.finish()
}
